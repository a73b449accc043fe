//! Promises of the lab: `up` completes what is missing, kill / stop / start mean what they say, a partition is silent and
//! lasts, commands that change a lab wait for each other, one port on the host leads in, `down` leaves nothing, whatever
//! happened before. otherix's own programs are stood in for by small scripts; the namespaces, the links, the forwarded port and
//! the nats-server are real.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use otherix_testkit::wait::wait_for_blocking;
use otherix_testkit::{TempDir, tempdir};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(30);

/// Supervises a nats-server as `otherixd` does, as far as the lab can see.
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
/// Says it has joined when it can reach the control plane over the underlay.
const AGENT: &str = r#"#!/bin/bash
[[ "$1 $2 $4 $6 $8" == "run --nats --credentials --state --name" ]] || exit 2
address=${3#nats://}
mkdir -p "$7"
until exec 3<>"/dev/tcp/${address%:*}/${address##*:}"; do read -rt 0.05 <> <(:); done
touch "$7/joined"
exec sleep infinity
"#;
/// Answers when NATS can be reached at the forwarded port.
const CLI: &str = r#"#!/bin/bash
[[ "$*" == "network list -o json" ]] || exit 2
address=${OTHERIX_NATS_URL#nats://}
exec 3<>"/dev/tcp/${address%:*}/${address##*:}" && read -r greeting <&3 && [[ "$greeting" == INFO* ]]
"#;

/// A lab that is taken down whatever the test does.
struct Lab {
    name: String,
    programs: TempDir,
}

impl Lab {
    fn new(test: &str) -> Self {
        let programs = tempdir().unwrap();
        for (name, script) in [("otherixd", OTHERIXD), ("otherix-agent", AGENT), ("otherix", CLI)] {
            let path = programs.path().join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { name: format!("{test}-{}", std::process::id()), programs }
    }

    fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otherix-lab"));
        command.args(["--lab", &self.name]).args(args).env("OTHERIX_BIN_DIR", self.programs.path());
        command.output().unwrap()
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "-o", "json"])).unwrap()
    }

    fn row(&self, name: &str) -> (String, Option<i64>) {
        let status = self.status();
        let rows = status["processes"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        (row["state"].as_str().unwrap().to_owned(), row["pid"].as_i64())
    }

    fn folder(&self) -> PathBuf {
        Path::new("/var/lib/otherix-lab").join(&self.name)
    }

    fn namespaces(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(&format!("otx-{}-", self.name))).collect();
        names.sort();
        names
    }

    /// The processes whose command line names the lab, or its programs.
    fn processes(&self) -> Vec<String> {
        let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
        let lines = pids.filter_map(|path| Some(String::from_utf8_lossy(&fs::read(path).ok()?).replace('\0', " ")));
        let programs = self.programs.path().to_str().unwrap().to_owned();
        lines.filter(|line| line.contains(&programs) || line.contains(&format!("otx-{}-", self.name))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = self.command(&["down"]);
        let left = (self.namespaces(), self.processes(), self.folder().exists());
        if !std::thread::panicking() {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(left, (Vec::new(), Vec::new(), false));
        }
    }
}

