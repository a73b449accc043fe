//! The agent's reconciliation with many bridges, without control plane and NATS: a cold build, compared with `ip
//! -batch` with the same steps; an idle pass and one change, compared with the same with few bridges.
//!
//! Every measurement has its own network namespace and thread. No namespace is freed before the end: the kernel holds
//! its lock on links for half a minute while it frees one with a thousand bridges.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use otherix_agent::device::KINDS;
use otherix_agent::engine::Reconciler;
use otherix_agent::model::cluster_view::ClusterView;
use otherix_agent::model::desired::{Desired, desired};
use otherix_agent::model::owner::{Owner, temporary_name};
use otherix_agent::model::report::OutcomeReporter;
use otherix_runtime::SystemRuntime;
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, NetworkId, NodeId};
use otherix_schemas::network::{
    BridgeSpec, Egress, NetworkCreated, NetworkDeleted, NetworkEvent, NetworkSpec, Ownership,
};
use otherix_schemas::outcome::Outcome;
use otherix_schemas::position::Position;
use otherix_schemas::value::Mtu;
use otherix_testkit::{NamedTempFile, netns};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use uuid::Uuid;

use crate::BenchError;
use crate::report::{Figures, report_progress, target_result};
use crate::thread::BenchThread;

/// The small number of bridges, to compare with.
pub(crate) const FEW: u32 = 10;

/// Measurements of a cold build, alternating with the same through `ip -batch`.
const BUILDS: u32 = 3;

/// Measurements of an idle pass and of one change.
pub(crate) const PASSES: u32 = 50;

const UPLINK: &str = "ip link add uplink type bridge
ip address add 192.0.2.7/24 dev uplink
ip link set uplink up
ip route add default via 192.0.2.9";

/// Targets: a pass with nothing to do, in milliseconds; one change with many against few bridges; a cold build against
/// `ip`.
const PASS_MS: f64 = 100.0;
const CHANGE_RATIO: f64 = 3.0;
const BUILD_RATIO: f64 = 1.5;

/// Measurements with a number of bridges.
#[derive(Default)]
pub(crate) struct BridgeMeasurements {
    /// Idle passes after a restart, which read all links.
    pub(crate) read: Vec<Duration>,
    /// Idle passes.
    pub(crate) idle: Vec<Duration>,
    /// From a change of a route until everything has been planned again.
    pub(crate) plan: Vec<Duration>,
    /// From a decision to the outcome.
    pub(crate) change: Vec<Duration>,
    /// From a bridge set down until it is up again.
    pub(crate) repair: Vec<Duration>,
}

/// Measurements of cold builds.
#[derive(Default)]
struct Builds {
    agent: Vec<Duration>,
    ip: Vec<Duration>,
}

/// Measures, and returns a table and a line of figures.
pub(crate) async fn run(count: u32) -> Result<String, BenchError> {
    // A separate thread, which can change its namespace.
    BenchThread::start("bridges", move || Ok(async move { measure(count).await }))?.result().await
}

async fn measure(count: u32) -> Result<String, BenchError> {
    let mut builds = Builds::default();
    let mut nodes = Vec::new();
    for turn in 1..=BUILDS {
        report_progress(&format!("bench: cold build of {count} bridges, {turn} of {BUILDS}"));
        let namespace = new_namespace().await?;
        builds.ip.push(ip_batch(count)?);
        let (node, taken) = BenchNode::build(count, |_| Ok(Egress::None)).await?;
        builds.agent.push(taken);
        nodes.push((namespace, node));
    }
    let (_, mut many) = nodes.pop().ok_or("nothing was measured")?;
    let (mut few, _) = BenchNode::build(FEW, |_| Ok(Egress::None)).await?;
    // Alternating, so that other load on the machine affects both equally.
    for _ in 0..PASSES {
        few.pass().await?;
        many.pass().await?;
    }
    Ok(render(count, &builds, &many.measured, &few.measured))
}

