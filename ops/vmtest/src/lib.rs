//! Runs a test inside a small QEMU guest with Debian's kernel, for features that the host's kernel may lack: VLANs,
//! `WireGuard`, `br_netfilter`. Test support only.
//!
//! ```no_run
//! // an ordinary `#[test]` in `tests/`:
//! fn vlans_are_isolated() {
//!     otherix_vmtest::in_guest(|| { /* runs as root, inside the guest */ });
//! }
//! ```
//!
//! On the host, [`in_guest`] boots a guest that runs the same test binary with `--exact <this test>`; in the guest it
//! runs the body. The guest has `dash`, busybox, `ip`, `bridge`, `nft`, `wg` and `ping`, `lo` is up and `/run/netns`
//! exists. `br_netfilter` can be loaded. Put such tests into a module `in_guest`: nextest then runs one guest at a
//! time. They are plain `#[test]`s, which create a runtime in the body if they need one.
//!
//! Nothing is left on the host: the initramfs is an unlinked file, and the kernel kills QEMU with the test.
#![expect(clippy::panic, reason = "test support: a failed assumption is a failed test")]

mod cpio;
mod payload;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const IN_GUEST: &str = "OTHERIX_VMTEST_IN_GUEST";
/// QEMU's exit status for the guest's code 0: its debug-exit device returns `2 * code + 1`.
const PASSED: i32 = 1;
/// Exit status of `setpriv` if QEMU is not installed.
const NOT_FOUND: i32 = 127;

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestExit {
    /// The test passed.
    Passed,
    /// The test failed with this exit code of the test binary (62 stands for 62 and above).
    Failed(i32),
    /// The guest's kernel panicked, or the guest stopped without a result.
    Crashed,
    /// The guest was still running at the deadline, and was killed.
    TimedOut,
}

/// The result of a guest's run.
#[derive(Debug, Clone)]
pub struct GuestResult {
    pub ending: GuestExit,
    /// The guest's console output.
    pub console: String,
}

/// Builder of a guest.
#[derive(Debug, Clone)]
pub struct TestGuest {
    programs: Vec<PathBuf>,
    deadline: Duration,
}

impl Default for TestGuest {
    fn default() -> Self {
        Self { programs: Vec::new(), deadline: Duration::from_secs(120) }
    }
}

impl TestGuest {
    /// Copies a program of the host into the guest, with its shared libraries. It keeps its path, and is on `PATH` by
    /// its file name.
    #[must_use]
    pub fn with_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.programs.push(path.into());
        self
    }

    /// Sets the time after which the guest is killed; 120 s by default.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs `body` in the guest, as the test that calls this.
    ///
    /// # Panics
    /// If the test does not pass there, with the guest's console.
    pub fn run(self, body: impl FnOnce()) {
        if std::env::var_os(IN_GUEST).is_some() {
            return body();
        }
        let test = test_name();
        let script = format!("{IN_GUEST}=1 RUST_BACKTRACE=0 exec /test/bin/this-test --exact '{test}' --nocapture\n");
        match self.run_script(&script) {
            Ok(GuestResult { ending: GuestExit::Passed, console }) if console.contains("1 passed") => {}
            Ok(GuestResult { ending, console }) => panic!("`{test}` in the guest: {ending:?}; its console:\n{console}"),
            Err(error) => panic!("no guest for `{test}`: {error}"),
        }
    }

    /// Runs a shell script in the guest; its exit code is the result.
    ///
    /// # Errors
    /// If the guest cannot be started, for example because `ops/setup` has not run.
    pub fn run_script(&self, script: &str) -> io::Result<GuestResult> {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/vmtest");
        let kernel = images.join("vmlinux");
        let base = images.join("base.cpio");
        if !kernel.exists() || !base.exists() {
            return Err(io::Error::other("the guest's kernel is missing: run `ops/setup`"));
        }
        let initrd = payload::initrd(&base, script, &self.programs)?;
        let mut qemu = qemu(&kernel, initrd)
            .spawn()
            .map_err(|error| io::Error::other(format!("cannot start QEMU: {error}: run `ops/setup`")))?;
        let mut output = qemu.stdout.take().ok_or_else(|| io::Error::other("QEMU has no output"))?;
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut console = Vec::new();
            let result = output.read_to_end(&mut console);
            // Fails after the deadline, when the receiver was dropped; `join` returns the console.
            let _ = sender.send(());
            result.map(|_| String::from_utf8_lossy(&console).into_owned())
        });
        let in_time = receiver.recv_timeout(self.deadline).is_ok();
        if !in_time {
            qemu.kill()?;
        }
        let status = qemu.wait()?;
        let console = reader.join().map_err(|_| io::Error::other("the console's reader panicked"))??;
        let ending = if in_time { ending(status.code(), &console) } else { Some(GuestExit::TimedOut) };
        let ending =
            ending.ok_or_else(|| io::Error::other(format!("QEMU did not run (`ops/setup` installs it): {console}")))?;
        Ok(GuestResult { ending, console })
    }
}

/// QEMU with the guest's console as its output; the kernel kills it with the thread that starts it.
fn qemu(kernel: &Path, initrd: File) -> Command {
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max"])
        .args(["-smp", "1", "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-chardev", "file,id=console,path=/proc/self/fd/1", "-serial", "chardev:console"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-initrd", "/proc/self/fd/0"])
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off", "-kernel"])
        .arg(kernel)
        .stdin(initrd)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    qemu
}

/// Interprets QEMU's exit status; `None` if QEMU did not run a guest.
fn ending(code: Option<i32>, console: &str) -> Option<GuestExit> {
    match code {
        Some(PASSED) if console.contains("EXIT:0") => Some(GuestExit::Passed),
        Some(PASSED | NOT_FOUND) => None,
        Some(code) if code & 1 == 1 => Some(GuestExit::Failed(code >> 1)),
        Some(_) | None => Some(GuestExit::Crashed),
    }
}

/// Runs `body` in a guest with this test binary only.
///
/// # Panics
/// If the test does not pass there, with the guest's console.
pub fn in_guest(body: impl FnOnce()) {
    TestGuest::default().run(body);
}

/// The name of the running test: that of its thread, unless libtest runs tests on the main thread.
fn test_name() -> String {
    match std::thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        Some(_) | None => std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| {
            panic!("the name of this test is unknown: run it with cargo nextest, or with more than one test thread")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_only_with_exit_marker() {
        let cases = [
            (Some(1), "EXIT:0", Some(GuestExit::Passed)),
            (Some(1), "qemu: cannot open the kernel", None),
            (Some(127), "", None),
            (Some(3), "EXIT:1", Some(GuestExit::Failed(1))),
            (Some(125), "EXIT:255", Some(GuestExit::Failed(62))),
            (Some(0), "EXIT:0, and then a kernel panic", Some(GuestExit::Crashed)),
            (None, "", Some(GuestExit::Crashed)),
        ];
        for (code, console, expected) in cases {
            assert_eq!(ending(code, console), expected, "{code:?} {console}");
        }
    }
}
