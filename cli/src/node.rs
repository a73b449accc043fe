//! `otherix node …`: what is a node's own.

use otherix_schemas::id::NodeId;
use otherix_schemas::node::{NodeById, NodeView, RemovedNodeView};
use otherix_schemas::request::Request;
use uuid::Uuid;

use crate::args::{Global, NodeCommand};
use crate::failure::Failure;
use crate::output::{self, Printer};
use crate::thing::{self, Deletable, Thing};

/// Carries out a command on nodes.
pub(crate) async fn run(global: &Global, command: NodeCommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        NodeCommand::List(args) => thing::list::run::<NodeView>(global, args, printer).await,
        NodeCommand::Get(args) => thing::get::run::<NodeView>(global, args, printer).await,
        NodeCommand::Delete(args) => thing::delete::at_once::<NodeView>(global, args, printer).await,
    }
}

impl Thing for NodeView {
    const WHAT: &'static str = "node";
    const COMMAND: &'static str = "node";
    const GET: Request = Request::NodeGet;
    const FIND: Request = Request::NodeFind;
    const LIST: Request = Request::NodeList;
    const COLUMNS: &'static [&'static str] = &output::node::COLUMNS;
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
        output::node::row(self)
    }

    fn details(&self) -> String {
        output::node::details(self)
    }

    fn manifest(&self) -> Option<String> {
        None // a node joins, and is not made
    }
}

impl Deletable for NodeView {
    const DELETE: Request = Request::NodeDelete;
    type Deleted = RemovedNodeView;

    fn is_deleted(&self) -> bool {
        false // of one that was removed there is no view
    }

    fn name_of(deleted: &RemovedNodeView) -> &str {
        deleted.name.as_str()
    }
}
