//! Changes taps and VTEPs.

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::LinkAttribute;

use super::action::PortChanges;
use crate::kernel::message::{self, port};
use crate::kernel::{Kernel, RequestError, first_error};
use crate::model::bridge_port::FdbEntry;
use crate::model::owner::Owner;

/// `ENOENT`: there is no such entry. `EINVAL`: the port is not in its VLAN any more.
const NOT_THERE: [i32; 2] = [2, 22];

/// `ENETDOWN`: the operation requires a carrier.
const ENETDOWN: i32 = 100;

/// Applies the changes. The link is set up last, if everything else succeeded: a port that is not locked must not
/// receive frames.
pub(in crate::device) fn change_port(
    kernel: &mut Kernel,
    index: u32,
    changes: &PortChanges,
    owner: Owner,
) -> Result<(), RequestError> {
    let PortChanges { name, mtu, up, alias, group, disable_ipv6, bridge, lock, unlock, unblock, .. } = changes;
    let PortChanges { vlan, fdb_entry, remove_fdb_entries, .. } = changes;
    if *disable_ipv6 {
        kernel.disable_ipv6_of(index);
    }
    let mut messages = Vec::new();
    // Before Linux 6.2 a link must be down to be renamed. A port that changes bridges must not forward before it is
    // locked.
    let must_be_down = name.is_some() || bridge.is_some();
    messages.extend(must_be_down.then(|| message::set_down(index)));
    if must_be_down || mtu.is_some() || *alias || group.is_some() || *disable_ipv6 {
        messages.push(set_link(index, changes, owner));
    }
    messages.extend((*lock || *unlock).then(|| port::configure(index, *lock)));
    first_error(kernel.exchange(messages))?;
    remove_entries(kernel, index, remove_fdb_entries)?;
    let vlans = vlan.iter().flat_map(|vlan| port::set_vlans(index, *vlan, false));
    let messages = vlans.chain(fdb_entry.map(|entry| port::add_fdb_entry(index, entry))).collect();
    first_error(kernel.exchange(messages))?;
    if *unblock {
        match kernel.request(port::unblock(index)) {
            // It has lost its carrier, and forwards when it has one again.
            Err(error) if error.errno() == Some(ENETDOWN) => {}
            answer => drop(answer?),
        }
    }
    if *up || must_be_down {
        kernel.request(message::set_up(index))?;
    }
    Ok(())
}

/// Removes entries of the forwarding database, before the port leaves their VLANs: afterwards the kernel refuses it.
/// One without a VLAN is removed together with those of the port's VLANs, which are gone then.
fn remove_entries(kernel: &mut Kernel, index: u32, entries: &[FdbEntry]) -> Result<(), RequestError> {
    if entries.is_empty() {
        return Ok(());
    }
    let removed = kernel.exchange(entries.iter().map(|entry| port::delete_fdb_entry(index, *entry)).collect());
    let is_gone = |error: &RequestError| error.errno().is_some_and(|errno| NOT_THERE.contains(&errno));
    first_error(removed.into_iter().filter(|result| !matches!(result, Err(error) if is_gone(error))))
}

/// Returns the request that changes the link's attributes other than its administrative state.
fn set_link(index: u32, changes: &PortChanges, owner: Owner) -> otherix_netlink::Message {
    let PortChanges { name, mtu, alias, group, disable_ipv6, bridge, fdb_entry, .. } = changes;
    let mut link = LinkUnspec::new_with_index(index);
    if let (Some(_), Some(entry)) = (bridge, fdb_entry) {
        // A bridge whose address was not set takes the lowest of its ports. No unicast address is higher than this one.
        let [_, rest @ ..] = entry.mac.octets();
        link = link.address([&[0xfe], rest.as_slice()].concat());
    }
    if let Some(mtu) = mtu {
        link = link.mtu(*mtu);
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
    if let Some(bridge) = bridge {
        link = link.controller(*bridge);
    }
    message::set_link(link.build())
}