fn render(count: u32, builds: &Builds, many: &BridgeMeasurements, few: &BridgeMeasurements) -> String {
    let p50 = |values: &[Duration]| Figures::of(values.iter().copied()).p50;
    let row = |text: &str, values: &[f64]| {
        let values: String = values.iter().map(|value| format!("{value:>10.2}")).collect();
        format!("{text:<52}{values:>20}")
    };
    let both = |text: &str, part: fn(&BridgeMeasurements) -> &[Duration]| row(text, &[p50(part(few)), p50(part(many))]);
    let (build, batch) = (p50(&builds.agent), p50(&builds.ip));
    let change = p50(&many.change) / p50(&few.change);
    [
        format!("{:<52}{FEW:>10}{count:>10}", "p50 ms, by number of bridges"),
        row("cold build", &[build]),
        row("  the same through `ip -batch`", &[batch]),
        both("idle pass after a restart", |measured| &measured.read),
        both("idle pass", |measured| &measured.idle),
        both("one more network, from decision to outcome", |measured| &measured.change),
        both("a bridge set down, until it is up again", |measured| &measured.repair),
        String::new(),
        format!(
            "cold build {:.2} times `ip -batch` (at most {BUILD_RATIO}: {}); idle pass {:.2} ms (at most {PASS_MS}: \
             {}); one change {change:.2} times that with {FEW} bridges (at most {CHANGE_RATIO}: {})",
            build / batch,
            target_result(build / batch <= BUILD_RATIO),
            p50(&many.read),
            target_result(p50(&many.read) <= PASS_MS),
            target_result(change <= CHANGE_RATIO),
        ),
    ]
    .join("\n")
}

/// Enters a new network namespace, which exists as long as the returned file is open.
async fn new_namespace() -> Result<File, BenchError> {
    netns::enter_another();
    let namespace = File::open("/proc/thread-self/ns/net")?;
    enter(&namespace).await?;
    Ok(namespace)
}

/// Moves this thread and the one for blocking work into a network namespace.
async fn enter(namespace: &File) -> Result<(), BenchError> {
    let target = namespace.try_clone()?;
    let enter = move || move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network));
    enter()?;
    Ok(tokio::task::spawn_blocking(enter).await??)
}

fn id(number: u32) -> NetworkId {
    NetworkId::new(Uuid::from_u128(number.into()))
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::new(Uuid::from_u128(7))
}

/// The egress of the network with this number.
type EgressOf = fn(u32) -> Result<Egress, BenchError>;

/// An agent's node without the connection to the control plane.
pub(crate) struct BenchNode {
    namespace: File,
    bridges: u32,
    egress_of: EgressOf,
    reconciler: Reconciler,
    view: ClusterView,
    reporter: OutcomeReporter,
    position: Position,
    pub(crate) measured: BridgeMeasurements,
}

impl BenchNode {
    /// Creates the bridges in a new namespace with an uplink, and returns the time that took.
    pub(crate) async fn build(bridges: u32, egress_of: EgressOf) -> Result<(Self, Duration), BenchError> {
        Self::build_beside("", bridges, egress_of).await
    }

    /// Like [`Self::build`], after another program has run these shell commands.
    pub(crate) async fn build_beside(
        other: &str,
        bridges: u32,
        egress_of: EgressOf,
    ) -> Result<(Self, Duration), BenchError> {
        let namespace = new_namespace().await?;
        netns::sh(&format!("{UPLINK}\n{other}"));
        let reconciler = Reconciler::new(KINDS, SystemRuntime::shared())?;
        let reporter = OutcomeReporter::new(NodeId::new(Uuid::nil()), 1);
        let (view, position, measured) = (ClusterView::default(), Position::ZERO, BridgeMeasurements::default());
        let mut node = Self { namespace, bridges, egress_of, reconciler, view, reporter, position, measured };
        for number in 0..bridges {
            node.create(number)?;
        }
        let taken = node.timed().await?;
        Ok((node, taken))
    }

