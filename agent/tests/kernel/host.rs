//! Another host: a network namespace that ends with the test.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use otherix_testkit::netns::sh;
use otherix_testkit::wait::wait_for_blocking;

const DEADLINE: Duration = Duration::from_secs(10);

/// A host whose `eth0` is the peer of a veth device in the test's namespace.
pub(crate) struct Host {
    /// A process in the namespace, which keeps it until its standard input is closed.
    holder: Child,
}

impl Host {
    /// Connects the host to a new device with this name in the calling thread's namespace.
    pub(crate) fn new(device: &str) -> Self {
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let mut command = Command::new("unshare");
        let holder = command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let path = format!("/proc/{}/ns/net", holder.id());
        wait_for_blocking(DEADLINE, "a namespace", || fs::read_link(&path).is_ok_and(|namespace| namespace != own));
        let host = Self { holder };
        sh(&format!("ip link add {device} type veth peer name eth0 netns {}\nip link set {device} up", host.pid()));
        host.sh("ip link set lo up; ip link set eth0 up");
        host
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Returns a command that runs on the host.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid().to_string(), program]);
        command
    }

    fn output(&self, script: &str) -> Output {
        self.command("sh").args(["-e", "-c", script]).output().unwrap()
    }

    /// Runs a script on the host, and returns its output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.output(script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether a ping of the address is answered within a second.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        self.output(&format!("ping -q -c 1 -W 1 {address}")).status.success()
    }

    /// Whether several pings of the address are not answered.
    pub(crate) fn cannot_reach(&self, address: &str) -> bool {
        !self.output(&format!("ping -q -c 3 -i 0.1 -W 0.3 {address}")).status.success()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // Other processes in the namespace end by themselves.
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}
