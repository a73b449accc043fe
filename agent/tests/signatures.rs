//! Tests of the program with somebody between it and the control plane who can send, alter, withhold and reorder
//! everything, and has every right on NATS, but not the decision key: nothing of it is carried out, what runs stays,
//! and the node says so; once the decisions of the control plane arrive, they are carried out.
//!
//! Also: the control plane itself contradicts what it has signed before, has another key, and rotates its key.
#![expect(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use otherix_schemas::decision_chain::DecisionSigner;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::subject;
use otherix_testkit::nats::NatsServer;
use otherix_testkit::netns::{enter_new, ip_json, sh};
use otherix_testkit::wait::wait_for;
use rustix::process::Signal;
use support::Control;
use support::decisions::{created, deleted, network};
use support::program::Program;

const DEADLINE: Duration = Duration::from_secs(30);

fn bridges() -> BTreeSet<String> {
    let links = ip_json(&["link", "show", "type", "bridge"]);
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

async fn expect_ready(control: &Control, number: u16) {
    wait_for(DEADLINE, "the outcome", async || match control.outcome(network(number)) {
        Some((_, Outcome::Ready)) => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn expect_log(program: &Program, text: &str) {
    wait_for(DEADLINE, text, async || program.log_count(text) > 0).await;
}

/// Starts a node with networks 1 and 2.
async fn start(server: &NatsServer) -> (Control, Program) {
    let control = Control::start(&server.url()).await;
    let program = Program::start(server.url());
    control.decide_all((1..=2).map(|number| created(network(number), &format!("br-{number}"), None)).collect()).await;
    expect_ready(&control, 2).await;
    (control, program)
}

#[tokio::test]
async fn a_forged_live_decision_is_not_carried_out() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = start(&server).await;
    // The next decision in every respect, and one that is far ahead.
    for position in [3, 9_000_000] {
        let mut forged = control.record(deleted(network(1)));
        forged.header.position = otherix_schemas::position::Position::new(position);
        let subject = subject::live(&subject::event(&forged.event));
        control.client.publish(subject, forged.encode().unwrap().into()).await.unwrap();
        control.decide(created(network(u16::try_from(position % 100).unwrap() + 10), "br-x", None)).await;
        wait_for(DEADLINE, "the true decision", async || bridges().contains("br-x")).await;
        expect_log(&program, "reading decisions again").await;
        assert!(bridges().contains("br-1"), "{:?}", bridges());
        control.decide(deleted(network(u16::try_from(position % 100).unwrap() + 10))).await;
        wait_for(DEADLINE, "its removal", async || !bridges().contains("br-x")).await;
    }
    assert!(!program.log().contains("contradicts"), "what was forged is not blamed on the control plane");
}

#[tokio::test]
async fn altered_reordered_and_withheld_decisions_are_not_carried_out() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = start(&server).await;
    control.republish(false).await;
    let before = control.state().published.clone();
    control.state().served = Some(before.clone());
    control.decide(created(network(3), "br-3", None)).await;
    control.decide(deleted(network(1))).await;
    let truth = control.state().published.clone();
    let [third, fourth] = &truth[2..] else { panic!("{truth:?}") };
    let altered = {
        let text = String::from_utf8(third.1.clone()).unwrap();
        assert!(text.contains("br-3"));
        (third.0.clone(), text.replace("br-3", "br-evil").into_bytes())
    };
    let renumbered = |event: &(String, Vec<u8>), from: [u64; 2], to: [u64; 2]| {
        let mut text = String::from_utf8(event.1.clone()).unwrap();
        let changes = from.into_iter().zip(to).zip(["(first)", "(second)"]);
        for ((from, _), mark) in changes.clone() {
            let number = format!("{from:020}");
            assert!(text.contains(&number), "{text}");
            text = text.replacen(&number, mark, 1);
        }
        for ((_, to), mark) in changes {
            text = text.replace(mark, &format!("{to:020}"));
        }
        (event.0.clone(), text.into_bytes())
    };
    let reordered = [renumbered(fourth, [4, 3], [3, 2]), renumbered(third, [3, 2], [4, 3])];
    for (what, served) in [
        ("altered", vec![altered, fourth.clone()]),
        ("reordered", reordered.to_vec()),
        ("the first is withheld", vec![renumbered(fourth, [4, 3], [3, 2])]),
        ("all are withheld", Vec::new()),
    ] {
        let (heartbeats, reads) = {
            let mut state = control.state();
            state.served = Some([before.clone(), served].concat());
            (state.heartbeats.len(), state.reads)
        };
        // The answers tell the node of the decisions, and it asks for them, twice if they are not what was signed.
        wait_for(DEADLINE, "heartbeats and reads", async || {
            let state = control.state();
            state.heartbeats.len() >= heartbeats + 2 && state.reads >= reads + 2
        })
        .await;
        wait_for(DEADLINE, "the contradiction", async || program.state().join("contradiction.json").exists()).await;
        assert_eq!(bridges(), ["br-1", "br-2"].map(str::to_owned).into(), "{what}");
    }
    expect_log(&program, "are not those that the control plane has signed").await;
    control.state().served = None;
    expect_ready(&control, 3).await;
    wait_for(DEADLINE, "the removal", async || bridges() == ["br-2", "br-3"].map(str::to_owned).into()).await;
    expect_log(&program, "continues the history that this node knows").await;
    assert!(!program.state().join("contradiction.json").exists());
}

#[tokio::test]
async fn a_control_plane_that_rewrites_its_history_with_the_real_key_is_found() {
    enter_new();
    let server = NatsServer::start();
    let (control, mut program) = start(&server).await;
    let ledger = program.state().join("ledger.json");
    wait_for(DEADLINE, "the ledger", async || std::fs::read_to_string(&ledger).is_ok_and(|it| it.contains("br-2")))
        .await;
    control.recreate_stream(1).await;
    control.decide(created(network(7), "br-7", None)).await;
    control.decide(deleted(network(1))).await;
    expect_log(&program, "contradicts what it has told this node before").await;
    // A restart makes no difference.
    program.stop(Signal::KILL);
    program.spawn();
    wait_for(DEADLINE, "the contradiction", async || program.log_count("contradicts what it has told") == 2).await;
    control.decide(created(network(8), "br-8", None)).await;
    let heartbeats = control.state().heartbeats.len();
    wait_for(DEADLINE, "heartbeats", async || control.state().heartbeats.len() >= heartbeats + 2).await;
    assert_eq!(bridges(), ["br-1", "br-2"].map(str::to_owned).into());
    let status = program.status();
    assert!(status.contains("problem:") && status.contains("has signed"), "{status}");
}

/// After a contradiction, a new epoch is followed as after any restore, without an operator who accepts something.
#[tokio::test]
async fn a_new_epoch_ends_a_contradiction() {
    enter_new();
    let server = NatsServer::start();
    let (control, program) = start(&server).await;
    control.recreate_stream(1).await;
    control.decide(created(network(7), "br-7", None)).await;
    control.decide(created(network(8), "br-8", None)).await;
    expect_log(&program, "contradicts what it has told this node before").await;
    control.restore(1, 10).await;
    control.decide(created(network(9), "br-9", None)).await;
    wait_for(DEADLINE, "a bridge of the new epoch", async || bridges().contains("br-9")).await;
    assert!(!program.state().join("contradiction.json").exists());
    assert!(bridges().contains("br-2"), "its deletion is held");
}

/// More decisions than may wait in memory are applied to a copy of the ledger, and carried out only if the control
/// plane has signed that they follow the ledger.
#[tokio::test]
async fn a_node_that_is_far_behind_verifies_what_it_missed() {
    const MANY: usize = 20_500;
    enter_new();
    let server = NatsServer::start();
    let (control, mut program) = start(&server).await;
    let ledger = program.state().join("ledger.json");
    wait_for(DEADLINE, "the ledger", async || std::fs::read_to_string(&ledger).is_ok_and(|it| it.contains("br-2")))
        .await;
    program.stop(Signal::KILL);
    let known = control.state().published.clone();
    let kept = std::fs::read(&ledger).unwrap();
    control.decide_all(vec![deleted(network(99)); MANY]).await;
    control.decide(created(network(3), "br-3", None)).await;
    program.spawn();
    expect_log(&program, "carrying them out once all are verified").await;
    wait_for(DEADLINE, "the missed network", async || bridges().contains("br-3")).await;
    assert!(!program.log().contains("contradicts"), "{}", program.log());

    // The same with another past, signed with the real key.
    program.stop(Signal::KILL);
    std::fs::write(&ledger, kept).unwrap();
    sh("ip link delete br-3");
    control.recreate_stream(known.len() - 1).await;
    control.decide_all(vec![deleted(network(99)); MANY]).await;
    control.decide(created(network(4), "br-4", None)).await;
    control.decide(deleted(network(1))).await;
    program.spawn();
    expect_log(&program, "contradicts what it has told this node before").await;
    assert_eq!(bridges(), ["br-1", "br-2"].map(str::to_owned).into());
}

#[tokio::test]
async fn another_key_is_refused_and_a_signed_successor_is_accepted() {
    enter_new();
    let server = NatsServer::start();
    let (control, mut program) = start(&server).await;
    let (first, second) = (DecisionSigner::from_seed(&[1; 32]), DecisionSigner::from_seed(&[2; 32]));
    control.state().signer = DecisionSigner::from_seed(&[2; 32]);
    program.stop(Signal::KILL);
    program.spawn();
    expect_log(&program, "and this node follows").await;
    control.decide(created(network(3), "br-3", None)).await;
    let heartbeats = control.state().heartbeats.len();
    wait_for(DEADLINE, "heartbeats", async || control.state().heartbeats.len() >= heartbeats + 2).await;
    assert_eq!(bridges(), ["br-1", "br-2"].map(str::to_owned).into());
    control.state().key_rotations = vec![first.succeeded_by(second.public())];
    expect_ready(&control, 3).await;
}
