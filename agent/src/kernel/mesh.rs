//! Reads and changes the link of the mesh device, with its address and routes. The configuration of WireGuard is in
//! [`crate::wireguard`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use otherix_netlink::Message;

use super::error::KernelError;
use super::handle::{Kernel, first_error};
use super::message::{self, ip};
use super::requests::{RequestError, RequestResult};
use crate::model::ip::{IpChange, Ipv4Config};
use crate::model::link::Link;
use crate::model::mesh::{MeshLink, MeshLinkChanges};
use crate::model::mesh_device::{MESH, MESH_ALIAS};
use crate::model::route::{MAIN_TABLE, Route, RouteKind};

/// `ENODEV`: there is no such link.
const ENODEV: i32 = 19;

/// Most routes that are changed with one datagram: the replies must fit into the socket's buffer.
const ROUTES_PER_DATAGRAM: usize = 32;

impl Kernel {
    /// Returns the link with this index, otherwise the one with the name of the mesh device, which may be foreign.
    ///
    /// # Errors
    /// [`KernelError::Read`].
    pub fn find_mesh_link(&mut self, index: Option<u32>) -> Result<Option<Link>, KernelError> {
        for request in index.map(message::get_link).into_iter().chain([message::find_link(MESH)]) {
            let link = found(self.request(request));
            let failed = |error: io::Error| KernelError::Read { what: "the mesh device", reason: error.to_string() };
            if let Some(link) = link.map_err(failed)? {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }

    /// Reads the addresses and routes of the mesh device, and those of the other links.
    ///
    /// # Errors
    /// [`KernelError::Read`].
    pub fn read_mesh_link(&mut self, link: Link) -> Result<MeshLink, KernelError> {
        let index = link.index;
        let others = Ipv4Config::default();
        let mut mesh = MeshLink { link, addresses: BTreeSet::new(), routes: BTreeSet::new(), others };
        for change in self.dump("the addresses", ip::get_addresses())?.ip {
            if let IpChange::Address { index: of, address, added: true } = change {
                if of == index {
                    mesh.addresses.insert(address);
                } else {
                    mesh.others.apply(&change);
                }
            }
        }
        for change in self.dump("the routes", ip::get_routes())?.ip {
            if let IpChange::Route { route, .. } = &change {
                if is_mesh_route(route, index) {
                    mesh.routes.insert(route.to.first());
                } else if !route.links.contains(&index) {
                    mesh.others.apply(&change);
                }
            }
        }
        Ok(mesh)
    }

    /// Changes the mesh device. Returns the nodes whose route could not be changed, with the error: it affects no
    /// others.
    ///
    /// # Errors
    /// [`KernelError::Repair`] for the first change that failed, except those of routes.
    pub fn change_mesh_link(
        &mut self,
        index: u32,
        changes: &MeshLinkChanges,
    ) -> Result<BTreeMap<Ipv4Addr, String>, KernelError> {
        let MeshLinkChanges { name, alias, mtu, up, source, add_address, remove_addresses, add_routes, remove_routes } =
            changes;
        let failed = |reason: String| KernelError::Repair { what: "mesh device", reason };
        if *name || *alias || mtu.is_some() || *up {
            let mut messages: Vec<Message> = Vec::new();
            // Before Linux 6.2 a link must be down to be renamed.
            messages.extend(name.then(|| message::set_down(index)));
            messages.push(message::set_attributes(index, name.then_some(MESH), alias.then_some(MESH_ALIAS), *mtu));
            first_error(self.exchange(messages)).map_err(|error| failed(error.to_string()))?;
            self.disable_ipv6(MESH);
            if *up || *name {
                self.request(message::set_up(index)).map_err(|error| failed(error.to_string()))?;
            }
        }
        let addresses = remove_addresses.iter().map(|address| ip::delete_address(index, *address));
        let addresses = addresses.chain(add_address.iter().map(|address| ip::add_address(index, *address)));
        let changed = first_error(self.exchange(addresses.collect()).into_iter().filter(|result| !is_absent(result)));
        changed.map_err(|error| failed(error.to_string()))?;
        let removed = remove_routes.iter().map(|node| (*node, ip::delete_mesh_route(index, *node)));
        let added = add_routes.iter().map(|node| (*node, ip::add_mesh_route(index, *node, *source)));
        let all: Vec<_> = removed.chain(added).collect();
        let mut failures = BTreeMap::new();
        for requests in all.chunks(ROUTES_PER_DATAGRAM) {
            let results = self.exchange(requests.iter().map(|(_, message)| message.clone()).collect());
            for ((node, _), result) in requests.iter().zip(results).filter(|(_, result)| !is_absent(result)) {
                failures.extend(result.err().map(|error| (*node, route_error(&error))));
            }
        }
        Ok(failures)
    }

    /// Removes the mesh device, if it exists.
    ///
    /// # Errors
    /// [`KernelError::Remove`].
    pub fn remove_mesh_link(&mut self, index: u32) -> Result<(), KernelError> {
        match self.request(message::delete_link(index)) {
            Err(error) if !is_gone(&error) => {
                Err(KernelError::Remove { name: MESH.to_owned(), reason: error.to_string() })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Whether it is a route of ours to another node.
fn is_mesh_route(route: &Route, index: u32) -> bool {
    let is_ours = route.protocol == ip::MESH_PROTOCOL && route.kind == RouteKind::Unicast;
    is_ours && route.table == MAIN_TABLE && route.to.length() == 32 && route.links.contains(&index)
}

/// Returns the requested link, if it exists.
fn found(result: RequestResult) -> io::Result<Option<Link>> {
    match result {
        Ok(reply) => Ok(reply.links.into_iter().next()),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_gone(error: &RequestError) -> bool {
    error.errno() == Some(ENODEV)
}

fn route_error(error: &RequestError) -> String {
    match error {
        RequestError::Refused(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            "there is a route to it that otherix did not add: remove it".to_owned()
        }
        RequestError::Refused(_) | RequestError::Socket(_) => format!("cannot add a route to it: {error}"),
    }
}

/// Whether what was to be removed did not exist: an address (`EADDRNOTAVAIL`) or a route (`ESRCH`).
fn is_absent(result: &RequestResult) -> bool {
    const ESRCH: i32 = 3;
    const EADDRNOTAVAIL: i32 = 99;
    matches!(result, Err(error) if matches!(error.errno(), Some(ESRCH | EADDRNOTAVAIL)))
}
