//! NAT egress, and our table of the packet filter: the gateway's address and forwarding on the bridge, forwarding on
//! the uplinks, and the rules that protect them. The table also protects VTEPs.
//!
//! No bridge gets its address or forwards before the table protects it, and the table protects it until it is removed.
//! Nothing is made for a network whose subnet would take away from the node what it needs, or what it has (`conflict`).
//! A network with which the node turns out not to reach the control plane is withdrawn.

pub mod action;
mod apply;
mod conflict;
pub mod observe;
mod plan;
mod ruleset;
mod text;
mod uplink;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use otherix_schemas::id::NetworkId;
use otherix_schemas::outcome::Outcome;

use self::observe::NatState;
use crate::engine::kind::PlannedOutcome;
use crate::engine::{DeviceKind, Interest, PlanContext};
use crate::model::desired::{Desired, DesiredNetwork};
use crate::model::ip::Gateway;
use crate::model::need::Need;
use crate::model::observed::Observed;

/// The device kind of NAT rules: gateway addresses, forwarding, and our table of the packet filter.
pub struct NatKind;

impl DeviceKind for NatKind {
    fn name(&self) -> &'static str {
        "nat"
    }

    fn interest(&self, desired: &Desired) -> Interest {
        let is_used = desired.bridges().any(|bridge| bridge.nat.is_some());
        Interest { ipv4: is_used, firewall: is_used, ..Interest::default() }
    }

    /// What the node needs, the other ends of its tunnels, and a guest's address of each network that rules may lead
    /// packets away from.
    fn look_ups(&self, desired: &Desired, observed: &Observed, addresses: &mut BTreeSet<Ipv4Addr>) {
        let gateways: Vec<_> = desired.bridges().filter_map(|bridge| bridge.nat).collect();
        if gateways.is_empty() {
            return;
        }
        let is_looked_up = |need: Need| matches!(need, Need::ControlPlane | Need::Resolver);
        addresses.extend(observed.needs.iter().filter(|(_, need)| is_looked_up(**need)).map(|(address, _)| *address));
        addresses.extend(observed.links().filter_map(|link| link.remote));
        if observed.ip.rules.has_added() {
            let is_concerned = |gateway: &Gateway| observed.ip.rules.may_redirect(gateway.subnet.into());
            addresses.extend(gateways.into_iter().filter(is_concerned).map(conflict::guest_address));
        }
    }

    /// All networks with NAT egress, but only one for a guest's address.
    fn depend_on_lookups(
        &self,
        desired: &Desired,
        observed: &Observed,
        addresses: &BTreeSet<Ipv4Addr>,
        networks: &mut BTreeSet<NetworkId>,
    ) {
        let is_of_node = |address: &Ipv4Addr| {
            observed.needs.contains_key(address) || observed.links().any(|link| link.remote == Some(*address))
        };
        let concerns_all = addresses.iter().any(is_of_node);
        let with_nat = desired.networks.iter().filter(|(_, network)| {
            let gateway = network.want.managed_bridge().and_then(|bridge| bridge.nat);
            gateway.is_some_and(|gateway| concerns_all || addresses.contains(&conflict::guest_address(gateway)))
        });
        networks.extend(with_nat.map(|(id, _)| *id));
    }

    fn plan_node(&self, context: &mut PlanContext<'_>) {
        plan::node(context);
    }

    fn plan_network(&self, context: &mut PlanContext<'_>, id: NetworkId, network: &DesiredNetwork) -> PlannedOutcome {
        match network.want.managed_bridge() {
            Some(bridge) => plan::network(context, id, bridge),
            None => Some(Outcome::Ready),
        }
    }

    fn is_unreferenced(&self, context: &PlanContext<'_>) -> bool {
        !context.shared::<NatState>().has_obsolete_rules()
    }
}
