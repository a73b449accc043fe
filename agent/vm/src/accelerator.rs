//! Whether the node's processor executes guests (KVM), or QEMU translates their instructions (TCG).
//!
//! That `/dev/kvm` can be opened does not suffice: some virtual machines have one that runs small programs, and hangs
//! with Linux. So KVM is used if the processor has the extension or its module is loaded, and a kernel boots with it.

use std::fmt::{self, Display, Formatter};
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::spec::Accelerator;

/// How long the trial may take; with KVM it takes less than a second.
pub const TRIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Most of the kernel's output that is read, in bytes.
const OUTPUT_MAX: usize = 1 << 20;
/// What a kernel without a root file system comes to, at the end of its boot.
const BOOTED: &str = "Kernel panic - not syncing";
const KVM: &str = "/dev/kvm";

/// What a node uses, and why: for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub accelerator: Accelerator,
    pub reason: String,
}

/// What the node is found to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Why `/dev/kvm` cannot be opened; `None` if it can.
    pub device_error: Option<String>,
    /// The processor's extension (`vmx`, `svm`) or the loaded module (`kvm_intel`, `kvm_amd`).
    pub extension: Option<String>,
}

/// Why a kernel did not boot with KVM.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("QEMU cannot be started")]
    Start(#[source] io::Error),
    #[error("a kernel does not boot within {0:?}")]
    TimedOut(Duration),
    #[error("QEMU ends before a kernel has booted: {0}")]
    Ended(String),
}

impl Facts {
    /// Looks at this machine.
    #[must_use]
    pub fn gather() -> Self {
        let device = OpenOptions::new().read(true).write(true).open(KVM);
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let is_loaded = |module: &&str| Path::new("/sys/module").join(module).exists();
        let module = ["kvm_intel", "kvm_amd"].into_iter().find(is_loaded);
        Self {
            device_error: device.err().map(|error| error.to_string()),
            extension: extension(&processors).or(module).map(str::to_owned),
        }
    }
}

/// The extension that `/proc/cpuinfo` names.
fn extension(processors: &str) -> Option<&'static str> {
    let lines = processors.lines().filter_map(|line| line.strip_prefix("flags")?.split_once(':'));
    let mut flags = lines.flat_map(|(_, flags)| flags.split_whitespace());
    flags.find_map(|flag| ["vmx", "svm"].into_iter().find(|extension| *extension == flag))
}

/// Chooses: what is configured, else by the facts and a trial, which is made only if they permit KVM. It returns
/// `None` if there is no kernel to try.
pub fn choose(
    configured: Option<Accelerator>,
    facts: &Facts,
    trial: impl FnOnce() -> Option<Result<(), TrialError>>,
) -> Choice {
    let choice = |accelerator, reason: String| Choice { accelerator, reason };
    if let Some(accelerator) = configured {
        return choice(accelerator, "configured".to_owned());
    }
    if let Some(error) = &facts.device_error {
        return choice(Accelerator::Tcg, format!("{KVM} cannot be opened: {error}"));
    }
    let Some(extension) = &facts.extension else {
        return choice(Accelerator::Tcg, format!("the processor has no extension for {KVM} (vmx, svm)"));
    };
    match trial() {
        None => choice(Accelerator::Kvm, format!("{extension} is available; there was no kernel to try it with")),
        Some(Ok(())) => choice(Accelerator::Kvm, format!("{extension} is available, and a kernel boots with it")),
        Some(Err(error)) => {
            choice(Accelerator::Tcg, format!("{KVM} does not work: {}", crate::launch::with_causes(&error)))
        }
    }
}

/// A kernel of this machine for the trial: the one that runs, or any other.
#[must_use]
pub fn kernel() -> Option<PathBuf> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let own = Path::new("/boot").join(format!("vmlinuz-{}", release.trim()));
    if own.is_file() {
        return Some(own);
    }
    let entries = Path::new("/boot").read_dir().ok()?;
    let is_kernel = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("vmlinuz-")) && path.is_file()
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_kernel).max()
}

