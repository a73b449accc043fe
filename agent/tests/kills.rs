//! A test of the program in a network namespace, with a NATS server and a simulated control plane: whenever the agent
//! is killed while it creates and removes bridges, every device is identifiable as ours, and in the end there is
//! exactly what the decisions require.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::time::Duration;

use otherix_schemas::id::NetworkId;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, ip_json};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::Control;
use support::decisions::{created, deleted};
use support::program::Program;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// How often it is killed.
const KILLS: u64 = 12;
/// The number of networks that are created before each kill.
const NETWORKS: u64 = 40;

fn network(number: u64) -> NetworkId {
    NetworkId::new(Uuid::from_u128(number.into()))
}

/// Returns the names of all devices, and asserts that each is identifiable as ours: by its alias, or if it has none, by
/// its name and being down.
fn bridges(cluster: &str) -> Vec<String> {
    let links = ip_json(&["-d", "link", "show"]);
    let links = links.as_array().unwrap().iter().filter(|link| link.get("ifname").unwrap() != "lo");
    let name = |link: &serde_json::Value| {
        let name = link.get("ifname").unwrap().as_str().unwrap().to_owned();
        let alias = link.get("ifalias").map(|alias| alias.as_str().unwrap());
        let is_up = link.get("flags").unwrap().as_array().unwrap().contains(&"UP".into());
        let is_ours = alias.is_some_and(|alias| alias.starts_with(&format!("otherix:{cluster}:")));
        assert!(is_ours || (alias.is_none() && name.starts_with("ot.") && !is_up), "not identifiable as ours: {link}");
        name
    };
    let mut names: Vec<_> = links.map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn after_a_kill_at_any_time_every_device_is_identifiable_as_ours() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let cluster = control.cluster().to_string();
    let mut program = Program::new(server.url());
    let mut required = Vec::new();
    for kill in 0..KILLS {
        program.spawn();
        let before = bridges(&cluster);
        for number in kill * NETWORKS..(kill + 1) * NETWORKS {
            control.decide(created(network(number), &format!("br-{number}"), None)).await;
            required.push(number);
        }
        // Two of the oldest are deleted again.
        for number in required.drain(..required.len().min(2)) {
            control.decide(deleted(network(number))).await;
        }
        // Killed after a different number of changes each time.
        let changes = usize::try_from(kill * kill % 37).unwrap();
        wait_for(DEADLINE, "some changes", async || {
            let now = bridges(&cluster);
            if now.len() > before.len() + changes { Ok(()) } else { Err((before.len(), now.len())) }
        })
        .await;
        program.stop(Signal::KILL);
        bridges(&cluster);
    }
    program.spawn();
    let mut names: Vec<_> = required.iter().map(|number| format!("br-{number}")).collect();
    names.sort();
    wait_for(DEADLINE, "exactly what is required", async || {
        let now = bridges(&cluster);
        if now == names { Ok(()) } else { Err((names.len(), now.len())) }
    })
    .await;
}
