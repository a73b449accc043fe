//! Making VTEPs, and what they forward to other nodes.
//!
//! A VTEP is made down under a temporary name; then it gets its own and its alias at once, becomes a port of its bridge, is locked,
//! and only then is it up.

use std::io;

use otherix_schemas::id::{ClusterId, NetworkId};

use super::requests::{Answer, RequestError};
use super::steps::{Kernel, KernelError, refusal};
use super::{bridging, message};
use crate::model::desired::DesiredVtep;
use crate::model::owner::{Owner, temporary_vtep_name};
use crate::model::plan::{Forwarding, PortChanges, Step};
use crate::model::vxlan::{Frames, Remote};

/// Most changes of a forwarding database with one system call: their answers fit into the socket's buffer.
const CHANGES: usize = 32;

impl Kernel {
    /// Makes VTEPs: first all of them, then each gets all that it must have.
    pub(super) fn create_vteps(&mut self, steps: &[Step], cluster: ClusterId) -> Vec<Result<(), KernelError>> {
        let wanted: Vec<_> = steps.iter().filter_map(creation).collect();
        let made = wanted.iter().map(|(network, vtep, _)| {
            let name = temporary_vtep_name(*network);
            let create = message::create_vtep(&name, vtep);
            (name, create)
        });
        let made = self.make_links(made.collect());
        let mut results = Vec::with_capacity(steps.len());
        for ((network, vtep, changes), made) in wanted.into_iter().zip(made) {
            let result = made.map_err(|error| error.to_string()).and_then(|index| {
                self.turn_off_ipv6(&temporary_vtep_name(network));
                let failure = self.change_port(index, changes, Owner::of_network(cluster, network)).err();
                self.completed(index, failure)
            });
            results.push(result.map_err(|reason| KernelError::Create { name: vtep.name.clone(), reason }));
        }
        results
    }

    /// Changes what a VTEP and its bridge forward. What is to be forgotten may be forgotten already.
    pub(super) fn forward(&mut self, index: u32, changes: &Forwarding) -> Result<(), String> {
        let Forwarding { prune, forget, point, know, flood } = changes;
        let gone = prune.iter().map(|remote| bridging::prune(index, *remote));
        let gone: Vec<_> = gone.chain(forget.iter().map(|station| bridging::forget(index, *station))).collect();
        let pointed = point.iter().map(|(mac, node)| Remote::new(Frames::Station(*mac), *node));
        let pointed = pointed.map(|remote| bridging::point(index, remote));
        let known = know.iter().map(|station| bridging::know(index, *station));
        let flooded = flood.iter().map(|node| bridging::flood(index, *node));
        let made: Vec<_> = pointed.chain(known).chain(flooded).collect();
        let mut failure = None;
        for messages in gone.chunks(CHANGES) {
            let answers = self.exchange(messages.to_vec()).into_iter().filter(|answer| !is_absent(answer));
            failure = failure.or(refusal(answers));
        }
        for messages in made.chunks(CHANGES) {
            failure = failure.or(refusal(self.exchange(messages.to_vec())));
        }
        failure.map_or(Ok(()), Err)
    }
}

/// There is no such entry.
fn is_absent(answer: &Answer) -> bool {
    matches!(answer, Err(RequestError::Refused(error)) if error.kind() == io::ErrorKind::NotFound)
}

fn creation(step: &Step) -> Option<(NetworkId, &DesiredVtep, &PortChanges)> {
    match step {
        Step::CreateVtep { network, vtep, changes } => Some((*network, vtep, changes)),
        Step::Rules(_)
        | Step::Uplink { .. }
        | Step::Create { .. }
        | Step::Repair { .. }
        | Step::CreateTap { .. }
        | Step::RepairTap { .. }
        | Step::RepairVtep { .. }
        | Step::Forward { .. }
        | Step::Remove { .. } => None,
    }
}