/// Boots a kernel without a root file system until it gives up. Blocks for at most `timeout`.
///
/// # Errors
/// [`TrialError`].
pub fn try_boot(program: &Path, kernel: &Path, accelerator: Accelerator, timeout: Duration) -> Result<(), TrialError> {
    let mut command = Command::new(program);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "128", "-M", "q35"])
        .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
        .args(["-accel", &accelerator.to_string(), "-cpu"])
        .arg(if accelerator == Accelerator::Kvm { "host" } else { "max" })
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // QEMU's errors fit into the pipe.
    let mut child = Ending(command.spawn().map_err(TrialError::Start)?);
    let Some(mut output) = child.0.stdout.take() else {
        return Err(TrialError::Start(io::Error::other("it has no output")));
    };
    let mut text = Vec::new();
    let result = read_until_booted(&mut output, &mut text, timeout);
    let booted = || String::from_utf8_lossy(&text).contains(BOOTED);
    match result {
        Ok(()) if booted() => Ok(()),
        Ok(()) => Err(TrialError::Ended(last_words(&mut child.0, &text))),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(TrialError::TimedOut(timeout)),
        Err(error) => Err(TrialError::Start(error)),
    }
}

/// Killed and reaped when it goes out of scope.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Reads until the kernel has booted, or the end. `TimedOut` after the time.
fn read_until_booted(output: &mut std::process::ChildStdout, text: &mut Vec<u8>, timeout: Duration) -> io::Result<()> {
    let end = tokio::time::Instant::now() + timeout;
    while text.len() < OUTPUT_MAX {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&left))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut bytes = [0; 4096];
        let length = output.read(&mut bytes)?;
        text.extend_from_slice(bytes.get(..length).unwrap_or_default());
        if length == 0 || String::from_utf8_lossy(text).contains(BOOTED) {
            return Ok(());
        }
    }
    Ok(())
}

/// QEMU's error, else the kernel's last line.
fn last_words(child: &mut Child, text: &[u8]) -> String {
    let _gone = child.kill();
    let mut error = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _incomplete = stderr.take(4096).read_to_end(&mut error);
    }
    let of = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(|line| line.chars().take(200).collect())
    };
    of(&error).or_else(|| of(text)).unwrap_or_else(|| "without a word".to_owned())
}

impl Display for Accelerator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(device_error: Option<&str>, extension: Option<&str>) -> Facts {
        Facts { device_error: device_error.map(str::to_owned), extension: extension.map(str::to_owned) }
    }

    #[test]
    fn extension_is_a_whole_flag() {
        assert_eq!(extension("flags\t\t: fpu vmx sse\nvmx flags\t: vnmi\n"), Some("vmx"));
        assert_eq!(extension("model name: svm\nflags : fpu svm_lock xvmx\n"), None);
    }

    #[test]
    fn kvm_needs_device_extension_and_trial() {
        let untried = || panic!("tried in vain");
        let cases = [
            (choose(Some(Accelerator::Kvm), &facts(Some("x"), None), untried), Accelerator::Kvm, "configured"),
            (choose(None, &facts(Some("no such file"), Some("vmx")), untried), Accelerator::Tcg, "no such file"),
            (choose(None, &facts(None, None), untried), Accelerator::Tcg, "no extension"),
            (choose(None, &facts(None, Some("svm")), || None), Accelerator::Kvm, "no kernel to try"),
            (choose(None, &facts(None, Some("svm")), || Some(Ok(()))), Accelerator::Kvm, "boots with it"),
            (
                choose(None, &facts(None, Some("vmx")), || Some(Err(TrialError::TimedOut(TRIAL_TIMEOUT)))),
                Accelerator::Tcg,
                "does not boot within 20s",
            ),
        ];
        for (choice, accelerator, reason) in cases {
            assert_eq!(choice.accelerator, accelerator, "{choice:?}");
            assert!(choice.reason.contains(reason), "{choice:?}");
        }
    }
}
