//! The mesh's device as a link: found, named, given its address and its routes. What WireGuard is told is not here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use otherix_netlink::Message;

use super::error::KernelError;
use super::handle::{Kernel, refusal};
use super::message::{self, ip};
use super::requests::{Answer, RequestError};
use crate::model::ip::IpChange;
use crate::model::link::Link;
use crate::model::mesh::{MeshLink, MeshLinkChanges};
use crate::model::mesh_device::{MESH, MESH_ALIAS};

/// `ENODEV`: there is no such link.
const ENODEV: i32 = 19;

/// Most routes that are changed with one system call: their answers fit into the socket's buffer.
const ROUTES: usize = 32;

impl Kernel {
    /// The mesh's device of this index, or else the one of its name, whosever that is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mesh_link(&mut self, index: Option<u32>) -> Result<Option<Link>, KernelError> {
        for question in index.map(message::get_link).into_iter().chain([message::find_link(MESH)]) {
            let answer = found(self.request(question));
            let read = |error: io::Error| KernelError::Read { what: "the mesh's device", reason: error.to_string() };
            if let Some(link) = answer.map_err(read)? {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }

    /// The address and routes of a link that is the mesh's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mesh_interface(&mut self, link: Link) -> Result<MeshLink, KernelError> {
        let mut interface = MeshLink { link, addresses: BTreeSet::new(), routes: BTreeSet::new() };
        let index = interface.link.index;
        for change in self.dump("the addresses", ip::get_addresses())?.ip {
            if let IpChange::Address { index: of, address, added: true } = change
                && of == index
            {
                interface.addresses.insert(address);
            }
        }
        let routes = self.dump("the routes", ip::get_routes())?.mesh_routes;
        interface.routes = routes.into_iter().filter(|(of, _)| *of == index).map(|(_, node)| node).collect();
        Ok(interface)
    }

    /// Changes it. Gives the nodes that no route can be made to, and why: one holds up no other.
    ///
    /// # Errors
    /// The first change that failed and is not of a route.
    pub fn change_mesh(
        &mut self,
        index: u32,
        changes: &MeshLinkChanges,
    ) -> Result<BTreeMap<Ipv4Addr, String>, KernelError> {
        let MeshLinkChanges { name, alias, mtu, up, source, add_address, remove_addresses, add_routes, remove_routes } =
            changes;
        let failed = |reason: String| KernelError::Repair { what: "mesh's device", reason };
        if *name || *alias || mtu.is_some() || *up {
            let mut messages: Vec<Message> = Vec::new();
            // Before Linux 6.2 a link must be down to be renamed.
            messages.extend(name.then(|| message::set_down(index)));
            messages.push(message::set_attributes(index, name.then_some(MESH), alias.then_some(MESH_ALIAS), *mtu));
            refusal(self.exchange(messages)).map_or(Ok(()), |reason| Err(failed(reason)))?;
            self.disable_ipv6(MESH);
            if *up || *name {
                self.request(message::set_up(index)).map_err(|error| failed(error.to_string()))?;
            }
        }
        let addresses = remove_addresses.iter().map(|address| ip::delete_address(index, *address));
        let addresses = addresses.chain(add_address.iter().map(|address| ip::add_address(index, *address)));
        let refused = refusal(self.exchange(addresses.collect()).into_iter().filter(|answer| !is_absent(answer)));
        refused.map_or(Ok(()), |reason| Err(failed(reason)))?;
        let gone = remove_routes.iter().map(|node| (*node, ip::delete_mesh_route(index, *node)));
        let made = add_routes.iter().map(|node| (*node, ip::add_mesh_route(index, *node, *source)));
        let all: Vec<_> = gone.chain(made).collect();
        let mut blocked = BTreeMap::new();
        for some in all.chunks(ROUTES) {
            let answers = self.exchange(some.iter().map(|(_, message)| message.clone()).collect());
            for ((node, _), answer) in some.iter().zip(answers).filter(|(_, answer)| !is_absent(answer)) {
                blocked.extend(answer.err().map(|error| (*node, route_refused(&error))));
            }
        }
        Ok(blocked)
    }

    /// Removes a link that is the mesh's.
    ///
    /// # Errors
    /// When the kernel refuses; that it is gone already is none.
    pub fn remove_mesh(&mut self, index: u32) -> Result<(), KernelError> {
        match self.request(message::delete_link(index)) {
            Err(error) if !is_gone(&error) => {
                Err(KernelError::Remove { name: MESH.to_owned(), reason: error.to_string() })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The link that was asked for, if there is one.
fn found(answer: Answer) -> io::Result<Option<Link>> {
    match answer {
        Ok(told) => Ok(told.links.into_iter().next()),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_gone(error: &RequestError) -> bool {
    error.errno() == Some(ENODEV)
}

fn route_refused(error: &RequestError) -> String {
    match error {
        RequestError::Refused(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            "there is a route to it that otherix did not add: remove it".to_owned()
        }
        RequestError::Refused(_) | RequestError::Socket(_) => format!("cannot add a route to it: {error}"),
    }
}

/// What is to be taken away is not there: an address (`EADDRNOTAVAIL`) or a route (`ESRCH`).
fn is_absent(answer: &Answer) -> bool {
    const ESRCH: i32 = 3;
    const EADDRNOTAVAIL: i32 = 99;
    matches!(answer, Err(error) if matches!(error.errno(), Some(ESRCH | EADDRNOTAVAIL)))
}
