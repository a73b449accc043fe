//! Another host: a network namespace that goes with the test.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use otherix_testkit::netns::sh;
use otherix_testkit::wait::wait_for_blocking;

const DEADLINE: Duration = Duration::from_secs(10);

/// A host whose `eth0` is the other end of a device in the test's namespace.
pub(crate) struct Host {
    /// Holds the namespace, until its standard input ends.
    holder: Child,
}

impl Host {
    /// Links it by a device of this name here.
    pub(crate) fn new(device: &str) -> Self {
        let here = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let mut command = Command::new("unshare");
        let holder = command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let there = format!("/proc/{}/ns/net", holder.id());
        wait_for_blocking(DEADLINE, "a namespace", || fs::read_link(&there).is_ok_and(|there| there != here));
        let host = Self { holder };
        sh(&format!("ip link add {device} type veth peer name eth0 netns {}\nip link set {device} up", host.pid()));
        host.sh("ip link set lo up; ip link set eth0 up");
        host
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command on it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid().to_string(), program]);
        command
    }

    fn output(&self, script: &str) -> Output {
        self.command("sh").args(["-e", "-c", script]).output().unwrap()
    }

    /// What a script prints on it.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.output(script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether an address answers.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        self.output(&format!("ping -q -c 1 -W 1 {address}")).status.success()
    }

    /// Whether an address does not answer, for as long as some that does would take many times.
    pub(crate) fn is_kept_from(&self, address: &str) -> bool {
        !self.output(&format!("ping -q -c 3 -i 0.1 -W 0.3 {address}")).status.success()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // Whatever runs in it goes by itself.
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}
