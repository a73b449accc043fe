//! Taking a backup apart and putting it together again, with other contents but right sums.
#![expect(clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::path::{Path, PathBuf};
use std::{fs, iter};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const BLOCK: usize = 512;

/// The members of an archive: headers and contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Archive(pub(super) Vec<(Vec<u8>, Vec<u8>)>);

fn name(header: &[u8]) -> String {
    String::from_utf8(header[..100].iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
}

/// The header with another name, length or type.
fn header(like: &[u8], name: &str, length: usize) -> Vec<u8> {
    let mut header = tar::Header::from_byte_slice(like).clone();
    header.as_mut_bytes()[..100].fill(0);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(length as u64);
    header.set_cksum();
    header.as_bytes().to_vec()
}

impl Archive {
    pub(super) fn read(file: &Path) -> Self {
        let (bytes, mut members, mut at) = (fs::read(file).unwrap(), Vec::new(), 0);
        while bytes[at] != 0 {
            let header = bytes[at..at + BLOCK].to_vec();
            let length = usize::try_from(tar::Header::from_byte_slice(&header).entry_size().unwrap()).unwrap();
            members.push((header, bytes[at + BLOCK..][..length].to_vec()));
            at += BLOCK + length.div_ceil(BLOCK) * BLOCK;
        }
        Self(members)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (header, content) in &self.0 {
            bytes.extend(header);
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.extend([0; 2 * BLOCK]);
        bytes
    }

    pub(super) fn write(&self, folder: &Path) -> PathBuf {
        let file = folder.join("made.tar");
        otherix_runtime::files::replace(&file, &self.to_bytes()).unwrap();
        file
    }

    pub(super) fn manifest(&self) -> Value {
        serde_json::from_slice(&self.0[0].1).unwrap()
    }

    pub(super) fn content(&mut self, of: &str) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(header, _)| name(header) == of).unwrap().1
    }

    /// Renames a part, in its header and in the manifest.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let (found, _) = self.0.iter_mut().find(|(header, _)| name(header) == from).unwrap();
        *found = header(found, to, 0);
        let mut manifest = self.manifest();
        for part in manifest["parts"].as_array_mut().unwrap().iter_mut().filter(|part| part["name"] == from) {
            part["name"] = json!(to);
        }
        self.0[0].1 = serde_json::to_vec_pretty(&manifest).unwrap();
    }

    /// Changes the manifest.
    pub(super) fn with_manifest(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut manifest = self.manifest();
        change(&mut manifest);
        self.0[0].1 = serde_json::to_vec_pretty(&manifest).unwrap();
        self
    }

    /// Makes lengths and sums those of the contents, as a forger would.
    pub(super) fn summed(mut self) -> Self {
        let sum = |content: &[u8]| Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let parts: Vec<(String, usize, String)> = (self.0.iter().skip(1))
            .filter(|(header, _)| name(header) != "SHA256SUMS")
            .map(|(header, content)| (name(header), content.len(), sum(content)))
            .collect();
        let mut this = self.clone().with_manifest(|manifest| {
            let known = manifest["parts"].as_array().unwrap().clone();
            let parts = parts.iter().filter(|(name, ..)| known.iter().any(|part| part["name"] == *name));
            manifest["parts"] =
                parts.map(|(name, bytes, sha256)| json!({"name": name, "bytes": bytes, "sha256": sha256})).collect();
        });
        let listed: Vec<String> = this.manifest()["parts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part["name"].as_str().unwrap().to_owned())
            .collect();
        let lines = iter::once(format!("{}  manifest.json\n", sum(&this.0[0].1)));
        let of_parts = parts.iter().filter(|(name, ..)| listed.contains(name));
        let lines: String = lines.chain(of_parts.map(|(name, _, sha256)| format!("{sha256}  {name}\n"))).collect();
        *this.content("SHA256SUMS") = lines.into_bytes();
        for (found, content) in &mut this.0 {
            *found = header(found, &name(found), content.len());
        }
        self.0 = this.0;
        self
    }
}
