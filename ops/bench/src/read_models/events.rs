//! The history of a cluster of three nodes: networks are created, become ready on each node, and are deleted; every
//! fourth has a VM.

use bytes::Bytes;
use otherix_schemas::cloudevent::{EventEnvelope, Header};
use otherix_schemas::event::Event;
use otherix_schemas::id::{ClusterId, CorrelationId, EventId, NetworkId, NicId, NodeId, VmId};
use otherix_schemas::network::{Egress, NetworkCreated, NetworkDeleted, NetworkSpec, OverlaySpec};
use otherix_schemas::nic::{NicAttached, NicBound, NicDetached};
use otherix_schemas::node::{NodeJoined, NodeReconciled};
use otherix_schemas::outcome::{Outcome, ResourceOutcome, ResourceRef};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{MacAddress, Mtu, Vni};
use otherix_schemas::vm::{Arch, VmCreated, VmDeleted};
use uuid::Uuid;

use crate::BenchError;

pub(super) const CLUSTER: ClusterId = ClusterId::new(Uuid::from_u128(1));

const NODES: u128 = 3;

/// Networks that exist at the same time; with more, the oldest is deleted for each new one.
const ALIVE: u32 = 10_000;

/// One in this many networks has a VM.
pub(super) const VM_EVERY: u32 = 4;

/// Events of each network and its share of VMs: those of the creation, and of creation and deletion.
const PER_CREATION: f64 = 5.0;
const PER_NETWORK: f64 = 9.75;

/// The position of about the last event before networks are deleted: from there on as many exist as ever.
pub(super) const FULL: u64 = ALIVE as u64 * 5;

/// The number of about the one in the middle of the networks that exist at a position.
pub(super) fn middle(position: u64) -> u32 {
    let (all, full) = (position as f64, FULL as f64);
    let created = if all < full { all / PER_CREATION } else { f64::from(ALIVE) + (all - full) / PER_NETWORK };
    let alive = created.min(f64::from(ALIVE));
    (created - alive / 2.0) as u32
}

/// The first `count` events of the history, encoded, from position 1.
pub(super) fn history(count: u32) -> Result<Vec<Bytes>, BenchError> {
    let mut history = History { events: Vec::new(), count: usize::try_from(count)? };
    for node in 0..NODES {
        let name = format!("node-{node}").parse()?;
        history.add(NodeJoined { node_id: node_id(node), name })?;
    }
    for number in 0_u32.. {
        if history.events.len() >= history.count {
            break;
        }
        history.create_network(number)?;
        if let Some(old) = number.checked_sub(ALIVE) {
            history.delete_network(old)?;
        }
    }
    Ok(history.events)
}

struct History {
    events: Vec<Bytes>,
    count: usize,
}

impl History {
    fn create_network(&mut self, number: u32) -> Result<(), BenchError> {
        let spec = NetworkSpec::Overlay(OverlaySpec {
            vni: Vni::try_from(1000 + number % 1_000_000)?,
            subnet: "10.7.0.0/24".parse()?,
            egress: Egress::None,
            mtu: Mtu::try_from(1370)?,
            dhcp: None,
            allow_spoofing: false,
        });
        let name = format!("network-{number}").parse()?;
        let network_id = NetworkId::new(id(1, number));
        let generation = self.add(NetworkCreated { network_id, name, spec })?;
        self.report(ResourceRef::Network(network_id), generation, &Outcome::Ready, 0..NODES)?;
        if number.is_multiple_of(VM_EVERY) {
            self.create_vm(number, network_id)?;
        }
        Ok(())
    }

    fn delete_network(&mut self, number: u32) -> Result<(), BenchError> {
        let network_id = NetworkId::new(id(1, number));
        if number.is_multiple_of(VM_EVERY) {
            self.delete_vm(number, network_id)?;
        }
        let name = format!("network-{number}").parse()?;
        let generation = self.add(NetworkDeleted { network_id, name })?;
        self.report(ResourceRef::Network(network_id), generation, &Outcome::Removed, 0..NODES)
    }

    fn create_vm(&mut self, number: u32, network_id: NetworkId) -> Result<(), BenchError> {
        let (vm_id, nic_id) = (VmId::new(id(2, number)), NicId::new(id(3, number)));
        let (name, image_url) = (format!("vm-{number}").parse()?, "https://images.example/debian.qcow2".parse()?);
        let node = vm_node(number);
        self.add(VmCreated {
            vm_id,
            name,
            image_url,
            arch: Arch::Amd64,
            node_id: node_id(node),
            owner: None,
            machine: None,
        })?;
        self.add(NicAttached { nic_id, vm_id, network_id, mac: MacAddress::assigned(number), ip: None })?;
        let generation = self.add(NicBound { nic_id, node_id: node_id(node) })?;
        self.report(ResourceRef::Nic(nic_id), generation, &Outcome::Ready, node..=node)
    }

    fn delete_vm(&mut self, number: u32, network_id: NetworkId) -> Result<(), BenchError> {
        let (vm_id, nic_id) = (VmId::new(id(2, number)), NicId::new(id(3, number)));
        let generation = self.add(NicDetached { nic_id, vm_id, network_id })?;
        self.add(VmDeleted { vm_id, name: format!("vm-{number}").parse()? })?;
        let node = vm_node(number);
        self.report(ResourceRef::Nic(nic_id), generation, &Outcome::Removed, node..=node)
    }

    /// Each node reports an outcome.
    fn report(
        &mut self,
        resource: ResourceRef,
        generation: Position,
        outcome: &Outcome,
        nodes: impl IntoIterator<Item = u128>,
    ) -> Result<(), BenchError> {
        for node in nodes {
            let sequence = u64::try_from(self.events.len())?;
            let results = vec![ResourceOutcome::new(resource, generation, outcome.clone())];
            self.add(NodeReconciled { node_id: node_id(node), incarnation: 1, sequence, results })?;
        }
        Ok(())
    }

    /// Adds an event unless the history is complete, and returns its position.
    fn add(&mut self, event: impl Into<Event>) -> Result<Position, BenchError> {
        let number = self.events.len() + 1;
        let position = Position::new(u64::try_from(number)?);
        if number > self.count {
            return Ok(position);
        }
        let header = Header {
            cluster: CLUSTER,
            id: EventId::new(id(4, u32::try_from(number)?)),
            position,
            decision_prev: Position::new(position.get() - 1),
            epoch: Epoch::FIRST,
            stream_version: 1,
            time: Timestamp::from_unix_micros(1_700_000_000_000_000 + i64::try_from(number)? * 100)?,
            actor: "admin".parse()?,
            correlation_id: CorrelationId::new(id(5, u32::try_from(number)?)),
            causation_id: None,
            traceparent: None,
        };
        self.events.push(EventEnvelope { header, event: event.into() }.encode()?.into());
        Ok(position)
    }
}

/// An id like a UUID of version 7: a time, followed by pseudo-random bits.
fn id(kind: u128, number: u32) -> Uuid {
    let random = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x3fff_ffff_ffff_ffff;
    let time = 0x0190_0000_0000 + u128::from(number);
    Uuid::from_u128(time << 80 | 0x7000 << 64 | 0x8000_0000_0000_0000 | random ^ kind)
}

fn node_id(node: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(node + 1))
}

/// The node that a VM is placed on.
fn vm_node(number: u32) -> u128 {
    u128::from(number / VM_EVERY) % NODES
}