    /// Takes one measurement of each kind.
    pub(crate) async fn pass(&mut self) -> Result<(), BenchError> {
        enter(&self.namespace).await?;
        // A new reconciler reads all links.
        self.reconciler = Reconciler::new(KINDS, SystemRuntime::shared())?;
        let read = self.timed().await?;
        let idle = self.timed().await?;
        netns::sh("ip route add 203.0.113.0/24 via 192.0.2.9");
        let plan = self.timed().await?;
        netns::sh("ip route del 203.0.113.0/24");
        self.settle().await?;
        self.create(self.bridges)?;
        let change = self.timed().await?;
        netns::sh(&format!("ip link set {} down", name(self.bridges)));
        let repair = self.timed().await?;
        self.delete(self.bridges)?;
        self.settle().await?;
        self.measured.read.push(read);
        self.measured.idle.push(idle);
        self.measured.plan.push(plan);
        self.measured.change.push(change);
        self.measured.repair.push(repair);
        Ok(())
    }

    fn create(&mut self, number: u32) -> Result<(), BenchError> {
        let spec = NetworkSpec::Bridge(BridgeSpec {
            bridge_name: name(number).parse()?,
            ownership: Ownership::Managed((self.egress_of)(number)?),
            mtu: Mtu::DEFAULT,
            vlan: None,
            dhcp: None,
            allow_spoofing: false,
        });
        self.decide(Event::Network(NetworkEvent::Created(NetworkCreated {
            network_id: id(number),
            name: name(number).parse()?,
            spec,
        })));
        Ok(())
    }

    fn delete(&mut self, number: u32) -> Result<(), BenchError> {
        self.decide(Event::Network(NetworkEvent::Deleted(NetworkDeleted {
            network_id: id(number),
            name: name(number).parse()?,
        })));
        Ok(())
    }

    fn decide(&mut self, event: Event) {
        self.position = self.position.next();
        self.view.apply(self.position, event);
    }

    async fn timed(&mut self) -> Result<Duration, BenchError> {
        let begin = Instant::now();
        self.settle().await?;
        Ok(begin.elapsed())
    }

    /// Reconciles until a pass has no further work.
    async fn settle(&mut self) -> Result<(), BenchError> {
        loop {
            let desired: Desired = desired(&self.view, cluster(), NodeId::new(Uuid::nil()));
            let round = self.reconciler.pass(&desired, true).await?;
            let failed = round.outcomes.iter().find(|outcome| matches!(outcome.outcome, Outcome::Failed(_)));
            if let Some(failed) = failed {
                return Err(format!("a network is not ready: {:?}", failed.outcome).into());
            }
            round.outcomes.into_iter().for_each(|outcome| self.reporter.observe(outcome));
            if !round.has_more {
                return Ok(());
            }
        }
    }
}

pub(crate) fn name(number: u32) -> String {
    format!("br-{number}")
}

/// Creates the same bridges through `ip`: down under a temporary name, then with name, alias and MTU, then up.
fn ip_batch(count: u32) -> Result<Duration, BenchError> {
    let mut file = NamedTempFile::new()?;
    for number in 0..count {
        let (name, temporary) = (name(number), temporary_name(id(number).uuid()));
        let alias = Owner::of_network(cluster(), id(number));
        writeln!(file, "link add {temporary} mtu 1501 type bridge stp_state 0 mcast_snooping 1 mcast_querier 0")?;
        writeln!(file, "link set {temporary} mtu 1500 name {name} alias {alias} up")?;
    }
    let begin = Instant::now();
    let output = Command::new("ip").arg("-batch").arg(file.path()).output()?;
    let taken = begin.elapsed();
    if output.status.success() {
        return Ok(taken);
    }
    Err(format!("`ip -batch` failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
