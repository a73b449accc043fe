//! Nodes: `otherix node …`.

mod cordon;
mod drain;
mod fields;
mod join_token;
mod set;

use clap::Subcommand;
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{
    CordonNode, DeleteNode, FindNode, GetNode, ListNodes, NodeById, NodeView, RemovedNodeView, UncordonNode,
};
use uuid::Uuid;

use self::cordon::CordonArgs;
use crate::client::GlobalArgs;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::{Format, PlainListFormat};
use crate::resource::args::{DeleteArgs, GetAtArgs, ListAtArgs};
use crate::resource::{self, Deletable, Resource};

/// Show, add and remove the nodes of the cluster
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum NodeSubcommand {
    /// List nodes in the order in which they joined
    #[command(after_help = LIST_HELP)]
    List(ListAtArgs<PlainListFormat>),
    /// Show a node and the status of each network on it
    #[command(after_help = GET_HELP)]
    Get(GetAtArgs<Format>),
    /// Change the description and the labels of a node
    #[command(after_help = set::HELP)]
    Set(set::SetNodeArgs),
    /// Place no VMs on a node, for maintenance
    #[command(after_help = CORDON_HELP)]
    Cordon(CordonArgs),
    /// Place VMs on a node again
    #[command(after_help = UNCORDON_HELP)]
    Uncordon(CordonArgs),
    /// Move all VMs away from a node, for maintenance
    #[command(after_help = drain::HELP)]
    Drain(drain::DrainArgs),
    /// Remove a node from the cluster permanently
    #[command(after_help = DELETE_HELP)]
    Delete(DeleteArgs),
    /// Permit machines to join as nodes
    #[command(name = "join-token", subcommand)]
    JoinToken(join_token::JoinTokenSubcommand),
}

const EXAMPLES: &str = "\
Examples:
  otherix node list
  otherix node get node-1
  otherix node join-token create
  otherix node cordon node-1
  otherix node drain node-1
  otherix node delete node-1";

const CORDON_HELP: &str = "\
VMs that are on the node stay, and go on. A VM that is to be created on it is refused (exit code 4), and other VMs are \
placed on other nodes. A node that is cordoned already stays so.

Examples:
  otherix node cordon node-1
  otherix node cordon node-1 -o json";

const UNCORDON_HELP: &str = "\
Example:
  otherix node uncordon node-1";

const LIST_HELP: &str = "\
STATUS says whether the node is reachable, and whether it is cordoned; a `*` marks a node with warnings, which `node \
get` shows. READY, PENDING and FAILED count the networks with \
that status on the node, MESH is the node's address in the mesh that carries overlays, SINCE is the time at which it \
became reachable or unreachable. The table has one page. If there are more nodes, the last line on stderr is `next \
cursor: …`: pass it with --cursor for the next page. The other formats list all nodes, unless --limit or --cursor asks \
for a page (in JSON, meta.next_cursor is the next cursor).

Examples:
  otherix node list
  otherix node list -o json";

const GET_HELP: &str = "\
Shows each network that the node has reported on, with its error, the node's membership in the mesh, and warnings: \
settings of the machine that interfere with a network and that otherix does not change. For each other node of the \
mesh, it shows what this node reported last: ESTABLISHED is `yes` if the last handshake was less than 180 s ago, RX \
and TX are the bytes received from and sent to the peer. Without a report since the control plane started, it is \
`no`; so it is with --at, because handshakes are not recorded.

Examples:
  otherix node get node-1
  otherix node get node-1 --at 1042
  otherix node get node-1 -o json";

const DELETE_HELP: &str = "\
Asks for confirmation if stdin is a terminal. The node may be unreachable: no operation waits for it any more, and as \
soon as its agent learns of its removal, it removes everything that otherix created on the machine. Its keys are \
revoked, so an agent that is not connected now does not learn of it: stop it, run `otherix-agent leave` there, and \
start it. A node on which VMs are placed is not removed (exit code 5), not even with --force: move them away (`drain`) \
or delete them first. The name becomes free, but the node cannot join again. To add the machine again as a new node, \
stop its agent, empty the agent's state folder, and redeem a new join token.

Examples:
  otherix node delete node-1
  otherix node delete node-1 --force -o json";

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: NodeSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        NodeSubcommand::List(ListAtArgs { list, at }) => {
            resource::list::run::<NodeView>(global, list, at, printer).await
        }
        NodeSubcommand::Get(GetAtArgs { get, at }) => resource::get::run::<NodeView>(global, get, at, printer).await,
        NodeSubcommand::Set(args) => set::run(global, args, printer).await,
        NodeSubcommand::Cordon(args) => cordon::run::<CordonNode>(global, args, printer).await,
        NodeSubcommand::Uncordon(args) => cordon::run::<UncordonNode>(global, args, printer).await,
        NodeSubcommand::Drain(args) => drain::run(global, args, printer).await,
        NodeSubcommand::Delete(args) => resource::delete::run::<NodeView>(global, args, printer).await,
        NodeSubcommand::JoinToken(command) => join_token::run(global, command, printer).await,
    }
}

impl Resource for NodeView {
    const NOUN: &'static str = "node";
    const COMMAND: &'static str = "node";
    type Get = GetNode;
    type Find = FindNode;
    type List = ListNodes;
    const COLUMNS: &'static [&'static str] = &fields::COLUMNS;
    type ById = NodeById;

    fn by_id(id: Uuid) -> NodeById {
        NodeById { id: NodeId::new(id) }
    }

    fn id(&self) -> Uuid {
        self.id.uuid()
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn row(&self) -> Vec<String> {
        fields::row(self)
    }

    fn details(&self) -> String {
        fields::details(self)
    }
}

impl Deletable for NodeView {
    type Delete = DeleteNode;
    type Deleted = RemovedNodeView;

    fn deleted_name(deleted: &RemovedNodeView) -> &str {
        deleted.name.as_str()
    }
}