fn host_links() -> Vec<String> {
    let output = Command::new("ip").args(["-o", "link", "show"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect()
}

#[test]
fn lab_up_completes_what_is_missing_and_down_leaves_nothing() {
    let links = host_links();
    let lab = Lab::new("life");
    lab.run(&["up", "--nodes", "1"]);
    let (control, first) = (lab.row("otherixd"), lab.row("node-1"));
    assert_eq!((control.0.as_str(), first.0.as_str()), ("running", "joined"));
    let url = lab.status()["url"].clone();

    lab.run(&["up", "--nodes", "2"]);
    assert_eq!((lab.row("otherixd"), lab.row("node-1"), lab.row("node-2").0), (control, first, "joined".into()));
    assert_eq!(lab.status()["url"], url);
    assert_eq!(lab.namespaces().len(), 3);
    assert_eq!(host_links(), links);

    // A node that lost its link, and one whose agent is gone, are made whole.
    lab.run(&["exec", "underlay", "--", "ip", "link", "delete", "node-2"]);
    lab.run(&["kill", "node-1"]);
    lab.run(&["up", "--nodes", "1"]);
    assert_eq!(lab.row("node-1").0, "joined");
    let eth0 = lab.run(&["exec", "node-2", "--", "ip", "-j", "address", "show", "eth0"]);
    let eth0: Value = serde_json::from_str(&eth0).unwrap();
    assert_eq!(eth0[0]["addr_info"][0]["local"], "10.99.0.12");
    assert_eq!(eth0[0]["operstate"], "UP");

    lab.run(&["down"]);
    assert_eq!((lab.namespaces(), lab.processes(), lab.folder().exists()), (Vec::new(), Vec::new(), false));
    lab.run(&["down"]);
    assert!(lab.fails(&["status"]).contains("there is no lab"));
}

#[test]
fn lab_env_leads_to_nats_and_exec_gives_the_exit_code() {
    let lab = Lab::new("env");
    lab.run(&["up", "--nodes", "1"]);
    let exports = lab.run(&["env"]);
    let script =
        format!("{exports}echo $OTHERIX_NATS_URL $OTHERIX_LAB; command -v otherixd; otherix network list -o json");
    let output = Command::new("bash").args(["-ec", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let otherixd = lab.programs.path().join("otherixd");
    let url = lab.status()["url"].as_str().unwrap().to_owned();
    let expected = format!("{url} {}\n{}\n", lab.name, otherixd.display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);

    let mut greeting = String::new();
    let address = url.strip_prefix("nats://").unwrap().to_owned();
    BufReader::new(TcpStream::connect(&address).unwrap()).read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("INFO "), "{greeting}");
    lab.run(&["stop", "nats"]);
    let mut nothing = String::new();
    BufReader::new(TcpStream::connect(&address).unwrap()).read_line(&mut nothing).unwrap();
    assert_eq!(nothing, "");

    assert_eq!(lab.command(&["exec", "node-1", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert!(lab.fails(&["exec", "node-9", "--", "true"]).contains("there is no namespace"));
}

#[test]
fn lab_kill_stop_and_start() {
    let lab = Lab::new("kss");
    lab.run(&["up", "--nodes", "1"]);

    let (_, nats) = lab.row("nats");
    lab.run(&["kill", "nats"]);
    let back = || lab.row("nats").1.filter(|pid| Some(*pid) != nats);
    wait_for_blocking(DEADLINE, "nats to come back", back);

    lab.run(&["stop", "nats"]);
    assert_eq!(lab.row("nats"), ("held".into(), None));
    lab.run(&["stop", "nats"]);
    lab.run(&["kill", "otherixd"]);
    assert_eq!(lab.row("otherixd"), ("stopped".into(), None));
    assert!(lab.fails(&["start", "nats"]).contains("otherixd does not run"));
    lab.run(&["start", "otherixd"]);
    lab.run(&["start", "otherixd"]);
    assert_eq!(lab.row("nats").0, "running");

    lab.run(&["stop", "node-1"]);
    assert_eq!(lab.row("node-1"), ("stopped".into(), None));
    lab.run(&["start", "node-1"]);
    assert_eq!(lab.row("node-1").0, "joined");
    lab.run(&["stop", "otherixd"]);
    lab.run(&["kill", "node-1"]);
    lab.run(&["start", "node-1"]);
    assert_eq!(lab.row("node-1").0, "running");
    lab.run(&["start", "otherixd"]);
    wait_for_blocking(DEADLINE, "node-1 to join", || lab.row("node-1").0 == "joined");
    assert!(lab.fails(&["kill", "node-2"]).contains("has no node-2; it has 1"));
}

#[test]
fn lab_partition_drops_both_ways_until_it_is_healed() {
    let lab = Lab::new("cut");
    lab.run(&["up", "--nodes", "2"]);
    // Refused at once where there is a way; nothing within the second of `timeout` where there is none (exit code 124).
    let knock = |from: &str, to: &str| {
        let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{to}'");
        lab.command(&["exec", from, "--", "bash", "-c", &script]).status.code()
    };
    let (control, first, second) = ("10.99.0.1/9", "10.99.0.11/9", "10.99.0.12/9");
    assert_eq!(knock("node-2", control), Some(1));

    lab.run(&["partition", "node-2"]);
    lab.run(&["partition", "node-2"]);
    let link = |node: &str| {
        let status = lab.status();
        let rows = status["processes"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == node).unwrap()["link"].as_str().unwrap().to_owned()
    };
    assert_eq!((link("node-1"), link("node-2")), ("up".into(), "partitioned".into()));
    assert_eq!((knock("node-2", control), knock("underlay", second)), (Some(124), Some(124)));
    assert_eq!(knock("node-1", control), Some(1));
    let eth0 = lab.run(&["exec", "node-2", "--", "ip", "-j", "link", "show", "eth0"]);
    assert!(eth0.contains("LOWER_UP"), "nobody is told: {eth0}");

    // Two that are cut off do not hear each other; a link that comes and goes, a restart and `up` heal nothing.
    lab.run(&["partition", "node-1"]);
    lab.run(&["exec", "node-2", "--", "sh", "-c", "ip link set eth0 down && ip link set eth0 up"]);
    lab.run(&["stop", "node-2"]);
    lab.run(&["start", "node-2"]);
    lab.run(&["up", "--nodes", "2"]);
    assert_eq!((knock("node-2", first), lab.row("node-2").0), (Some(124), "running".into()));

    lab.run(&["heal", "node-1", "node-2"]);
    lab.run(&["heal", "node-1", "node-2"]);
    assert_eq!(link("node-2"), "up");
    // Each asks for the other's hardware address once a second.
    for (from, to) in [("node-2", first), ("underlay", second)] {
        wait_for_blocking(DEADLINE, "an answer", || knock(from, to) == Some(1));
    }
    wait_for_blocking(DEADLINE, "node-2 to join", || lab.row("node-2").0 == "joined");

    for not_a_node in ["otherixd", "nats", "underlay"] {
        assert!(lab.fails(&["partition", not_a_node]).contains("only nodes can be cut off"));
    }
    assert!(lab.fails(&["partition", "node-1", "node-3"]).contains("has no node-3; it has 2"));
    assert_eq!(link("node-1"), "up", "all are checked before the first is touched");
    lab.run(&["partition", "node-1"]);
    lab.run(&["exec", "underlay", "--", "ip", "link", "delete", "node-1"]);
    assert_eq!(link("node-1"), "missing");
    assert!(lab.fails(&["heal", "node-1"]).contains("node-1 has no link to the underlay"));
}

#[test]
fn lab_commands_that_change_it_wait_for_each_other() {
    let lab = Lab::new("lock");
    let all = |commands: &[&[&str]]| {
        std::thread::scope(|scope| {
            let running: Vec<_> = commands.iter().map(|args| scope.spawn(|| lab.command(args))).collect();
            running.into_iter().map(|command| command.join().unwrap()).collect::<Vec<_>>()
        })
    };
    for output in all(&[&["up", "--nodes", "2"], &["up", "--nodes", "1"], &["up", "--nodes", "2"]]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(lab.row("node-2").0, "joined");
    let agents = Command::new("ip").args(["netns", "pids", &format!("otx-{}-node-2", lab.name)]).output().unwrap();
    assert_eq!(String::from_utf8(agents.stdout).unwrap().lines().count(), 1, "started once");
    let said: String = all(&[&["down"], &["up", "--nodes", "1"], &["down"]])
        .iter()
        .map(|output| {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stderr).into_owned()
        })
        .collect();
    assert!(said.contains(&format!("another command is changing lab `{}`", lab.name)), "{said}");
    lab.run(&["down"]);
    assert_eq!((lab.namespaces(), lab.processes(), lab.folder().exists()), (Vec::new(), Vec::new(), false));
    assert!(lab.fails(&["start", "otherixd"]).contains("there is no lab"));
    assert!(!lab.folder().exists(), "asking for what is not there makes nothing");
}

#[test]
fn lab_up_that_fails_says_why_and_down_clears_what_it_made() {
    let lab = Lab::new("half");
    fs::write(lab.programs.path().join("otherix-agent"), "#!/bin/sh\necho no way\nexit 1\n").unwrap();
    let said = lab.fails(&["up", "--nodes", "2"]);
    assert!(said.contains("node-1 has ended") && said.contains("  no way"), "{said}");
    // A process that nobody wrote down, and a lab that has forgotten all of its own.
    let underlay = format!("otx-{}-underlay", lab.name);
    let mut stray = Command::new("ip").args(["netns", "exec", &underlay, "sleep", "infinity"]).spawn().unwrap();
    fs::remove_dir_all(lab.folder()).unwrap();
    assert_eq!(lab.namespaces().len(), 3);

    lab.run(&["down"]);

    assert!(!stray.wait().unwrap().success());
    assert_eq!((lab.namespaces(), lab.processes(), lab.folder().exists()), (Vec::new(), Vec::new(), false));
}

#[test]
fn lab_names_and_programs_are_checked_first() {
    let lab = Lab::new("check");
    fs::remove_file(lab.programs.path().join("otherix")).unwrap();
    let said = lab.fails(&["up"]);
    assert!(said.contains("there is no `otherix` in") && said.contains("hint: "), "{said}");
    assert_eq!(lab.namespaces(), Vec::<String>::new());
    assert!(!lab.folder().exists());
    assert!(lab.fails(&["kill", "node1"]).contains("must be `node-N`, `otherixd` or `nats`"));
}
