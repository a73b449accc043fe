//! What is pinned here, with the program itself in a network namespace, a real NATS server, and a control plane that
//! listens: however often and whenever the agent is killed while it makes and removes bridges, no device is ever there
//! that is not known for ours, and in the end there is exactly what the decisions ask for.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::time::Duration;

use otherix_schemas::id::NetworkId;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, ip_json};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::program::Program;
use support::{Control, created, deleted};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// How often it is killed, and how many networks come each time.
const KILLS: u64 = 12;
const EACH: u64 = 40;

fn network(number: u64) -> NetworkId {
    // The last digits name a device in the making.
    NetworkId::new(Uuid::from_u128(number.into()))
}

/// The bridges there are, each known for ours by its alias, or by its name while it is down and has none.
fn bridges(cluster: &str) -> Vec<String> {
    let links = ip_json(&["-d", "link", "show"]);
    let links = links.as_array().unwrap().iter().filter(|link| link.get("ifname").unwrap() != "lo");
    let name = |link: &serde_json::Value| {
        let name = link.get("ifname").unwrap().as_str().unwrap().to_owned();
        let alias = link.get("ifalias").map(|alias| alias.as_str().unwrap());
        let is_up = link.get("flags").unwrap().as_array().unwrap().contains(&"UP".into());
        let is_ours = alias.is_some_and(|alias| alias.starts_with(&format!("otherix:{cluster}:")));
        assert!(is_ours || (alias.is_none() && name.starts_with("ot.") && !is_up), "nobody's device: {link}");
        name
    };
    let mut names: Vec<_> = links.map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn killed_at_any_moment_it_leaves_no_device_that_is_nobodys() {
    enter_new();
    let server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let cluster = control.cluster().to_string();
    let mut program = Program::new(server.url());
    let mut wanted = Vec::new();
    for kill in 0..KILLS {
        program.again();
        let before = bridges(&cluster);
        for number in kill * EACH..(kill + 1) * EACH {
            control.decide(created(network(number), &format!("br-{number}"), None)).await;
            wanted.push(number);
        }
        // Two of the last ones go again, the others stay.
        for number in wanted.drain(..wanted.len().min(2)) {
            control.decide(deleted(network(number))).await;
        }
        // Killed somewhere in its work: at the first change that is seen, or so many later.
        let later = usize::try_from(kill * kill % 37).unwrap();
        wait_for(DEADLINE, "work that is under way", async || {
            let now = bridges(&cluster);
            if now.len() > before.len() + later { Ok(()) } else { Err((before.len(), now.len())) }
        })
        .await;
        program.stop(Signal::KILL);
        bridges(&cluster);
    }
    program.again();
    let mut names: Vec<_> = wanted.iter().map(|number| format!("br-{number}")).collect();
    names.sort();
    wait_for(DEADLINE, "all of it, and nothing else", async || {
        let now = bridges(&cluster);
        if now == names { Ok(()) } else { Err((names.len(), now.len())) }
    })
    .await;
}
