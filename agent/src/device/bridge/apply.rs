//! Creates and repairs bridges.

use std::io;

use otherix_netlink::Message;
use otherix_schemas::id::ClusterId;
use rtnetlink::packet_route::link::{BridgeStpState, InfoKind, LinkAttribute};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use super::action::{BridgeChanges, BridgeSetting, CreateBridge, RepairBridge};
use crate::engine::{StepAction, Subject};
use crate::kernel::message::{self, port};
use crate::kernel::{Kernel, KernelError, RequestError, first_error, new_links_forward};
use crate::model::desired::DesiredBridge;
use crate::model::link::BridgeSettings;
use crate::model::link_group::LinkGroup;
use crate::model::observed::Parts;
use crate::model::owner::{Owner, temporary_name};

/// `EOPNOTSUPP`: the kernel lacks what is requested.
const EOPNOTSUPP: i32 = 95;

/// Why the kernel cannot create a bridge with a VLAN.
const NO_VLANS: &str = "this node's kernel has no VLAN filtering on bridges (CONFIG_BRIDGE_VLAN_FILTERING)";

impl StepAction for CreateBridge {
    fn kind(&self) -> &'static str {
        "bridge"
    }

    fn name(&self) -> &'static str {
        "create"
    }

    fn subject(&self) -> Subject {
        Subject::Network(self.network)
    }

    fn creates(&self) -> Option<&str> {
        Some(&self.bridge.name)
    }

    /// First creates all of them, down and with a temporary name that marks them as ours, then configures each.
    fn execute(actions: &[&Self], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let create = |action: &&Self| {
            let name = temporary_name(action.network.uuid());
            let message = create(&name, &action.bridge);
            (name, message)
        };
        let created = kernel.create_links(actions.iter().map(create).collect());
        let created = actions.iter().zip(created);
        let indexes: Vec<_> = created.map(|(action, index)| explain(&action.bridge, index)).collect();
        let forwards = new_links_forward();
        for (action, _) in actions.iter().zip(&indexes).filter(|(_, index)| index.is_ok()) {
            let name = temporary_name(action.network.uuid());
            kernel.disable_ipv6(&name);
            if forwards && action.bridge.nat.is_none() {
                // A failure is observed, and the next plan corrects it.
                let _observed_later = kernel.set_forwarding(&name, false);
            }
        }
        let configure = actions.iter().zip(&indexes).filter_map(|(action, index)| {
            let owner = Owner::of_network(cluster, action.network);
            index.as_ref().ok().map(|index| configure(*index, &action.bridge, owner))
        });
        let mut configured = kernel.exchange(configure.collect()).into_iter();
        let mut results = Vec::with_capacity(actions.len());
        for (action, index) in actions.iter().zip(indexes) {
            let result = index.and_then(|index| {
                let failure = first_error(configured.next()).err().map(|error| error.to_string());
                kernel.complete(index, failure)
            });
            results.push(result.map_err(|reason| KernelError::Create { name: action.bridge.name.clone(), reason }));
        }
        results
    }
}

impl StepAction for RepairBridge {
    fn kind(&self) -> &'static str {
        "bridge"
    }

    fn name(&self) -> &'static str {
        "repair"
    }

    fn subject(&self) -> Subject {
        Subject::Network(self.network)
    }

    fn invalidates(&self) -> Parts {
        if self.changes.vlan.is_some() { Parts::PORTS } else { Parts::NONE }
    }

    fn changes(&self) -> Option<u32> {
        Some(self.index)
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let repaired = actions.iter().map(|action| {
            let owner = Owner::of_network(cluster, action.network);
            let repaired = repair(kernel, action.index, &action.changes, owner);
            repaired.map_err(|reason| KernelError::Repair { what: "bridge", reason })
        });
        repaired.collect()
    }
}

fn explain(bridge: &DesiredBridge, created: Result<u32, RequestError>) -> Result<u32, String> {
    created.map_err(|error| match error.errno() {
        Some(EOPNOTSUPP) if bridge.vlan.is_some() => NO_VLANS.to_owned(),
        _ => error.to_string(),
    })
}

fn repair(kernel: &mut Kernel, index: u32, changes: &BridgeChanges, owner: Owner) -> Result<(), String> {
    let vlans = BridgeChanges { vlan: changes.vlan, ..BridgeChanges::default() };
    if *changes != vlans {
        repair_link(kernel, index, changes, owner)?;
    }
    let vlans = changes.vlan.iter().flat_map(|vlan| port::set_vlans(index, *vlan, true)).collect();
    first_error(kernel.exchange(vlans)).map_err(|error| error.to_string())
}

