//! Making and repairing bridges.

use std::io;

use otherix_netlink::Message;
use otherix_schemas::id::{ClusterId, NetworkId};

use super::message;
use super::requests::{ReplyData, RequestError};
use super::steps::{Kernel, KernelError, refusal};
use super::{bridging, sysctl};
use crate::model::desired::DesiredBridge;
use crate::model::owner::{Owner, temporary_name};
use crate::model::plan::{Changes, Step};

/// `EOPNOTSUPP`: the kernel lacks what is asked for.
const EOPNOTSUPP: i32 = 95;

/// Said of a bridge with a VLAN that the kernel cannot make.
const NO_VLANS: &str = "this node's kernel has no VLANs on bridges (CONFIG_BRIDGE_VLAN_FILTERING)";

impl Kernel {
    /// Makes bridges: first all of them, each ours by its temporary name and down; then each gets all that it must have.
    pub(super) fn create_bridges(&mut self, steps: &[Step], cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let wanted: Vec<_> = steps.iter().filter_map(creation).collect();
        let forwards = sysctl::new_ones_forward();
        let made = wanted.iter().map(|(network, bridge)| {
            let name = temporary_name(network.uuid());
            let create = message::create(&name, bridge);
            (name, create)
        });
        let made = self.make_links(made.collect());
        let indexes: Vec<_> = wanted.iter().zip(made).map(|((_, bridge), made)| made_index(bridge, made)).collect();
        for ((network, bridge), _) in wanted.iter().zip(&indexes).filter(|(_, index)| index.is_ok()) {
            let name = temporary_name(network.uuid());
            self.turn_off_ipv6(&name);
            if forwards && bridge.nat.is_none() {
                // What cannot be turned off is seen in the next plan.
                let _seen = self.forward_ipv4(&name, false);
            }
        }
        let completed = wanted.iter().zip(&indexes).filter_map(|((network, bridge), index)| {
            let owner = Owner::of_network(cluster, *network);
            index.as_ref().ok().map(|index| message::complete(*index, bridge, owner))
        });
        let mut completed = self.exchange(completed.collect()).into_iter();
        let mut results = Vec::with_capacity(steps.len());
        for ((_, bridge), index) in wanted.iter().zip(indexes) {
            let result = match index {
                Ok(index) => self.completed(index, refusal(completed.next())),
                Err(reason) => Err(reason),
            };
            results.push(result.map_err(|reason| KernelError::Create { name: bridge.name.clone(), reason }));
        }
        results
    }

    pub(super) fn repair_bridge(&mut self, index: u32, changes: &Changes, owner: Owner) -> Result<(), KernelError> {
        let failed = |reason| KernelError::Repair { what: "bridge", reason };
        let Changes { vlan, address, forwarding, .. } = changes;
        let ip = Changes { vlan: *vlan, address: *address, forwarding: *forwarding, ..Changes::default() };
        if *changes != ip {
            self.change_bridge(index, changes, owner).map_err(failed)?;
        }
        let vlans = vlan.iter().flat_map(|vlan| bridging::only_vlan(index, *vlan, true));
        let messages: Vec<Message> = vlans.chain(address.map(|address| message::add_address(index, address))).collect();
        refusal(self.exchange(messages)).map_or(Ok(()), |reason| Err(failed(reason)))?;
        if let Some(on) = forwarding {
            let name = self.name_of(index).map_err(failed)?;
            self.forward_ipv4(&name, *on).map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }

    fn change_bridge(&mut self, index: u32, changes: &Changes, owner: Owner) -> Result<(), String> {
        let mut repaired = self.requests.request(message::change(index, changes, owner));
        if let Err(RequestError::Refused(error)) = &repaired
            && changes.name.is_some()
            && error.kind() == io::ErrorKind::ResourceBusy
        {
            // Before Linux 6.2 a link must be down to be renamed.
            let changes = Changes { up: true, ..changes.clone() };
            let both = vec![message::take_down(index), message::change(index, &changes, owner)];
            repaired = self.exchange(both).pop().unwrap_or_else(|| Ok(ReplyData::default()));
        }
        if changes.mtu.is_some() {
            // One that was too small for IPv6 makes the kernel forget that it was off.
            let found = self.requests.request(message::look(index)).unwrap_or_default();
            found.links.iter().for_each(|link| self.turn_off_ipv6(&link.name));
        }
        repaired.map(drop).map_err(|error| error.to_string())
    }

    fn name_of(&mut self, index: u32) -> Result<String, String> {
        let found = self.requests.request(message::look(index)).map_err(|error| error.to_string())?;
        found.links.into_iter().next().map(|link| link.name).ok_or_else(|| "it is gone".to_owned())
    }
}

fn creation(step: &Step) -> Option<(NetworkId, &DesiredBridge)> {
    match step {
        Step::Create { network, bridge } => Some((*network, bridge)),
        Step::Rules(_)
        | Step::Uplink { .. }
        | Step::Repair { .. }
        | Step::CreateTap { .. }
        | Step::RepairTap { .. }
        | Step::CreateVtep { .. }
        | Step::RepairVtep { .. }
        | Step::Forward { .. }
        | Step::Remove { .. } => None,
    }
}

fn made_index(bridge: &DesiredBridge, made: Result<u32, RequestError>) -> Result<u32, String> {
    made.map_err(|error| match error {
        RequestError::Refused(refusal) if bridge.vlan.is_some() && refusal.errno() == EOPNOTSUPP => NO_VLANS.to_owned(),
        error @ (RequestError::Refused(_) | RequestError::Socket(_)) => error.to_string(),
    })
}
