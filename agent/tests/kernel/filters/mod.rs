//! Packet filters of other programs: a network is ready if, and only if, real traffic passes; otherwise the reason
//! names the chain, and what to add there works.

mod bridged;
mod outside;
mod outside_cases;
mod overlay;
mod programs;
mod traffic;

use std::time::Duration;

use otherix_schemas::outcome::{Outcome, ResourceRef};
use otherix_testkit::netns::sh;

use self::traffic::Traffic;
use crate::node::{Node, network};

/// How long an outcome may lag behind what other programs change.
const NEWS: Duration = Duration::from_secs(2);

/// What a ruleset does with traffic between a guest and the outside: echo, TCP, UDP.
type Passes = [bool; 3];

const NOTHING: Passes = [false, false, false];
const ALL: Passes = [true, true, true];

/// A ruleset of another program, for `nft`.
struct Case {
    rules: &'static str,
    passes: Passes,
    /// What the outcome contains, if it is not ready.
    reason: &'static str,
}

const fn lost(rules: &'static str, passes: Passes, reason: &'static str) -> Case {
    Case { rules, passes, reason }
}

const fn free(rules: &'static str) -> Case {
    Case { rules, passes: ALL, reason: "" }
}

/// Returns the outcome of a network, and its warnings.
fn outcome_of(node: &Node, number: u16) -> (Outcome, Vec<String>) {
    let pass = node.last.clone().unwrap();
    let resource = ResourceRef::Network(network(number));
    let outcome = pass.outcomes.into_iter().rfind(|outcome| outcome.resource == resource).unwrap();
    (outcome.outcome, outcome.warnings)
}

/// Waits until a network is pending with this reason. Returns the reason.
async fn expect_pending(node: &mut Node, number: u16, reason: &str) -> String {
    let resource = ResourceRef::Network(network(number));
    let is_so = |outcome: &Outcome| matches!(outcome, Outcome::Pending(text) if text.contains(reason));
    node.run_until_pass(NEWS, |pass| {
        pass.outcomes.iter().any(|outcome| outcome.resource == resource && is_so(&outcome.outcome))
    })
    .await;
    match outcome_of(node, number).0 {
        Outcome::Pending(reason) => reason,
        other @ (Outcome::Ready | Outcome::Failed(_) | Outcome::Removed) => unreachable!("{other:?}"),
    }
}

/// Waits until a network is ready again.
async fn expect_ready(node: &mut Node, number: u16) {
    node.expect_outcome(NEWS, number, Outcome::Ready).await;
}

/// Adds rules of another program.
fn nft(rules: &str) {
    sh(&script(rules));
}

/// Returns a script that adds rules. Their blocks may end without a line break, which `nft` does not accept.
fn script(rules: &str) -> String {
    let rules = rules.replace("; }", ";\n}\n").replace("} }", "}\n}\n");
    format!("nft -f - <<'.'\n{rules}\n.\n")
}

/// Tries the rulesets one after the other.
async fn try_all(node: &mut Node, number: u16, traffic: &Traffic, undo: &str, cases: &[Case]) {
    for Case { rules, passes, reason } in cases {
        assert_eq!(traffic.passes(), ALL, "before {rules}");
        nft(rules);
        if *passes == ALL {
            node.restart();
            node.settle().await;
            assert_eq!(outcome_of(node, number).0, Outcome::Ready, "{rules}");
        } else {
            expect_pending(node, number, reason).await;
        }
        assert_eq!(traffic.passes(), *passes, "{rules}");
        sh(undo);
        if *passes != ALL {
            expect_ready(node, number).await;
        }
    }
}
