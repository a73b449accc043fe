//! What the tests share: a node without a control plane, and how `ip` sees its links.

use std::collections::BTreeMap;
use std::time::Duration;

use otherix_agent::device::KINDS;
use otherix_agent::engine::{Pass, Reconciler};
use otherix_agent::model::desired::{Desired, DesiredBridge, DesiredNetwork, Want};
use otherix_agent::model::owner::Owner;
use otherix_schemas::id::{ClusterId, NetworkId, NicId};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_testkit::netns::{ip_json, link};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// What behaviour promises for a repair.
pub(crate) const REPAIR: Duration = Duration::from_secs(1);

pub(crate) struct Node {
    pub(crate) reconciler: Reconciler,
    pub(crate) desired: Desired,
    pub(crate) current: bool,
    pub(crate) rounds: u32,
    /// What came of the last round.
    pub(crate) last: Option<Pass>,
    /// The last word on each network and NIC: a round says only what may be other than before.
    said: BTreeMap<ResourceRef, ResourceOutcome>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let desired = Desired { cluster: cluster(), mesh: None, networks: [].into(), nics: [].into(), has_left: false };
        Self {
            reconciler: Reconciler::new(KINDS).unwrap(),
            desired,
            current: true,
            rounds: 0,
            last: None,
            said: BTreeMap::new(),
        }
    }

    /// The agent begins anew, and knows nothing of what it saw.
    pub(crate) fn restart(&mut self) {
        self.reconciler = Reconciler::new(KINDS).unwrap();
    }

    pub(crate) fn want(&mut self, number: u16, want: Want) {
        self.desired.networks.insert(network(number), DesiredNetwork { generation: Position::new(7), want });
    }

    pub(crate) fn alias(&self, number: u16) -> String {
        Owner::of_network(self.desired.cluster, network(number)).to_string()
    }

    /// Rounds until nothing is left to do.
    pub(crate) async fn settle(&mut self) -> Pass {
        for _ in 0..100 {
            let round = self.round().await;
            if !round.has_more {
                return round;
            }
        }
        unreachable!("the rounds do not end");
    }

    async fn round(&mut self) -> Pass {
        self.rounds += 1;
        let mut round = self.reconciler.pass(&self.desired, self.current).await.unwrap();
        self.said.extend(round.outcomes.drain(..).map(|outcome| (outcome.resource, outcome)));
        round.outcomes.extend(self.said.values().cloned());
        self.last = Some(round.clone());
        round
    }

    pub(crate) async fn nic_outcome(&mut self, nic: NicId) -> Outcome {
        let round = self.settle().await;
        round.outcomes.into_iter().find(|outcome| outcome.resource == ResourceRef::Nic(nic)).unwrap().outcome
    }

    pub(crate) async fn outcome(&mut self, number: u16) -> Outcome {
        outcome_of(self.settle().await, number)
    }

    /// Its outcome must be a failure whose text has all of these words.
    pub(crate) async fn fails(&mut self, number: u16, words: &[&str]) {
        let outcome = self.outcome(number).await;
        let named = matches!(&outcome, Outcome::Failed(text) if words.iter().all(|word| text.contains(word)));
        assert!(named, "{outcome:?} must name {words:?}");
    }

    /// What the agent's loop does, until `condition` holds.
    pub(crate) async fn work_until(&mut self, within: Duration, mut condition: impl FnMut() -> bool) {
        self.work(within, |_| condition()).await;
    }

    /// What the agent's loop does, until the network has this outcome: the kernel's word is the only reason to look.
    pub(crate) async fn becomes(&mut self, within: Duration, number: u16, outcome: Outcome) {
        self.work(within, |round| round.is_some_and(|round| outcome_of(round, number) == outcome)).await;
    }

    /// What the agent's loop does, until a round says so.
    pub(crate) async fn work_until_round(&mut self, within: Duration, said: impl Fn(&Pass) -> bool) {
        self.work(within, |round| round.is_some_and(|round| said(&round))).await;
    }

    /// A round that may fail. Says whether there should be another.
    pub(crate) async fn try_round(&mut self) -> bool {
        self.rounds += 1;
        self.reconciler.pass(&self.desired, self.current).await.is_ok_and(|round| round.has_more)
    }

    async fn work(&mut self, within: Duration, mut is_over: impl FnMut(Option<Pass>) -> bool) {
        let end = Instant::now() + within;
        let mut round = None;
        while !is_over(round.take()) {
            let left = end.checked_duration_since(Instant::now()).expect("the deadline has not passed");
            timeout(left, self.reconciler.wait()).await.expect("the kernel tells of it");
            if self.reconciler.is_due() {
                round = Some(self.settle().await);
            }
        }
    }
}

fn outcome_of(round: Pass, number: u16) -> Outcome {
    round
        .outcomes
        .into_iter()
        .find(|outcome| outcome.resource == ResourceRef::Network(network(number)))
        .unwrap()
        .outcome
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::new(Uuid::from_u128(77))
}

pub(crate) fn network(number: u16) -> NetworkId {
    NetworkId::new(Uuid::from_u128(number.into()))
}

pub(crate) fn bridge(name: &str, mtu: u32) -> Want {
    Want::Bridge(DesiredBridge { name: name.into(), mtu, mac: None, vlan: None, nat: None })
}

pub(crate) fn unmanaged(name: &str) -> Want {
    Want::Unmanaged(DesiredBridge { name: name.into(), mtu: 1500, mac: None, vlan: None, nat: None })
}

pub(crate) fn is_up(link: &Value) -> bool {
    link["flags"].as_array().unwrap().contains(&"UP".into())
}

pub(crate) fn is_as_asked(name: &str, mtu: u32) -> bool {
    link(name).is_some_and(|link| link["mtu"] == mtu && is_up(&link))
}

pub(crate) fn names() -> Vec<String> {
    let links = ip_json(&["link", "show"]);
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

/// All links as `ip -d -j` shows them, without what changes by itself.
pub(crate) fn snapshot() -> Vec<Value> {
    let mut links = ip_json(&["-d", "link", "show"]).as_array().unwrap().clone();
    for link in &mut links {
        if let Some(data) = link.pointer_mut("/linkinfo/info_data").and_then(Value::as_object_mut) {
            data.retain(|key, _| !key.ends_with("_timer"));
        }
    }
    links
}
