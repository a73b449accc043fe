//! Guests and their node. Each attack is also made without what prevents it, so that nothing else does.

mod frames;
mod ipv6;
mod locked;
mod node_from_taps;
mod node_services;
mod resolver;
mod withdrawn;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use otherix_agent::engine::Pass;
use otherix_testkit::netns::sh;

use crate::host::Host;

const ATTACK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/guests/attack.py");

/// A program that serves TCP and UDP until it is dropped.
struct Server(Child);

impl Server {
    /// Serves these ports on the host, or on the node.
    fn start(host: Option<&Host>, ports: &str) -> Self {
        Self::run(host, &format!("serve {ports}"))
    }

    /// Runs a command of the script that prints that it serves.
    fn run(host: Option<&Host>, arguments: &str) -> Self {
        let mut command = host.map_or_else(|| Command::new("python3"), |host| host.command("python3"));
        let command = command.arg(ATTACK).args(arguments.split(' ')).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "serving\n");
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whether the attack of a host succeeds.
#[track_caller]
fn attack(host: &Host, arguments: &str) -> bool {
    let output = host.sh(&format!("python3 {ATTACK} {arguments}"));
    match output.trim() {
        "reached" => true,
        "not reached" => false,
        other => unreachable!("{arguments}: {other}"),
    }
}

/// Whether an outcome warns of the address 10.66.0.1 on a bridge.
fn warns_of_address(pass: &Pass) -> bool {
    pass.outcomes.iter().flat_map(|outcome| &outcome.warnings).any(|warning| warning.contains("10.66.0.1/24"))
}

/// Deletes the tables that separate guests from their node, as a counter-check.
fn delete_tables() {
    sh("nft list tables | grep otherix | while read -r table; do nft delete $table; done");
    assert!(!sh("nft list tables").contains("otherix"));
}
