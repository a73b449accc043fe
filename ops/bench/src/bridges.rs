//! The agent's reconciliation with many bridges, without control plane and NATS: a cold build beside `ip -batch` with
//! the same steps, an idle pass, and one change, beside the same with few.
//!
//! Every measurement has a network namespace and a thread of its own. No namespace is freed before the end: the kernel
//! holds its lock on links for half a minute while it frees one with a thousand bridges.

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

use crate::Failure;
use crate::part::Part;
use crate::report::{Figures, say};

/// The small number of bridges, to compare with.
pub(crate) const FEW: u32 = 10;

/// Measurements of a cold build, by turns with the same through `ip -batch`.
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
pub(crate) struct Measured {
    /// Idle passes after a restart, which read all links.
    pub(crate) read: Vec<Duration>,
    /// Idle passes.
    pub(crate) idle: Vec<Duration>,
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
pub(crate) async fn run(count: u32) -> Result<String, Failure> {
    // A thread of its own, which can change its namespace.
    Part::start("bridges", move || Ok(async move { measure(count).await }))?.result().await
}

async fn measure(count: u32) -> Result<String, Failure> {
    let mut builds = Builds::default();
    let mut nodes = Vec::new();
    for turn in 1..=BUILDS {
        say(&format!("bench: cold build of {count} bridges, {turn} of {BUILDS}"));
        let namespace = new_namespace().await?;
        builds.ip.push(ip_batch(count)?);
        let (node, taken) = Node::build(count, |_| Ok(Egress::None)).await?;
        builds.agent.push(taken);
        nodes.push((namespace, node));
    }
    let (_, mut many) = nodes.pop().ok_or("nothing was measured")?;
    let (mut few, _) = Node::build(FEW, |_| Ok(Egress::None)).await?;
    // By turns, so that other load on the machine affects both alike.
    for _ in 0..PASSES {
        few.pass().await?;
        many.pass().await?;
    }
    Ok(render(count, &builds, &many.measured, &few.measured))
}

fn render(count: u32, builds: &Builds, many: &Measured, few: &Measured) -> String {
    let p50 = |values: &[Duration]| Figures::of(values.iter().copied()).p50;
    let row = |text: &str, values: &[f64]| {
        let values: String = values.iter().map(|value| format!("{value:>10.2}")).collect();
        format!("{text:<52}{values:>20}")
    };
    let both = |text: &str, part: fn(&Measured) -> &[Duration]| row(text, &[p50(part(few)), p50(part(many))]);
    let (build, batch) = (p50(&builds.agent), p50(&builds.ip));
    let change = p50(&many.change) / p50(&few.change);
    let verdict = |met: bool| if met { "met" } else { "missed" };
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
            verdict(build / batch <= BUILD_RATIO),
            p50(&many.read),
            verdict(p50(&many.read) <= PASS_MS),
            verdict(change <= CHANGE_RATIO),
        ),
    ]
    .join("\n")
}

/// Enters a new network namespace, which exists as long as the returned file is open.
async fn new_namespace() -> Result<File, Failure> {
    netns::enter_new();
    let namespace = File::open("/proc/thread-self/ns/net")?;
    enter(&namespace).await?;
    Ok(namespace)
}

/// Moves this thread and that of blocking work into a network namespace.
async fn enter(namespace: &File) -> Result<(), Failure> {
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
type EgressOf = fn(u32) -> Result<Egress, Failure>;

/// An agent's node without the connection to the control plane.
pub(crate) struct Node {
    namespace: File,
    bridges: u32,
    egress_of: EgressOf,
    reconciler: Reconciler,
    view: ClusterView,
    reporter: OutcomeReporter,
    position: Position,
    pub(crate) measured: Measured,
}

impl Node {
    /// Creates the bridges in a new namespace with an uplink, and returns the time that took.
    pub(crate) async fn build(bridges: u32, egress_of: EgressOf) -> Result<(Self, Duration), Failure> {
        let namespace = new_namespace().await?;
        netns::sh(UPLINK);
        let reconciler = Reconciler::new(KINDS)?;
        let reporter = OutcomeReporter::new(NodeId::new(Uuid::nil()), 1);
        let (view, position, measured) = (ClusterView::default(), Position::ZERO, Measured::default());
        let mut node = Self { namespace, bridges, egress_of, reconciler, view, reporter, position, measured };
        for number in 0..bridges {
            node.create(number)?;
        }
        let taken = node.timed().await?;
        Ok((node, taken))
    }

    /// Takes one measurement of each kind.
    pub(crate) async fn pass(&mut self) -> Result<(), Failure> {
        enter(&self.namespace).await?;
        // A new reconciler reads all links.
        self.reconciler = Reconciler::new(KINDS)?;
        let read = self.timed().await?;
        let idle = self.timed().await?;
        self.create(self.bridges)?;
        let change = self.timed().await?;
        netns::sh(&format!("ip link set {} down", name(self.bridges)));
        let repair = self.timed().await?;
        self.delete(self.bridges)?;
        self.settle().await?;
        self.measured.read.push(read);
        self.measured.idle.push(idle);
        self.measured.change.push(change);
        self.measured.repair.push(repair);
        Ok(())
    }

    fn create(&mut self, number: u32) -> Result<(), Failure> {
        let spec = NetworkSpec::Bridge(BridgeSpec {
            bridge_name: name(number).parse()?,
            ownership: Ownership::Managed((self.egress_of)(number)?),
            mtu: Mtu::DEFAULT,
            vlan: None,
        });
        self.decide(Event::Network(NetworkEvent::Created(NetworkCreated {
            network_id: id(number),
            name: name(number).parse()?,
            spec,
        })));
        Ok(())
    }

    fn delete(&mut self, number: u32) -> Result<(), Failure> {
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

    async fn timed(&mut self) -> Result<Duration, Failure> {
        let begin = Instant::now();
        self.settle().await?;
        Ok(begin.elapsed())
    }

    /// Reconciles until there is nothing left to do.
    async fn settle(&mut self) -> Result<(), Failure> {
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
fn ip_batch(count: u32) -> Result<Duration, Failure> {
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
