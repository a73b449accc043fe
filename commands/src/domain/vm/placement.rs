//! On which node a VM is placed.

use otherix_schemas::id::{NetworkId, NodeId};
use otherix_schemas::node::Resources;
use otherix_schemas::outcome::Outcome;
use otherix_schemas::vm::Arch;

use crate::domain::node::Node;
use crate::domain::{MoveRejection, Rejection, State};

/// What a VM needs of its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    pub(super) arch: Arch,
    pub(super) network: Option<NetworkId>,
    /// `None` without a machine.
    pub(super) resources: Option<Resources>,
    /// The node that it is on, if it is to move to another one.
    pub(super) moving_from: Option<NodeId>,
}

impl State {
    /// Returns the node that was asked for, if the VM can be placed on it; or else the node with the fewest NICs, then
    /// the fewest VMs, of those on which it can be.
    pub(super) fn place(&self, asked_for: Option<NodeId>, needs: Needs) -> Result<NodeId, Rejection> {
        let Some(id) = asked_for else { return self.choose_node(needs) };
        let node = self.nodes().get(&id).ok_or(Rejection::NoSuchNode(id))?;
        if node.cordoned {
            return Err(Rejection::NodeCordoned(node.name.clone()));
        }
        if let Some(from) = needs.moving_from {
            self.check_target(id, node, from, needs)?;
        }
        check(node, needs)?;
        Ok(id)
    }

    /// Whether a VM can move to the node. One that is created there may wait for it, one that moves would stand still.
    fn check_target(&self, id: NodeId, node: &Node, from: NodeId, needs: Needs) -> Result<(), Rejection> {
        let name = || node.name.clone();
        if id == from {
            return Err(MoveRejection::IsThere(name()).into());
        }
        if self.roster().members.get(&id) != Some(&true) {
            return Err(MoveRejection::Unreachable(name()).into());
        }
        if node.mesh.is_none() {
            return Err(MoveRejection::NotInMesh(name()).into());
        }
        match needs.network.and_then(|id| self.live_network(id)) {
            Some(network) if self.has_failed_on(needs.network, id) => {
                Err(MoveRejection::NetworkFailed { network: network.name.clone(), node: name() }.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Of the nodes that are reachable and not cordoned, and on which the network has not failed.
    fn choose_node(&self, needs: Needs) -> Result<NodeId, Rejection> {
        let mut refused = Refused::default();
        for id in self.nodes.available_by_load().filter(|id| !self.has_failed_on(needs.network, *id)) {
            let Some(node) = self.nodes().get(&id) else { continue };
            if needs.moving_from.is_some_and(|from| id == from || node.mesh.is_none()) {
                continue;
            }
            match check(node, needs) {
                Ok(()) => return Ok(id),
                Err(rejection) => refused.add(rejection),
            }
        }
        Err(refused.rejection(needs))
    }

    fn has_failed_on(&self, network: Option<NetworkId>, node: NodeId) -> bool {
        network.and_then(|id| self.live_network(id)).is_some_and(|network| {
            network.outcomes.get(&node).is_some_and(|status| {
                status.generation == network.generation && matches!(status.outcome, Outcome::Failed(_))
            })
        })
    }
}

/// Whether a node runs VMs of this architecture and has room. What it has not told does not exclude it.
fn check(node: &Node, needs: Needs) -> Result<(), Rejection> {
    let Needs { arch, network: _, resources, moving_from: _ } = needs;
    if let Some(node_arch) = node.arch.filter(|_| !node.can_run(arch)) {
        return Err(Rejection::NodeOfOtherArch { node: node.name.clone(), node_arch, arch });
    }
    resources.map_or(Ok(()), |resources| node.check_room(resources))
}

/// Why no node was chosen: the reason that is easiest to resolve is the one that is told.
#[derive(Debug, Default)]
struct Refused {
    of_other_arch: bool,
    runs_no_machines: Option<Rejection>,
    /// The one with the most memory left.
    full: Option<(u64, Rejection)>,
    full_nodes: usize,
}

impl Refused {
    #[expect(clippy::wildcard_enum_match_arm, reason = "`check` returns these")]
    fn add(&mut self, rejection: Rejection) {
        match &rejection {
            Rejection::NoRoom { free, .. } => {
                self.full_nodes += 1;
                let memory = free.memory_mb;
                if self.full.as_ref().is_none_or(|(most, _)| memory > *most) {
                    self.full = Some((memory, rejection));
                }
            }
            Rejection::NodeRunsNoMachines { .. } => self.runs_no_machines = Some(rejection),
            _ => self.of_other_arch = true,
        }
    }

    fn rejection(self, needs: Needs) -> Rejection {
        match (self.full, self.runs_no_machines) {
            (Some((_, Rejection::NoRoom { node, needed, free })), _) if self.full_nodes > 1 => {
                Rejection::NoRoomAnywhere { nodes: self.full_nodes, node, needed, free }
            }
            (Some((_, rejection)), _) | (None, Some(rejection)) => rejection,
            (None, None) if self.of_other_arch => Rejection::NoNodeOfArch(needs.arch),
            (None, None) if needs.moving_from.is_some() => MoveRejection::NoOtherNode.into(),
            (None, None) => Rejection::NoReadyNode,
        }
    }
}
