//! The cloud-init seed of a VM (data source `NoCloud`): a FAT file system labelled `CIDATA`, of the same bytes for the
//! same content.

use std::io::{self, Cursor, Write as _};
use std::path::Path;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use otherix_runtime::files;
use serde_json::{Value, json};
use uuid::Uuid;

/// Longest user data, in bytes. Base64 of a compressed archive fits; larger things belong on a server.
pub const USER_DATA_MAX: usize = 64 << 10;
/// Longest network configuration, in bytes.
pub const NETWORK_CONFIG_MAX: usize = 64 << 10;
/// Longest list of SSH keys, in bytes.
pub const SSH_KEYS_MAX: usize = 16 << 10;
/// Longest label of a host name (RFC 1123).
pub const HOSTNAME_MAX: usize = 63;

/// What is written without user data. cloud-init requires the file, and warns of one with nothing but comments.
const NO_USER_DATA: &str = "#cloud-config\n{}\n";

const SECTOR: usize = 512;
const SECTORS: u32 = 1024;
const LABEL: [u8; 11] = *b"CIDATA     ";

/// What a seed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Also the instance id: cloud-init configures an instance once.
    pub vm: Uuid,
    /// See [`hostname`].
    pub hostname: String,
    /// In the format of `authorized_keys`, one each.
    pub ssh_keys: Vec<String>,
    /// As the user has given it; nothing is added.
    pub user_data: Option<String>,
    /// In version 1 or 2 of cloud-init's format.
    pub network_config: Option<String>,
}

/// Why a seed was not written.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("{what}: {size} bytes, of at most {max}")]
    TooLong { what: &'static str, size: usize, max: usize },
    #[error("`{0}` is not a name of a host: letters, digits and hyphens, at most {HOSTNAME_MAX}")]
    Hostname(String),
    #[error("an SSH key is one line: `{0}`")]
    SshKey(String),
    #[error("cannot write the seed")]
    Io(#[source] io::Error),
}

/// A label of DNS, made of a name: lower-case letters, digits and hyphens. `None` if the name has no letters and digits
/// of ASCII.
#[must_use]
pub fn label(name: &str) -> Option<String> {
    let mut label = String::new();
    for character in name.chars().flat_map(char::to_lowercase) {
        match character {
            'a'..='z' | '0'..='9' => label.push(character),
            _ if label.is_empty() || label.ends_with('-') => {}
            _ => label.push('-'),
        }
    }
    label.truncate(HOSTNAME_MAX);
    let label = label.trim_end_matches('-');
    (!label.is_empty()).then(|| label.to_owned())
}

/// A name of a host, made of a VM's name: its [`label`]. Names without one get one by the id.
#[must_use]
pub fn hostname(name: &str, vm: Uuid) -> String {
    label(name).unwrap_or_else(|| label_of_id("vm", vm))
}

/// A label of DNS, made of an id.
#[must_use]
pub fn label_of_id(kind: &str, id: Uuid) -> String {
    // Its end is random.
    let digits = id.simple().to_string();
    format!("{kind}-{}", digits.get(20..).unwrap_or_default())
}

/// Network configuration by which the interface with that MAC asks for an address.
#[must_use]
pub fn dhcp_network_config(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let nic = json!({"match": {"macaddress": mac}, "dhcp4": true});
    json!({"version": 2, "ethernets": {"nic0": nic}}).to_string() + "\n"
}

impl Seed {
    /// The image of the file system.
    ///
    /// # Errors
    /// [`SeedError`], of which [`SeedError::Io`] does not occur.
    pub fn image(&self) -> Result<Vec<u8>, SeedError> {
        self.check()?;
        let mut files = vec![("meta-data", self.meta_data())];
        // Without it cloud-init takes the seed for an incomplete one.
        files.push(("user-data", self.user_data.clone().unwrap_or_else(|| NO_USER_DATA.to_owned())));
        files.extend(self.network_config.clone().map(|config| ("network-config", config)));
        file_system(&files).map_err(SeedError::Io)
    }

    /// Replaces the file, with mode 0600: user data may contain secrets.
    ///
    /// # Errors
    /// [`SeedError`].
    pub fn write(&self, path: &Path) -> Result<(), SeedError> {
        files::replace(path, &self.image()?).map_err(SeedError::Io)
    }

    fn check(&self) -> Result<(), SeedError> {
        let keys = self.ssh_keys.iter().map(|key| key.len().saturating_add(1)).sum();
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        for (what, size, max) in [
            ("the user data", length(&self.user_data), USER_DATA_MAX),
            ("the network configuration", length(&self.network_config), NETWORK_CONFIG_MAX),
            ("the SSH keys", keys, SSH_KEYS_MAX),
        ] {
            if size > max {
                return Err(SeedError::TooLong { what, size, max });
            }
        }
        let is_label = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_label(&self.hostname) || !(1..=HOSTNAME_MAX).contains(&self.hostname.len()) {
            return Err(SeedError::Hostname(self.hostname.clone()));
        }
        match self.ssh_keys.iter().find(|key| key.contains(char::is_control)) {
            Some(key) => Err(SeedError::SshKey(key.escape_debug().take(60).collect())),
            None => Ok(()),
        }
    }

    /// One value for each line, in JSON, which is YAML: whatever a key contains, it stays a text.
    fn meta_data(&self) -> String {
        let mut lines = vec![
            format!("instance-id: {}", self.vm),
            format!("local-hostname: {}", Value::from(self.hostname.as_str())),
        ];
        if !self.ssh_keys.is_empty() {
            lines.push(format!("public-keys: {}", Value::from(self.ssh_keys.as_slice())));
        }
        lines.join("\n") + "\n"
    }
}

fn file_system(files: &[(&str, String)]) -> io::Result<Vec<u8>> {
    let mut image = Cursor::new(vec![0; SECTOR * SECTORS as usize]);
    let options = FormatVolumeOptions::new().total_sectors(SECTORS).fat_type(FatType::Fat12).volume_label(LABEL);
    format_volume(&mut image, options)?;
    let system = FileSystem::new(&mut image, FsOptions::new())?;
    for (name, content) in files {
        system.root_dir().create_file(name)?.write_all(content.as_bytes())?;
    }
    system.unmount()?;
    Ok(image.into_inner())
}

#[cfg(test)]
#[path = "seed_tests.rs"]
mod tests;
