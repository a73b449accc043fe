//! `otherix vm …`: what is a VM's own.

mod verdict;
mod wanted;

use otherix_schemas::id::VmId;
use otherix_schemas::request::Request;
use otherix_schemas::vm::{VmById, VmView};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) use wanted::WantedVm;

use crate::args::{CreateVmArgs, Global, VmCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Printer};
use crate::thing::create;
use crate::thing::verdict::Verdict;
use crate::thing::{self, Deletable, Made, Thing};

/// Carries out a command on VMs.
pub(crate) async fn run(global: &Global, command: VmCommand, printer: &mut Printer) -> Result<(), Failure> {
    match command {
        VmCommand::Create(args) => create(global, args, printer).await,
        VmCommand::List(args) => thing::list::run::<VmView>(global, args, printer).await,
        VmCommand::Get(args) => thing::get::run::<VmView>(global, args, printer).await,
        VmCommand::Delete(args) => thing::delete::run::<VmView>(global, args, printer).await,
    }
}

async fn create(global: &Global, args: CreateVmArgs, printer: &mut Printer) -> Result<(), Failure> {
    let CreateVmArgs { name, image_url, arch, network, node, output: _, wait } = args;
    let wanted = WantedVm { name, image_url, arch, network, node };
    let violations = wanted.violations();
    if !violations.is_empty() {
        return Err(create::rules_hint::<VmView>(violations.into()));
    }
    let mut client = Client::connect(global).await?;
    let draft = wanted.resolve(&mut client).await?;
    create::run::<VmView>(client, &draft, wait, printer).await
}

impl Thing for VmView {
    const WHAT: &'static str = "VM";
    const COMMAND: &'static str = "vm";
    const GET: Request = Request::VmGet;
    const FIND: Request = Request::VmFind;
    const LIST: Request = Request::VmList;
    const COLUMNS: &'static [&'static str] = &output::vm::COLUMNS;
    type ById = VmById;

    fn by_id(id: Uuid) -> VmById {
        VmById { id: VmId::new(id) }
    }

    fn id(&self) -> Uuid {
        self.id.uuid()
    }

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn row(&self) -> Vec<String> {
        output::vm::row(self)
    }

    fn details(&self) -> String {
        output::vm::details(self)
    }

    fn manifest(&self) -> Option<String> {
        Some(output::yaml::vm(self))
    }
}

impl Deletable for VmView {
    const DELETE: Request = Request::VmDelete;
    type Deleted = Self;

    fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    fn name_of(deleted: &Self) -> &str {
        deleted.name.as_str()
    }
}

impl Made for VmView {
    const CREATE: Request = Request::VmCreate;
    const NOTE: Option<&'static str> =
        Some("note: the image is not fetched and the VM is not booted: otherix does not do that yet");
    const WHERE: &'static str = "";

    fn fields(&self) -> String {
        output::table::fields(&output::vm::fields(self))
    }

    fn readiness(&self) -> Verdict {
        verdict::readiness(self)
    }

    fn removal(&self) -> Verdict {
        verdict::removal(self)
    }

    fn missing(&self) -> String {
        verdict::missing(self)
    }

    fn left_out(&self) -> Option<String> {
        None
    }

    fn status(&self) -> Value {
        let Self { node_name, node_reachable, status, error, .. } = self;
        json!({"node_name": node_name, "node_reachable": node_reachable, "status": status, "error": error})
    }
}
