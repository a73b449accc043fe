//! What is pinned here, with the program itself, of a node that is removed from its cluster:
//! - it removes whatever is ours on it, known or not, touches nothing else, and makes nothing that is decided later;
//! - it says once that it was removed, once that it is refused and what to do, and reports nothing more;
//! - all that again after a restart, with its ledger alone; and with the removal of another node nothing of the kind.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::fs;
use std::time::Duration;

use otherix_schemas::event::Event;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{NodeEvent, NodeRemoved};
use otherix_schemas::outcome::Outcome;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, link, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::program::Program;
use support::{Control, created, network};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(30);

const GONE: &str = "this node was removed from the cluster";
const REFUSED: &str = "the cluster refuses this node permanently";

fn removal(node_id: NodeId) -> Event {
    Event::Node(NodeEvent::Removed(NodeRemoved { node_id, name: "node-1".parse().unwrap() }))
}

async fn ready(control: &Control, number: u16) {
    wait_for(DEADLINE, "the outcome", async || match control.outcome(network(number)) {
        Some((_, Outcome::Ready)) => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn is_gone(name: &str) {
    wait_for(DEADLINE, name, async || link(name).is_none()).await;
}

#[tokio::test]
async fn a_node_that_is_removed_clears_itself_and_says_once_why_it_is_refused() {
    enter_new();
    let mut server = NatsServer::start();
    let control = Control::start(&server.url()).await;
    let mut program = Program::start(server.url());
    sh("ip link add br-other type bridge");
    control.decide(created(network(1), "br-1", None)).await;
    ready(&control, 1).await;
    let node = *control.heard().joins.first().unwrap();

    // Of another node it is not said.
    control.decide(removal(NodeId::new(Uuid::from_u128(7)))).await;
    control.decide(created(network(2), "br-2", None)).await;
    ready(&control, 2).await;
    assert_eq!(program.said(GONE), 0);

    let reports = control.heard().reports.len();
    control.heard().removed = true;
    control.decide(removal(node)).await;
    is_gone("br-1").await;
    is_gone("br-2").await;
    wait_for(DEADLINE, "why it is refused", async || program.said(REFUSED) > 0).await;
    assert!(program.log().contains("empty its state folder"), "it says what can be done");
    // What is decided later is known, and not made.
    control.decide(created(network(3), "br-3", None)).await;
    let ledger = program.state().join("ledger.json");
    wait_for(DEADLINE, "the ledger", async || fs::read_to_string(&ledger).unwrap().contains("br-3")).await;
    assert!(link("br-3").is_none() && link("br-other").is_some());

    // It asks again when the connection is made anew, and has nothing new to say.
    let joins = control.heard().joins.len();
    server.kill9();
    server.restart();
    wait_for(DEADLINE, "another attempt", async || control.heard().joins.len() > joins).await;
    assert_eq!((program.said(GONE), program.said(REFUSED)), (1, 1));
    assert_eq!(program.said("a report was refused"), 0);
    assert_eq!(control.heard().reports.len(), reports);

    program.stop(Signal::KILL);
    let alias = format!("otherix:{}:{}", control.cluster(), network(99));
    sh(&format!("ip link add br-orphan type bridge\nip link set br-orphan alias {alias}"));
    program.again();
    is_gone("br-orphan").await;
    wait_for(DEADLINE, "why it is refused", async || program.said(REFUSED) == 2).await;
    assert!(program.runs());
    assert_eq!((program.said(GONE), link("br-3")), (2, None));
    assert!(link("br-other").is_some());
}
