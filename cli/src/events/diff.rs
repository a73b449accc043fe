//! `otherix diff`: what has changed between two moments, and by whom.

mod fields;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use otherix_schemas::event::EventQuery;
use otherix_schemas::network::{NetworkPageRequest, NetworkView};
use otherix_schemas::node::NodeView;
use otherix_schemas::position::Position;
use otherix_schemas::request::{AsOf, PageRequest, RequestType};
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmView;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use self::fields::FieldChange;
use super::line::Lines;
use super::select;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::command::KINDS;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest;
use crate::moment;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::resource::list::all_pages;
use crate::resource::{NameOrId, Resource};

/// Events of one resource that are printed as text.
const EVENTS_MAX: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The earlier moment: a position, an RFC 3339 time, or a time ago (30s, 10m, 1h, 7d)
    #[arg(long, value_name = "WHEN", required_unless_present = "files")]
    from: Option<String>,

    /// The later moment [default: now]
    #[arg(long, value_name = "WHEN")]
    to: Option<String>,

    /// Compare what manifests define with what is: a file, a folder, or `-` for standard input; may be repeated
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::AnyPath)]
    #[arg(conflicts_with_all = ["from", "to"])]
    files: Vec<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(crate) const HELP: &str = "\
With -f: a unified diff of each resource that `apply -f` would create or change; the control plane decides it, and \
nothing is changed. Exit code 0 if there is no difference, 1 if there is one, and above 1 if not everything could be \
compared.

With --from: compares networks, VMs and nodes as they were after the event at each moment: `+` is new, `-` is gone, \
`~` has changed, with its fields before and after and the events between that are about it (the newest ten; in JSON \
all). Counts, and fields that change with every event, such as `generation`, are left out. A network's fields include \
its status on each node.

Examples:
  otherix diff -f networks.yaml
  otherix diff -f cluster/ -o json
  otherix diff --from 1h
  otherix diff --from 2026-11-01T00:00:00Z --to 2026-11-02T00:00:00Z
  otherix diff --from 1000 --to 1042 -o json";

/// What is printed as JSON.
#[derive(Serialize)]
struct Difference<'a> {
    from: Position,
    to: Position,
    changes: Vec<Change<'a>>,
}

/// A resource that is not what it was.
#[derive(Serialize)]
struct Change<'a> {
    resource: &'static str,
    id: Uuid,
    name: String,
    change: ChangeKind,
    fields: Vec<FieldChange>,
    events: Vec<&'a Value>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum ChangeKind {
    Added,
    Removed,
    Changed,
}

/// The events between the two moments.
struct Between {
    events: Vec<Value>,
    /// The events about each resource, by their index.
    about: BTreeMap<Uuid, Vec<usize>>,
}

/// Carries out the command.
pub(crate) async fn run(global: &GlobalArgs, args: DiffArgs, printer: &mut Printer) -> Result<(), Failure> {
    let DiffArgs { from, to, files, output } = args;
    if !files.is_empty() {
        return manifest::diff::run(global, KINDS, &files, printer).await;
    }
    let mut violations = Violations::default();
    let from = from.and_then(|from| violations.check("from", moment::as_of(&from)));
    let to = to.and_then(|to| violations.check("to", moment::as_of(&to)));
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let from = select::settle(from, &mut client).await?;
    let to = select::settle(to, &mut client).await?;
    if to < from {
        violations.add("to", format!("is position {to}, before --from, which is {from}"));
        return Err(violations.into());
    }
    let query = EventQuery { after: from, ..EventQuery::default() };
    let events = select::events_until(query, to, &mut client).await?;
    let mut range = Range { from, to, client, between: Between { events, about: BTreeMap::new() } };
    let networks =
        range.lists::<NetworkView>(|PageRequest { limit, cursor }| NetworkPageRequest { kind: None, limit, cursor });
    let networks = networks.await?;
    let vms = range.lists::<VmView>(|page| page).await?;
    let nodes = range.lists::<NodeView>(|page| page).await?;
    range.between.assign(&nics(&vms));
    let mut changes = range.changes::<NetworkView>(&networks).await?;
    changes.extend(range.changes::<VmView>(&vms).await?);
    changes.extend(range.changes::<NodeView>(&nodes).await?);
    let Range { mut client, between, .. } = range;
    let events = &between.events;
    let about = |id: &Uuid| between.about.get(id).into_iter().flatten().filter_map(|index| events.get(*index));
    let change = |Compared { resource, id, name, change, fields }| Change {
        resource,
        id,
        name,
        change,
        fields,
        events: about(&id).collect(),
    };
    let changes: Vec<Change<'_>> = changes.into_iter().map(change).collect();
    if output == Format::Json {
        return printer.data(&Difference { from, to, changes });
    }
    let mut lines = Lines::default();
    client.look_at(None);
    lines.names.learn(events, &mut client).await;
    let mut text: String = changes.iter().map(|change| change.text(&mut lines)).collect();
    if text.is_empty() {
        text = format!("nothing has changed between positions {from} and {to}\n");
    }
    printer.text(&text)
}

/// The NICs of VMs: outcomes name these only.
fn nics(vms: &[BTreeMap<Uuid, VmView>; 2]) -> BTreeMap<Uuid, Uuid> {
    let nic = |vm: &VmView| Some((vm.nic.as_ref()?.id.uuid(), vm.id.uuid()));
    vms.iter().flat_map(BTreeMap::values).filter_map(nic).collect()
}

