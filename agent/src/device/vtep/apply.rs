//! Creates and repairs VTEPs, and changes their forwarding.
//!
//! A VTEP is created down, with a temporary name. It gets name, alias and bridge in one request, is then locked, and
//! set up last.

use std::io;

use otherix_netlink::Message;
use otherix_schemas::id::ClusterId;
use rtnetlink::LinkVxlan;

use super::action::{ChangeForwarding, CreateVtep, ForwardingChanges, RepairVtep};
use super::text;
use crate::device::port::apply::change_port;
use crate::engine::{StepAction, Subject};
use crate::kernel::message::{self, port};
use crate::kernel::{Kernel, KernelError, RequestError, RequestResult, first_error};
use crate::model::desired::DesiredVtep;
use crate::model::link::Link;
use crate::model::observed::Parts;
use crate::model::owner::{Owner, temporary_vtep_name};
use crate::model::vxlan::{Frames, RemoteEntry};

/// Most changes of a forwarding database in one datagram, so that the replies fit into the socket's receive buffer.
const BATCH: usize = 32;

impl StepAction for CreateVtep {
    fn kind(&self) -> &'static str {
        "vtep"
    }

    fn name(&self) -> &'static str {
        "create"
    }

    fn subject(&self) -> Subject {
        Subject::Network(self.network)
    }

    fn invalidates(&self) -> Parts {
        Parts::PORTS
    }

    fn creates(&self) -> Option<&str> {
        Some(&self.vtep.name)
    }

    /// First creates all of them, then configures each.
    fn execute(actions: &[&Self], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let create = |action: &&Self| {
            let name = temporary_vtep_name(action.network);
            let message = create(&name, &action.vtep);
            (name, message)
        };
        let created = kernel.create_links(actions.iter().map(create).collect());
        let mut devices = VxlanDevices::default();
        let mut results = Vec::with_capacity(actions.len());
        for (action, created) in actions.iter().zip(created) {
            let result = created.map_err(|error| error.to_string()).and_then(|index| {
                kernel.disable_ipv6(&temporary_vtep_name(action.network));
                let owner = Owner::of_network(cluster, action.network);
                let failure = change_port(kernel, index, &action.changes, owner).err();
                let failure = failure.map(|error| devices.explain(kernel, action.vtep.port, &error));
                kernel.complete(index, failure)
            });
            results.push(result.map_err(|reason| KernelError::Create { name: action.vtep.name.clone(), reason }));
        }
        results
    }
}

impl StepAction for RepairVtep {
    fn kind(&self) -> &'static str {
        "vtep"
    }

    fn name(&self) -> &'static str {
        "repair"
    }

    fn subject(&self) -> Subject {
        Subject::Network(self.network)
    }

    fn invalidates(&self) -> Parts {
        Parts::PORTS
    }

    fn changes(&self) -> Option<u32> {
        Some(self.index)
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let mut devices = VxlanDevices::default();
        let repaired = actions.iter().map(|action| {
            let owner = Owner::of_network(cluster, action.network);
            let repaired = change_port(kernel, action.index, &action.changes, owner);
            let explain = |error| devices.explain(kernel, action.port, &error);
            repaired.map_err(explain).map_err(|reason| KernelError::Repair { what: "VTEP", reason })
        });
        repaired.collect()
    }
}

impl StepAction for ChangeForwarding {
    fn kind(&self) -> &'static str {
        "vtep"
    }

    fn name(&self) -> &'static str {
        "forward"
    }

    fn subject(&self) -> Subject {
        Subject::Network(self.network)
    }

    fn invalidates(&self) -> Parts {
        Parts::PORTS
    }

    fn is_quick(&self) -> bool {
        false
    }

    /// It is repeated when NICs are attached, moved and detached.
    fn is_limited(&self) -> bool {
        false
    }

    fn changes(&self) -> Option<u32> {
        Some(self.index)
    }

    fn execute(actions: &[&Self], kernel: &mut Kernel, _: ClusterId) -> Vec<Result<(), KernelError>> {
        let changed = actions.iter().map(|action| {
            let changed = forward(kernel, action.index, &action.changes);
            changed.map_err(|reason| KernelError::Repair { what: "forwarding to other nodes", reason })
        });
        changed.collect()
    }
}

/// `EADDRINUSE`.
const EADDRINUSE: i32 = 98;

/// The VXLAN devices of the node, read when the first VTEP of a batch cannot be set up because its port is in use.
#[derive(Default)]
struct VxlanDevices(Option<Vec<Link>>);

impl VxlanDevices {
    /// Explains why a VTEP with this UDP port cannot be set up. VXLAN devices share a port only if they receive in the
    /// same way.
    fn explain(&mut self, kernel: &mut Kernel, port: u16, error: &RequestError) -> String {
        if error.errno() != Some(EADDRINUSE) {
            return error.to_string();
        }
        let read = || kernel.request(message::get_vxlan_devices()).map(|reply| reply.links).unwrap_or_default();
        let links = self.0.get_or_insert_with(read);
        let is_foreign = |link: &&Link| {
            let is_ours = link.alias.as_deref().is_some_and(|alias| alias.parse::<Owner>().is_ok());
            link.up && !is_ours && link.vxlan.is_some_and(|vxlan| vxlan.port == port)
        };
        text::port_in_use(port, links.iter().find(is_foreign))
    }
}

/// Creates a VTEP that is down and has a temporary name and no alias. It sends datagrams without a UDP checksum.
fn create(name: &str, vtep: &DesiredVtep) -> Message {
    let DesiredVtep { name: _, vni, local, port } = vtep;
    let link = LinkVxlan::new(name, vni.get()).local(*local).port(*port).learning(false).udp_csum(false);
    message::create_link(link.build())
}

/// Changes the forwarding. An entry to remove that does not exist is no error.
fn forward(kernel: &mut Kernel, index: u32, changes: &ForwardingChanges) -> Result<(), String> {
    let ForwardingChanges { remove_remotes, remove_fdb_entries, set_remotes, add_fdb_entries, add_flood_nodes } =
        changes;
    let remotes = remove_remotes.iter().map(|entry| port::delete_remote(index, *entry));
    let fdb_entries = remove_fdb_entries.iter().map(|entry| port::delete_fdb_entry(index, *entry));
    let removals: Vec<_> = remotes.chain(fdb_entries).collect();
    let remotes = set_remotes.iter().map(|(mac, node)| RemoteEntry::new(Frames::Unicast(*mac), *node));
    let remotes = remotes.map(|entry| port::point_to(index, entry));
    let fdb_entries = add_fdb_entries.iter().map(|entry| port::add_fdb_entry(index, *entry));
    let flood_nodes = add_flood_nodes.iter().map(|node| port::flood_to(index, *node));
    let additions: Vec<_> = remotes.chain(fdb_entries).chain(flood_nodes).collect();
    let mut failure = None;
    for messages in removals.chunks(BATCH) {
        let answers = kernel.exchange(messages.to_vec()).into_iter().filter(|answer| !is_absent(answer));
        failure = failure.or(first_error(answers).err());
    }
    for messages in additions.chunks(BATCH) {
        failure = failure.or(first_error(kernel.exchange(messages.to_vec())).err());
    }
    failure.map_or(Ok(()), |error: RequestError| Err(error.to_string()))
}

/// Whether the entry to remove does not exist.
fn is_absent(answer: &RequestResult) -> bool {
    matches!(answer, Err(RequestError::Refused(refusal)) if refusal.kind() == io::ErrorKind::NotFound)
}