fn repair_link(kernel: &mut Kernel, index: u32, changes: &BridgeChanges, owner: Owner) -> Result<(), String> {
    if changes.disable_ipv6 {
        kernel.disable_ipv6_of(index);
    }
    let mut repaired = kernel.request(change(index, changes, owner));
    if let Err(RequestError::Refused(refusal)) = &repaired
        && changes.name.is_some()
        && refusal.kind() == io::ErrorKind::ResourceBusy
    {
        // Before Linux 6.2 a link must be down to be renamed.
        let changes = BridgeChanges { up: true, ..changes.clone() };
        let both = vec![message::set_down(index), change(index, &changes, owner)];
        repaired = kernel.exchange(both).pop().unwrap_or(repaired);
    }
    if changes.mtu.is_some() {
        // If the MTU was too small for IPv6, the kernel has discarded the setting that disables IPv6.
        kernel.disable_ipv6_of(index);
    }
    repaired.map(drop).map_err(|error| match error.errno() {
        Some(EOPNOTSUPP) if changes.settings.contains(&BridgeSetting::VlanFiltering(true)) => NO_VLANS.to_owned(),
        _ => error.to_string(),
    })
}

/// Creates a bridge that is down and has a temporary name and no alias: the kernel ignores an alias in this request.
///
/// Its MTU intentionally differs from the required one. A bridge whose MTU was never changed takes the smallest MTU of
/// its ports (`br_mtu_auto_adjust`), and setting the MTU that a device has already is no change (`netif_set_mtu_ext`).
///
/// The request has attributes for VLANs only if the network has a VLAN: a kernel without VLAN filtering refuses the
/// whole request. A MAC address that is set here is permanent; otherwise it changes with the ports.
fn create(name: &str, bridge: &DesiredBridge) -> Message {
    let DesiredBridge { name: _, mtu, mac, vlan, nat, allow_spoofing: _, dns: _ } = bridge;
    let BridgeSettings { stp, mcast_snooping, mcast_querier, .. } = BridgeSettings::PLAIN;
    let settings = [
        BridgeSetting::Stp(stp),
        BridgeSetting::McastSnooping(mcast_snooping),
        BridgeSetting::McastQuerier(mcast_querier),
    ];
    let BridgeSettings { vlan_filtering, vlan_default_pvid, .. } = BridgeSettings::TAGGED;
    let tagged = [BridgeSetting::VlanDefaultPvid(vlan_default_pvid), BridgeSetting::VlanFiltering(vlan_filtering)];
    let tagged = tagged.into_iter().filter(|_| vlan.is_some());
    let group = if nat.is_some() { LinkGroup::GatewayBridge } else { LinkGroup::IsolatedBridge };
    let mut link = LinkMessageBuilder::<LinkBridge>::new(name)
        .mtu(mtu + 1)
        .append_extra_attribute(LinkAttribute::Group(group.number()));
    if let Some(mac) = mac {
        link = link.address(mac.octets().to_vec());
    }
    message::create_link(settings.into_iter().chain(tagged).fold(link, set).build())
}

fn set(link: LinkMessageBuilder<LinkBridge>, setting: BridgeSetting) -> LinkMessageBuilder<LinkBridge> {
    match setting {
        BridgeSetting::Stp(on) => link.stp_state(if on { BridgeStpState::KernelStp } else { BridgeStpState::Disabled }),
        BridgeSetting::VlanDefaultPvid(vlan) => link.vlan_default_pvid(vlan),
        BridgeSetting::VlanFiltering(on) => link.vlan_filtering(on),
        BridgeSetting::McastSnooping(on) => link.mcast_snooping(on),
        BridgeSetting::McastQuerier(on) => link.mcast_querier(on),
    }
}

/// Configures a new bridge in one request. The kernel applies MTU, name, alias and flags in this order (`do_setlink`),
/// so that the bridge still has the temporary name if the kernel refuses the MTU or the name.
fn configure(index: u32, bridge: &DesiredBridge, owner: Owner) -> Message {
    let link = LinkUnspec::new_with_index(index).mtu(bridge.mtu).name(&bridge.name).alias(owner.to_string()).up();
    message::set_link(link.build())
}

fn change(index: u32, changes: &BridgeChanges, owner: Owner) -> Message {
    let BridgeChanges { name, mtu, mac, up, alias, detach, group, disable_ipv6, settings, vlan: _ } = changes;
    let mut link = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge).index(index);
    if let Some(mtu) = mtu {
        link = link.mtu(*mtu);
    }
    if let Some(mac) = mac {
        link = link.address(mac.octets().to_vec());
    }
    if let Some(name) = name {
        link = link.name(name);
    }
    if let Some(group) = group {
        link = link.append_extra_attribute(LinkAttribute::Group(group.number()));
    }
    // The kernel does not notify of a disabled IPv6, but it does when an alias is set, even to what it was.
    if *alias || *disable_ipv6 {
        link = link.alias(owner.to_string());
    }
    if *detach {
        link = link.nocontroller();
    }
    if *up {
        link = link.up();
    }
    message::change_link(settings.iter().copied().fold(link, set).build())
}