/// Two moments, and how the control plane is asked about them.
struct Range {
    from: Position,
    to: Position,
    client: ControlPlaneClient,
    between: Between,
}

/// A change before its events are added.
struct Compared {
    resource: &'static str,
    id: Uuid,
    name: String,
    change: ChangeKind,
    fields: Vec<FieldChange>,
}

impl Range {
    /// All resources of a kind at both moments.
    async fn lists<R: Resource>(
        &mut self,
        request: impl Fn(PageRequest) -> <R::List as RequestType>::Body,
    ) -> Result<[BTreeMap<Uuid, R>; 2], Failure> {
        let mut lists = [BTreeMap::new(), BTreeMap::new()];
        for (at, list) in [self.from, self.to].into_iter().zip(&mut lists) {
            self.client.look_at(Some(AsOf::Position(at)));
            let views = all_pages::<R>(&mut self.client, &request).await?;
            list.extend(views.into_iter().map(|view| (view.id(), view)));
        }
        Ok(lists)
    }

    /// What has changed in the resources of a kind.
    async fn changes<R: Resource>(&mut self, lists: &[BTreeMap<Uuid, R>; 2]) -> Result<Vec<Compared>, Failure> {
        let [before, after] = lists;
        let ids: BTreeSet<Uuid> = before.keys().chain(after.keys()).copied().collect();
        let mut changes = Vec::new();
        for id in ids {
            let compared = |name: &str, change, fields| Compared {
                resource: R::COMMAND,
                id,
                name: name.to_owned(),
                change,
                fields,
            };
            match (before.get(&id), after.get(&id)) {
                (Some(view), None) => changes.push(compared(view.name(), ChangeKind::Removed, Vec::new())),
                (None, Some(view)) => {
                    let fields = fields::changes(&Value::Null, &value(view));
                    changes.push(compared(view.name(), ChangeKind::Added, fields));
                }
                (Some(then), Some(now)) => {
                    // A list does not show everything; what no event is about and the list shows alike is the same.
                    let is_equal = fields::changes(&value(then), &value(now)).is_empty();
                    if is_equal && !self.between.about.contains_key(&id) {
                        continue;
                    }
                    let (then, now) = (self.view::<R>(id, self.from).await?, self.view::<R>(id, self.to).await?);
                    let fields = fields::changes(&then, &now);
                    if !fields.is_empty() {
                        changes.push(compared(before.get(&id).map_or("", R::name), ChangeKind::Changed, fields));
                    }
                }
                (None, None) => {}
            }
        }
        Ok(changes)
    }

    async fn view<R: Resource>(&mut self, id: Uuid, at: Position) -> Result<Value, Failure> {
        self.client.renew();
        self.client.look_at(Some(AsOf::Position(at)));
        match NameOrId::Id(id).look_up::<R>(&mut self.client).await {
            Ok(view) => Ok(value(&view)),
            Err(failure) if failure.exit == Exit::NotFound => Ok(Value::Null),
            Err(failure) => Err(failure),
        }
    }
}

fn value(view: &impl Serialize) -> Value {
    serde_json::to_value(view).unwrap_or_default()
}

impl Between {
    /// Finds out which resources each event is about. `nics` has the VMs of NICs.
    fn assign(&mut self, nics: &BTreeMap<Uuid, Uuid>) {
        let mut nics = nics.clone();
        for (index, event) in self.events.iter().enumerate() {
            let ids: BTreeSet<Uuid> = subjects(event, &mut nics).into_iter().collect();
            for id in ids {
                self.about.entry(id).or_default().push(index);
            }
        }
    }
}

/// The ids of the networks, VMs and nodes that an event is about.
fn subjects(event: &Value, nics: &mut BTreeMap<Uuid, Uuid>) -> Vec<Uuid> {
    let id = |value: Option<&Value>| value.and_then(Value::as_str)?.parse::<Uuid>().ok();
    let data = event.get("data");
    let field = |name: &str| id(data.and_then(|data| data.get(name)));
    if let Some(results) = data.and_then(|data| data.get("results")).and_then(Value::as_array) {
        let about = |result: &Value| {
            let of_nic = || nics.get(&id(result.get("nic_id"))?).copied();
            id(result.get("network_id")).or_else(of_nic)
        };
        return results.iter().filter_map(about).collect();
    }
    let subject = event.get("subject").and_then(Value::as_str).unwrap_or_default();
    match subject.split_once('/') {
        Some(("nic", nic)) => {
            let nic = nic.parse().ok();
            if let (Some(nic), Some(vm)) = (nic, field("vm_id")) {
                nics.insert(nic, vm);
            }
            nic.and_then(|nic| nics.get(&nic).copied()).into_iter().collect()
        }
        Some(("network" | "vm" | "node", id)) => id.parse().ok().into_iter().collect(),
        Some(_) | None => Vec::new(),
    }
}

impl Change<'_> {
    fn text(&self, lines: &mut Lines) -> String {
        let Self { resource, name, change, fields, events, .. } = self;
        let sign = match change {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Changed => '~',
        };
        let mut text = format!("{sign} {resource} {}\n", clean(name));
        for change in fields {
            text.push_str(&format!("    {}\n", clean(&change.to_string())));
        }
        let skipped = events.len().saturating_sub(EVENTS_MAX);
        if skipped > 0 {
            text.push_str(&format!("  {skipped} earlier events are not shown\n"));
        }
        for event in events.iter().skip(skipped) {
            text.push_str(&format!("  {}\n", lines.line(event)));
        }
        text
    }
}
