//! How the agent's reconciliation fares with many bridges, without control plane and NATS: a cold build beside `ip -batch`
//! doing the same steps, a pass with nothing to do, and one change, beside the same with few bridges.
//!
//! Every measurement has a network namespace and a thread of its own. None of them goes before the end: a namespace with a
//! thousand bridges keeps the kernel's lock on links for half a minute when it goes.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use otherix_agent::device::KINDS;
use otherix_agent::engine::Reconciler;
use otherix_agent::model::desired::{Desired, desired};
use otherix_agent::model::owner::{Owner, temporary_name};
use otherix_agent::model::report::Reporter;
use otherix_agent::model::view::View;
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

/// What few bridges are.
pub(crate) const FEW: u32 = 10;

/// How often a cold build is measured, and by turns the same by `ip -batch`.
const BUILDS: u32 = 3;

/// How often a pass with nothing to do, and one change, are measured.
pub(crate) const PASSES: u32 = 50;

const UPLINK: &str = "ip link add uplink type bridge
ip address add 192.0.2.7/24 dev uplink
ip link set uplink up
ip route add default via 192.0.2.9";

/// Targets: a pass with nothing to do, in milliseconds; one change with many against few bridges; a cold build against `ip`.
const PASS_MS: f64 = 100.0;
const CHANGE_RATIO: f64 = 3.0;
const BUILD_RATIO: f64 = 1.5;

/// What was measured with a number of bridges.
#[derive(Default)]
pub(crate) struct Measured {
    /// Passes with nothing to do, all links read anew in each.
    pub(crate) read: Vec<Duration>,
    /// Passes with nothing to do.
    pub(crate) idle: Vec<Duration>,
    /// From a decision to the outcome.
    pub(crate) change: Vec<Duration>,
    /// From a bridge that was set down to one that is up.
    pub(crate) repair: Vec<Duration>,
}

/// What was measured of cold builds, by turns.
#[derive(Default)]
struct Builds {
    agent: Vec<Duration>,
    ip: Vec<Duration>,
}

/// Measures, and gives the table and a line of figures.
pub(crate) async fn run(count: u32) -> Result<String, Failure> {
    // A thread of its own, which may go from namespace to namespace.
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
    // By turns, so that whatever else the machine does falls on both alike.
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
        format!("{:<52}{FEW:>10}{count:>10}", "p50 ms, with so many bridges"),
        row("cold build", &[build]),
        row("  `ip -batch` doing the same", &[batch]),
        both("pass with nothing to do, all links read anew", |measured| &measured.read),
        both("pass with nothing to do", |measured| &measured.idle),
        both("one network more, from decision to outcome", |measured| &measured.change),
        both("a bridge set down, until it is up", |measured| &measured.repair),
        String::new(),
        format!(
            "cold build {:.2} times `ip -batch` (at most {BUILD_RATIO}: {}); pass {:.2} ms (at most {PASS_MS}: {}); one change \
             {change:.2} times that with {FEW} bridges (at most {CHANGE_RATIO}: {})",
            build / batch,
            verdict(build / batch <= BUILD_RATIO),
            p50(&many.read),
            verdict(p50(&many.read) <= PASS_MS),
            verdict(change <= CHANGE_RATIO),
        ),
    ]
    .join("\n")
}

/// Goes into a fresh network namespace, which stays as long as what is given.
async fn new_namespace() -> Result<File, Failure> {
    netns::enter_new();
    let namespace = File::open("/proc/thread-self/ns/net")?;
    enter(&namespace).await?;
    Ok(namespace)
}

/// Puts this thread, and the one of blocking work, into a network namespace.
async fn enter(namespace: &File) -> Result<(), Failure> {
    let there = namespace.try_clone()?;
    let enter = move || move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network));
    enter()?;
    Ok(tokio::task::spawn_blocking(enter).await??)
}

fn id(number: u32) -> NetworkId {
    NetworkId::new(Uuid::from_u128(number.into()))
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::new(Uuid::from_u128(7))
}

/// How a network with this number reaches the outside.
type WayOut = fn(u32) -> Result<Egress, Failure>;

/// What the agent has of a node, but for what talks to the control plane.
pub(crate) struct Node {
    namespace: File,
    bridges: u32,
    way_out: WayOut,
    reconciler: Reconciler,
    view: View,
    reporter: Reporter,
    position: Position,
    pub(crate) measured: Measured,
}

impl Node {
    /// Makes so many bridges in a namespace of their own, which has an uplink, and says how long that took.
    pub(crate) async fn build(bridges: u32, way_out: WayOut) -> Result<(Self, Duration), Failure> {
        let namespace = new_namespace().await?;
        netns::sh(UPLINK);
        let reconciler = Reconciler::new(KINDS)?;
        let reporter = Reporter::new(NodeId::new(Uuid::nil()), 1);
        let (view, position, measured) = (View::default(), Position::ZERO, Measured::default());
        let mut node = Self { namespace, bridges, way_out, reconciler, view, reporter, position, measured };
        for number in 0..bridges {
            node.create(number)?;
        }
        let taken = node.timed().await?;
        Ok((node, taken))
    }

    /// Measures one of each.
    pub(crate) async fn pass(&mut self) -> Result<(), Failure> {
        enter(&self.namespace).await?;
        // What has just begun reads all links.
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
            ownership: Ownership::Managed((self.way_out)(number)?),
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

    /// What the agent does for a decision or the kernel's word.
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

/// The same bridges by `ip`: made down under another name, then given name, alias and MTU and set up.
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
