//! A node without a control plane, and how `ip` shows its links.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use otherix_agent::device::KINDS;
use otherix_agent::engine::{Pass, Reconciler};
use otherix_agent::model::desired::{Desired, DesiredBridge, DesiredNetwork, Want};
use otherix_agent::model::owner::Owner;
use otherix_agent::model::withdrawal::Withdrawals;
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::{ClusterId, NetworkId, NicId};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::Position;
use otherix_testkit::TempDir;
use otherix_testkit::netns::{ip_json, link};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// How long a repair may take.
pub(crate) const REPAIR: Duration = Duration::from_secs(1);

/// How long steps may follow each other, also while another program writes what is to be written, so that the kernel
/// refuses a step again and again.
const SETTLE: Duration = Duration::from_secs(30);

/// A node whose desired state the test sets.
pub(crate) struct Node {
    pub(crate) reconciler: Reconciler,
    pub(crate) desired: Desired,
    /// The cluster view is current.
    pub(crate) current: bool,
    /// The networks that were withdrawn from the node.
    pub(crate) withdrawn: Withdrawals,
    /// The agent's state folder.
    pub(crate) state: TempDir,
    /// The number of passes so far.
    pub(crate) passes: u32,
    /// The result of the last pass.
    pub(crate) last: Option<Pass>,
    /// The last outcome of each network and NIC: a pass returns only those that may have changed.
    outcomes: BTreeMap<ResourceRef, ResourceOutcome>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let desired = Desired::nothing(cluster(), false);
        let state = otherix_testkit::tempdir().unwrap();
        Self {
            reconciler: reconciler(state.path()),
            desired,
            current: true,
            withdrawn: Withdrawals::new(),
            state,
            passes: 0,
            last: None,
            outcomes: BTreeMap::new(),
        }
    }

    /// Discards everything that the agent knows, as a restart does.
    pub(crate) fn restart(&mut self) {
        self.reconciler = reconciler(self.state.path());
    }

    pub(crate) fn set_desired(&mut self, number: u16, want: Want) {
        self.desired.networks.insert(network(number), DesiredNetwork { generation: Position::new(7), want });
    }

    pub(crate) fn alias(&self, number: u16) -> String {
        Owner::of_network(self.desired.cluster, network(number)).to_string()
    }

    /// Runs passes until no steps remain. Returns the last one, with the outcomes of all networks and NICs.
    pub(crate) async fn settle(&mut self) -> Pass {
        let deadline = Instant::now() + SETTLE;
        while Instant::now() < deadline {
            let pass = self.pass().await;
            if !pass.has_more && pass.withdrawals.is_empty() {
                return pass;
            }
        }
        unreachable!("the passes do not end");
    }

    async fn pass(&mut self) -> Pass {
        self.passes += 1;
        let mut pass = self.reconciler.pass(&self.desired, self.current).await.unwrap();
        self.outcomes.extend(pass.outcomes.drain(..).map(|outcome| (outcome.resource, outcome)));
        pass.outcomes.extend(self.outcomes.values().cloned());
        self.withdrawn.extend(pass.withdrawals.clone());
        self.keep_withdrawn();
        self.last = Some(pass.clone());
        pass
    }

    /// Sets the networks that are not to be created again, as the agent does.
    pub(crate) fn keep_withdrawn(&mut self) {
        let withdrawn = self.withdrawn.clone();
        self.reconciler.observe(|observed| {
            let is_changed = observed.withdrawn != withdrawn;
            observed.withdrawn = withdrawn;
            is_changed
        });
    }

    /// Settles, and returns the outcome of a NIC.
    pub(crate) async fn nic_outcome(&mut self, nic: NicId) -> Outcome {
        outcome_of(self.settle().await, ResourceRef::Nic(nic))
    }

    /// Settles, and returns the outcome of a network.
    pub(crate) async fn outcome(&mut self, number: u16) -> Outcome {
        outcome_of(self.settle().await, ResourceRef::Network(network(number)))
    }

    /// Settles, and asserts that the network failed, with an error that contains all of these texts.
    pub(crate) async fn expect_failure(&mut self, number: u16, texts: &[&str]) {
        let outcome = self.outcome(number).await;
        let is_expected = matches!(&outcome, Outcome::Failed(error) if texts.iter().all(|text| error.contains(text)));
        assert!(is_expected, "{outcome:?} must contain {texts:?}");
    }

    /// Runs the agent's loop until the condition is met.
    pub(crate) async fn run_until(&mut self, within: Duration, mut condition: impl FnMut() -> bool) {
        self.run(within, |_| condition()).await;
    }

    /// Runs the agent's loop, whose passes follow from notifications alone, until the network has this outcome.
    pub(crate) async fn expect_outcome(&mut self, within: Duration, number: u16, outcome: Outcome) {
        let resource = ResourceRef::Network(network(number));
        self.run(within, |pass| pass.is_some_and(|pass| outcome_of(pass, resource) == outcome)).await;
    }

    /// Runs the agent's loop until a pass meets the condition.
    pub(crate) async fn run_until_pass(&mut self, within: Duration, condition: impl Fn(&Pass) -> bool) {
        self.run(within, |pass| pass.is_some_and(|pass| condition(&pass))).await;
    }

    /// Runs a pass, which may fail. Returns whether steps remain.
    pub(crate) async fn try_pass(&mut self) -> bool {
        self.passes += 1;
        self.reconciler.pass(&self.desired, self.current).await.is_ok_and(|pass| pass.has_more)
    }

    async fn run(&mut self, within: Duration, mut is_done: impl FnMut(Option<Pass>) -> bool) {
        let deadline = Instant::now() + within;
        let mut pass = None;
        while !is_done(pass.take()) {
            let remaining = deadline.checked_duration_since(Instant::now()).expect("the deadline has not passed");
            timeout(remaining, self.reconciler.wait()).await.expect("there is a notification");
            if self.reconciler.is_due() {
                pass = Some(self.settle().await);
            }
        }
    }
}

