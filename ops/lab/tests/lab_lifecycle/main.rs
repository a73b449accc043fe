//! Properties of the lab: `up` is idempotent, kill / stop / start behave as documented, a partition is silent and
//! persistent, a reboot keeps only the agent's state, changes are serialised, one port of the host is forwarded, every
//! node reaches the host outside, a guest is connected through its VM's tap only, and `down` removes everything in any
//! state. Small scripts replace otherix's programs; the namespaces, the links, the forwarded port and the
//! nats-server are real.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

mod guests;
mod lab;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::Command;

use otherix_testkit::wait::wait_for_blocking;
use serde_json::{Value, json};

use crate::guests::TAP;
use crate::lab::{DEADLINE, Lab, host_links};

#[test]
fn lab_up_is_idempotent_and_down_removes_everything() {
    let links = host_links();
    let lab = Lab::new("life");
    lab.run(&["up", "--nodes", "1"]);
    let (control, first) = (lab.row("otherixd"), lab.row("node-1"));
    assert_eq!((control.0.as_str(), first.0.as_str()), ("running", "joined"));
    let url = lab.status()["url"].clone();

    lab.run(&["up", "--nodes", "2"]);
    assert_eq!((lab.row("otherixd"), lab.row("node-1"), lab.row("node-2").0), (control, first, "joined".into()));
    assert_eq!(lab.status()["url"], url);
    assert_eq!(lab.namespaces().len(), 4);
    assert_eq!(host_links(), links);

    // A node without its link and one without its agent are repaired.
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
fn lab_env_and_exec() {
    let lab = Lab::new("env");
    lab.run(&["up", "--nodes", "1"]);
    let credentials = lab.folder().join("otherixd/credentials/admin.creds");
    fs::write(&credentials, "geheim").unwrap();
    let exports = lab.run(&["env"]);
    assert!(!exports.contains("geheim"));
    let script = "eval \"$0\"; echo $OTHERIX_NATS_URL $OTHERIX_LAB $NATS_CREDS; command -v otherixd; \
                  otherix network list -o json";
    let output = Command::new("bash").args(["-ec", script, &exports]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let otherixd = lab.programs.path().join("otherixd");
    let url = lab.status()["url"].as_str().unwrap().to_owned();
    let expected = format!("{url} {} {}\n{}\n", lab.name, credentials.display(), otherixd.display());
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
    let restarted = || lab.row("nats").1.filter(|pid| Some(*pid) != nats);
    wait_for_blocking(DEADLINE, "nats to be restarted", restarted);

    lab.run(&["stop", "nats"]);
    assert_eq!(lab.row("nats"), ("held".into(), None));
    lab.run(&["stop", "nats"]);
    lab.run(&["kill", "otherixd"]);
    assert_eq!(lab.row("otherixd"), ("stopped".into(), None));
    assert!(lab.fails(&["start", "nats"]).contains("is not running"));
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
fn lab_partition_drops_both_directions() {
    let lab = Lab::new("cut");
    lab.run(&["up", "--nodes", "2"]);
    // Refused (exit code 1) if packets arrive; `timeout` ends it after a second (exit code 124) if they are dropped.
    let connect = |from: &str, to: &str| {
        let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{to}'");
        lab.command(&["exec", from, "--", "bash", "-c", &script]).status.code()
    };
    let (control, first, second) = ("10.99.0.1/9", "10.99.0.11/9", "10.99.0.12/9");
    assert_eq!(connect("node-2", control), Some(1));

    lab.run(&["partition", "node-2"]);
    lab.run(&["partition", "node-2"]);
    let link = |node: &str| {
        let status = lab.status();
        let rows = status["processes"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == node).unwrap()["link"].as_str().unwrap().to_owned()
    };
    assert_eq!((link("node-1"), link("node-2")), ("up".into(), "partitioned".into()));
    assert_eq!((connect("node-2", control), connect("underlay", second)), (Some(124), Some(124)));
    assert_eq!(connect("node-1", control), Some(1));
    let eth0 = lab.run(&["exec", "node-2", "--", "ip", "-j", "link", "show", "eth0"]);
    assert!(eth0.contains("LOWER_UP"), "the link stays up: {eth0}");

    // Two partitioned nodes do not reach each other; neither a link flap nor a restart nor `up` heals a partition.
    lab.run(&["partition", "node-1"]);
    lab.run(&["exec", "node-2", "--", "sh", "-c", "ip link set eth0 down && ip link set eth0 up"]);
    lab.run(&["stop", "node-2"]);
    lab.run(&["start", "node-2"]);
    lab.run(&["up", "--nodes", "2"]);
    assert_eq!((connect("node-2", first), lab.row("node-2").0), (Some(124), "running".into()));

    lab.run(&["heal", "node-1", "node-2"]);
    lab.run(&["heal", "node-1", "node-2"]);
    assert_eq!(link("node-2"), "up");
    // Each resolves the other's MAC address once a second.
    for (from, to) in [("node-2", first), ("underlay", second)] {
        wait_for_blocking(DEADLINE, "the connection to be refused", || connect(from, to) == Some(1));
    }
    wait_for_blocking(DEADLINE, "node-2 to join", || lab.row("node-2").0 == "joined");

    for not_a_node in ["otherixd", "nats", "underlay"] {
        assert!(lab.fails(&["partition", not_a_node]).contains("only nodes can be cut off or rebooted"));
    }
    assert!(lab.fails(&["partition", "node-1", "node-3"]).contains("has no node-3; it has 2"));
    assert_eq!(link("node-1"), "up", "all are validated before the first is changed");
    lab.run(&["partition", "node-1"]);
    lab.run(&["exec", "underlay", "--", "ip", "link", "delete", "node-1"]);
    assert_eq!(link("node-1"), "missing");
    assert!(lab.fails(&["heal", "node-1"]).contains("node-1 has no link to the underlay"));
}

#[test]
fn lab_reboot_keeps_state_and_link_only() {
    let lab = Lab::new("boot");
    lab.run(&["up", "--nodes", "2"]);
    lab.sh("node-1", TAP);
    lab.run(&["guest", "web", "--ip", "10.20.0.5/24", "--gateway", "10.20.0.1"]);
    let sockets = lab.folder().join("node-1/wireguard");
    fs::create_dir(&sockets).unwrap();
    fs::write(lab.folder().join("node-1/ledger.json"), "").unwrap();
    lab.sh(
        "node-1",
        "ip link add br0 type bridge; sysctl -qw net.ipv4.ip_forward=1; setsid sleep infinity >/dev/null 2>&1 &",
    );
    let (before, other) = (lab.row("node-1"), lab.row("node-2"));
    for reboot in ["of a running node", "of a node without an agent and a namespace"] {
        lab.run(&["reboot", "node-1"]);
        let now = lab.row("node-1");
        assert_eq!(now.0, "joined", "{reboot}");
        assert_ne!(now.1, before.1, "{reboot}");
        let names =
            lab.json("node-1", "ip -j link").as_array().unwrap().iter().map(|link| link["ifname"].clone()).collect();
        assert_eq!(Value::Array(names), json!(["lo", "eth0"]), "{reboot}");
        assert_eq!(lab.sh("node-1", "cat /proc/sys/net/ipv4/ip_forward"), "0\n");
        let pids = Command::new("ip").args(["netns", "pids", &format!("otx-{}-node-1", lab.name)]).output().unwrap();
        assert_eq!(String::from_utf8(pids.stdout).unwrap(), format!("{}\n", now.1.unwrap()), "{reboot}");
        assert!(lab.pings("node-1", "203.0.113.1") && lab.pings("node-2", "10.99.0.11"), "{reboot}");
        lab.run(&["kill", "node-1"]);
        assert!(
            Command::new("ip")
                .args(["netns", "delete", &format!("otx-{}-node-1", lab.name)])
                .status()
                .unwrap()
                .success()
        );
    }
    assert!(!sockets.exists() && lab.folder().join("node-1/ledger.json").exists());
    assert_eq!(lab.row("node-2"), other);
    assert_eq!(lab.row("vm:web").0, "stopped");
    assert!(lab.sh("vm:web", "ip -j address show eth0").contains("10.20.0.5"), "the guest is kept, unplugged");

    lab.run(&["up", "--nodes", "2"]);
    lab.run(&["partition", "node-1"]);
    lab.run(&["reboot", "node-1"]);
    assert_eq!(lab.row("node-1").0, "running");
    assert!(!lab.pings("node-2", "10.99.0.11"), "it is still cut off");
    lab.run(&["heal", "node-1"]);
    wait_for_blocking(DEADLINE, "node-1 to join", || lab.row("node-1").0 == "joined");
    for (wrong, message) in
        [("otherixd", "only nodes can be cut off or rebooted"), ("node-3", "has no node-3; it has 2")]
    {
        assert!(lab.fails(&["reboot", wrong]).contains(message));
    }
}

#[test]
fn lab_changes_are_serialised() {
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
    let progress: String = all(&[&["down"], &["up", "--nodes", "1"], &["down"]])
        .iter()
        .map(|output| {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stderr).into_owned()
        })
        .collect();
    assert!(progress.contains(&format!("another command is changing lab `{}`", lab.name)), "{progress}");
    lab.run(&["down"]);
    assert_eq!((lab.namespaces(), lab.processes(), lab.folder().exists()), (Vec::new(), Vec::new(), false));
    assert!(lab.fails(&["start", "otherixd"]).contains("there is no lab"));
    assert!(!lab.folder().exists(), "a command on a missing lab creates nothing");
}

#[test]
fn lab_up_reports_failure_and_down_cleans_up() {
    let lab = Lab::new("half");
    fs::write(lab.programs.path().join("otherix-agent"), "#!/bin/sh\necho cannot start\nexit 1\n").unwrap();
    let errors = lab.fails(&["up", "--nodes", "2"]);
    assert!(errors.contains("node-1 has ended") && errors.contains("  cannot start"), "{errors}");
    // An unrecorded process, and a lab whose records are lost.
    let underlay = format!("otx-{}-underlay", lab.name);
    let mut stray = Command::new("ip").args(["netns", "exec", &underlay, "sleep", "infinity"]).spawn().unwrap();
    fs::remove_dir_all(lab.folder()).unwrap();
    assert_eq!(lab.namespaces().len(), 4);

    lab.run(&["down"]);

    assert!(!stray.wait().unwrap().success());
    assert_eq!((lab.namespaces(), lab.processes(), lab.folder().exists()), (Vec::new(), Vec::new(), false));
}

#[test]
fn lab_validates_names_and_programs() {
    let lab = Lab::new("check");
    fs::remove_file(lab.programs.path().join("otherix")).unwrap();
    let errors = lab.fails(&["up"]);
    assert!(errors.contains("there is no `otherix` in") && errors.contains("hint: "), "{errors}");
    assert_eq!(lab.namespaces(), Vec::<String>::new());
    assert!(!lab.folder().exists());
    assert!(lab.fails(&["kill", "node1"]).contains("must be `node-N`, `otherixd` or `nats`"));
}
