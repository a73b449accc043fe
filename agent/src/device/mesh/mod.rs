//! The mesh device. A task of its own creates and configures it (`wireguard`), because the protocol with the process
//! that serves it must not delay the passes. Its faults are part of the observed state.

use crate::engine::DeviceKind;
use crate::model::ip::IpChange;
use crate::model::link::{Link, LinkChange};
use crate::model::mesh_device::MESH;
use crate::model::notification::Notification;
use crate::model::observed::Observed;
use crate::model::owner::{self, Owner};
use crate::model::route::Prefix;

/// The device kind of the mesh device, of which a node has one.
pub struct MeshKind;

impl MeshKind {
    pub const NAME: &str = "mesh";
}

impl DeviceKind for MeshKind {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn is_notified(&self, change: &Notification, observed: &Observed) -> bool {
        let is_mesh = |index| observed.mesh().is_some_and(|link| link.index == index);
        match change {
            Notification::Link(LinkChange::Seen(link)) => {
                link.name == MESH || is_mesh(link.index) || changes_underlay(link, observed)
            }
            Notification::Link(LinkChange::Gone(index)) => is_mesh(*index),
            Notification::Ip(IpChange::Address { index, address, added: _ }) => {
                is_mesh(*index) || concerns_mesh(observed, address.network())
            }
            Notification::Ip(IpChange::Route { route, change: _ }) => {
                !route.follows_from_address() && (route.to.length() == 32 || concerns_mesh(observed, route.to))
            }
            Notification::Ipv6 { .. }
            | Notification::Ipv6OfAll
            | Notification::Ip(
                IpChange::Forwarding { .. }
                | IpChange::ForwardingOfAll { .. }
                | IpChange::ReversePathFilter
                | IpChange::Rule { .. },
            )
            | Notification::Port(_)
            | Notification::Lock(_)
            | Notification::Firewall { .. } => false,
        }
    }
}

/// Whether an address of a node in the mesh has this prefix, which is not that of a default route.
fn concerns_mesh(observed: &Observed, prefix: Prefix) -> bool {
    !prefix.is_default() && observed.mesh_addresses.range(prefix.first()..=prefix.last()).next().is_some()
}

/// Whether a foreign link, which the packets of the mesh may pass, is set up or down or gets another MTU. A new link of
/// ours is set up by the message that gives it its name and alias.
fn changes_underlay(link: &Link, observed: &Observed) -> bool {
    let Some(before) = observed.link(link.index) else { return false };
    (before.mtu, before.up) != (link.mtu, link.up)
        && observed.owner(before).is_none()
        && !owner::is_temporary(&link.name)
        && link.alias.as_deref().is_none_or(|alias| alias.parse::<Owner>().is_err())
}
