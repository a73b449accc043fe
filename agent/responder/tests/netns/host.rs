//! A guest in a network namespace of its own.

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use otherix_testkit::netns::sh;
use otherix_testkit::wait::wait_for_blocking;

/// A guest: a network namespace whose `eth0` is the peer of `tap`, which is a port of a bridge.
pub(crate) struct GuestHost(Child);

impl GuestHost {
    pub(crate) fn new() -> Self {
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let mut command = Command::new("unshare");
        let child = command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let path = format!("/proc/{}/ns/net", child.id());
        wait_for_blocking(Duration::from_secs(10), "a namespace", || {
            std::fs::read_link(&path).is_ok_and(|namespace| namespace != own)
        });
        sh(&format!(
            "ip link add br-a type bridge mcast_snooping 0\nip link set br-a up\n\
             ip link add tap type veth peer name eth0 address 52:54:00:01:02:03 netns {}\n\
             ip link set tap master br-a up",
            child.id()
        ));
        let host = Self(child);
        host.sh("ip link set lo up; ip link set eth0 up");
        host
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs a script. Returns its output, whether it succeeds or not.
    pub(crate) fn run(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string(), "sh", "-e", "-c", script]);
        command.output().unwrap()
    }

    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.run(script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks for a lease with these options of `udhcpc`, which runs `env` with what it has got. Returns that.
    pub(crate) fn lease(&self, options: &str) -> Option<BTreeMap<String, String>> {
        let folder = otherix_testkit::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n[ \"$1\" = deconfig ] || env >\"$OUTPUT\"\n").unwrap();
        let (script, output) = (script.display(), folder.path().join("env"));
        let ask = format!(
            "chmod +x {script}; OUTPUT={} busybox udhcpc -i eth0 -n -q -f -t 3 -T 1 -s {script} {options}",
            output.display()
        );
        self.run(&ask).status.success().then(|| {
            let env = std::fs::read_to_string(&output).unwrap();
            env.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        })
    }
}

impl Drop for GuestHost {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