fn reconciler(state: &Path) -> Reconciler {
    let mut reconciler = Reconciler::new(KINDS, SystemRuntime::shared()).unwrap();
    reconciler.record_in(state);
    reconciler
}

fn outcome_of(pass: Pass, resource: ResourceRef) -> Outcome {
    pass.outcomes.into_iter().find(|outcome| outcome.resource == resource).unwrap().outcome
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::new(Uuid::from_u128(77))
}

pub(crate) fn network(number: u16) -> NetworkId {
    NetworkId::new(Uuid::from_u128(number.into()))
}

/// Returns a managed bridge.
pub(crate) fn bridge(name: &str, mtu: u32) -> Want {
    Want::Bridge(DesiredBridge {
        name: name.into(),
        mtu,
        mac: None,
        vlan: None,
        nat: None,
        allow_spoofing: false,
        dns: false,
    })
}

/// Returns an unmanaged bridge.
pub(crate) fn unmanaged(name: &str) -> Want {
    Want::Unmanaged(DesiredBridge {
        name: name.into(),
        mtu: 1500,
        mac: None,
        vlan: None,
        nat: None,
        allow_spoofing: false,
        dns: false,
    })
}

pub(crate) fn is_up(link: &Value) -> bool {
    link["flags"].as_array().unwrap().contains(&"UP".into())
}

/// Whether the link is up and has this MTU.
pub(crate) fn is_ready(name: &str, mtu: u32) -> bool {
    link(name).is_some_and(|link| link["mtu"] == mtu && is_up(&link))
}

/// Returns the names of all links.
pub(crate) fn link_names() -> Vec<String> {
    let links = ip_json(&["link", "show"]);
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

/// Returns all links as `ip -d -j` shows them, without timers.
pub(crate) fn snapshot() -> Vec<Value> {
    let mut links = ip_json(&["-d", "link", "show"]).as_array().unwrap().clone();
    for link in &mut links {
        if let Some(data) = link.pointer_mut("/linkinfo/info_data").and_then(Value::as_object_mut) {
            data.retain(|key, _| !key.ends_with("_timer"));
        }
    }
    links
}
