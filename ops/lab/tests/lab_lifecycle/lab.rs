//! A lab of stub programs for one test, and helpers to inspect it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use otherix_testkit::lab_name::lab_name;
use otherix_testkit::{TempDir, tempdir};
use serde_json::Value;

/// Time-out of waits, far above their expected duration.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A stub of `otherixd` that supervises a nats-server.
const OTHERIXD: &str = r#"#!/bin/bash
[[ "$1 $2 $4 $6" == "run --state --listen --nats-server" ]] || exit 2
state=$3 address=${5%:*} port=${5##*:} server=$7
mkdir -p "$state/nats" "$state/credentials"
trap 'kill $child; wait $child; exit 0' TERM
trap 'kill -9 $child' EXIT
while true; do
    while [[ -e "$state/nats/hold" ]]; do read -rt 0.05 <> <(:); done
    "$server" -a "$address" -p "$port" & child=$!
    wait $child
done
"#;
/// A stub of the agent that joins if it reaches the control plane over the underlay, and has joined as soon as it does.
/// The token is the address of NATS.
const AGENT: &str = r#"#!/bin/bash
connect() { exec 3<>"/dev/tcp/${1%:*}/${1##*:}"; }
case "$1 $2 $4 $6" in
"join --state --name --token-file")
    mkdir -p "$3"
    (connect "$(<"$7")") || exit 7
    cp "$7" "$3/connection.json"
    exit ;;
"run --state --mesh-socket-dir --dns-upstream") ;;
*) exit 2 ;;
esac
until (connect "$(<"$3/connection.json")"); do read -rt 0.05 <> <(:); done
touch "$3/joined"
exec sleep infinity
"#;
/// A stub of the CLI that succeeds if NATS is reachable on the forwarded port.
const CLI: &str = r#"#!/bin/bash
case "$*" in
"network list -o json") ;;
"node join-token create --max-uses 10000 --ttl 365d --node-server nats://"*" --out "*)
    echo "${9#nats://}" > "${11}"
    exit ;;
"vm get web -o json")
    echo '{"node_name": "node-1",'
    echo '"nic": {"network_id": "the-network", "mac": "52:54:00:00:00:05", "tap": "ot0123456789ab"}}'
    exit ;;
"network get the-network -o json") echo '{"mtu": 1400, "gateway": "10.20.0.1"}'; exit ;;
"vm get no-nic -o json") echo '{"node_name": "node-1", "nic": null}'; exit ;;
"vm get far -o json")
    echo '{"node_name": "node-7",'
    echo '"nic": {"network_id": "the-network", "mac": "52:54:00:00:00:06", "tap": "ot0123456789ac"}}'
    exit ;;
"vm get "*) echo "error: there is no VM $3" >&2; exit 3 ;;
*) exit 2 ;;
esac
address=${OTHERIX_NATS_URL#nats://}
exec 3<>"/dev/tcp/${address%:*}/${address##*:}" && read -r greeting <&3 && [[ "$greeting" == INFO* ]]
"#;

/// A lab that is removed when it is dropped.
pub(crate) struct Lab {
    pub(crate) name: String,
    pub(crate) programs: TempDir,
}

impl Lab {
    pub(crate) fn new(test: &str) -> Self {
        let programs = tempdir().unwrap();
        for (name, script) in [("otherixd", OTHERIXD), ("otherix-agent", AGENT), ("otherix", CLI)] {
            let path = programs.path().join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { name: lab_name(test), programs }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otherix-lab"));
        command.args(["--lab", &self.name]).args(args).env("OTHERIX_BIN_DIR", self.programs.path());
        command.output().unwrap()
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "-o", "json"])).unwrap()
    }

    pub(crate) fn row(&self, name: &str) -> (String, Option<i64>) {
        let status = self.status();
        let rows = status["processes"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        (row["state"].as_str().unwrap().to_owned(), row["pid"].as_i64())
    }

    pub(crate) fn folder(&self) -> PathBuf {
        Path::new("/var/lib/otherix-lab").join(&self.name)
    }

    pub(crate) fn namespaces(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(&format!("otx-{}-", self.name))).collect();
        names.sort();
        names
    }

    /// The processes whose command line names the lab, or its programs.
    pub(crate) fn processes(&self) -> Vec<String> {
        let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
        let lines = pids.filter_map(|path| Some(String::from_utf8_lossy(&fs::read(path).ok()?).replace('\0', " ")));
        let programs = self.programs.path().to_str().unwrap().to_owned();
        lines.filter(|line| line.contains(&programs) || line.contains(&format!("otx-{}-", self.name))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = self.command(&["down"]);
        let remaining = (self.namespaces(), self.processes(), self.folder().exists());
        if !std::thread::panicking() {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(remaining, (Vec::new(), Vec::new(), false));
        }
    }
}

pub(crate) fn host_links() -> Vec<String> {
    let output = Command::new("ip").args(["-o", "link", "show"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect()
}
