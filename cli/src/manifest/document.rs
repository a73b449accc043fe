//! What a manifest says: which kinds there are, which fields they have. Whoever needs a manifest's form, to read or to write
//! one, finds it here.

use otherix_schemas::network::{NetworkDraft, NetworkView};
use otherix_schemas::value::{Ipv4Subnet, NetworkName};
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmView;

use super::fields::{Fields, is_null, quoted};
use super::problem::Scope;
use super::suggest::nearest;
use super::yaml::{Document, Node, Value};
use crate::thing::Thing;
use crate::vm::WantedVm;

/// The only version of manifests there is.
pub(crate) const API_VERSION: &str = "otherix/v1";

/// The kind of a network.
pub(crate) const NETWORK: &str = "Network";

/// The kind of a VM.
pub(crate) const VM: &str = "VM";

const DOCUMENT_FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
const METADATA_FIELDS: [&str; 1] = ["name"];
const NETWORK_FIELDS: [&str; 8] = ["type", "bridgeName", "managed", "egress", "subnet", "gateway", "mtu", "vlan"];
const VM_FIELDS: [&str; 4] = ["imageURL", "arch", "network", "node"];

/// Where a field of a network's manifest may have been meant to be, if not where it is.
const NETWORK_PLACES: [&str; 11] = [
    "apiVersion",
    "kind",
    "metadata.name",
    "spec.type",
    "spec.bridgeName",
    "spec.managed",
    "spec.egress",
    "spec.subnet",
    "spec.gateway",
    "spec.mtu",
    "spec.vlan",
];

/// The same for a VM's.
const VM_PLACES: [&str; 7] =
    ["apiVersion", "kind", "metadata.name", "spec.imageURL", "spec.arch", "spec.network", "spec.node"];

/// What a manifest describes; it breaks no rule that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The file as it was named.
    pub(super) file: String,
    /// The document in it, from 1.
    pub(super) document: usize,
    /// Where the document's content begins, from 1.
    pub(super) line: usize,
    /// Where its name is.
    pub(super) name_line: usize,
    /// What is asked for.
    pub(super) wanted: Wanted,
}

/// What is asked for, in the order in which it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Network(NetworkDraft),
    Vm(WantedVm),
}

impl Wanted {
    /// Its kind.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Network(_) => Kind::Network,
            Self::Vm(_) => Kind::Vm,
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Network(draft) => &draft.name,
            Self::Vm(vm) => &vm.name,
        }
    }
}

/// The kinds of manifests, in the order in which what they describe is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Network,
    Vm,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Network, Self::Vm];

    /// As manifests write it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Network => NETWORK,
            Self::Vm => VM,
        }
    }

    /// As sentences write it.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Network => NetworkView::WHAT,
            Self::Vm => VmView::WHAT,
        }
    }

    fn places(self) -> &'static [&'static str] {
        match self {
            Self::Network => &NETWORK_PLACES,
            Self::Vm => &VM_PLACES,
        }
    }
}

/// Reads a document; every problem of it is noted. A manifest that comes out is only good if none was.
pub(super) fn read(document: &Document, scope: &mut Scope<'_>) -> Option<Manifest> {
    scope.document = Some(document.number);
    let root = &document.root;
    if is_null(root) {
        scope.place(root.line, format!("document {} is empty", document.number));
        return None;
    }
    let places = meant(root).unwrap_or(Kind::Network).places();
    let mut top = Fields::of(root, "", &DOCUMENT_FIELDS, places, scope);
    top.required("apiVersion", scope);
    if let Some(version) = top.text("apiVersion", scope).filter(|version| version != API_VERSION) {
        top.breaks("apiVersion", format!("must be `{API_VERSION}`, not `{}`", quoted(&version)), scope);
    }
    let kind = kind(&mut top, scope);
    let name = name(&mut top, places, scope);
    let (kind, spec) = kind.zip(top.required("spec", scope))?;
    // The rule about names was checked, and one that is no name must not hide what else is wrong.
    let called = name.as_ref().map_or("unnamed", |(_, name)| name).to_owned();
    let wanted = match kind {
        Kind::Network => Wanted::Network(network(spec, called, scope)),
        Kind::Vm => Wanted::Vm(vm(spec, called, scope)),
    };
    let (name_line, _) = name?;
    Some(Manifest { file: scope.file.to_owned(), document: document.number, line: root.line, name_line, wanted })
}

fn kind(top: &mut Fields<'_>, scope: &mut Scope<'_>) -> Option<Kind> {
    let text = top.required("kind", scope).and_then(|_| top.text("kind", scope))?;
    let (kind, exact) = spelt(&text).map_or((None, false), |(kind, exact)| (Some(kind), exact));
    if !exact {
        let meant = kind.map(|kind| format!("; did you mean `{}`?", kind.as_str())).unwrap_or_default();
        top.breaks("kind", format!("must be `{NETWORK}` or `{VM}`, not `{}`{meant}", quoted(&text)), scope);
    }
    // What is meant is clear enough to say what else is wrong.
    kind
}

/// The kind that a text stands for, and whether it is spelt as it must be.
fn spelt(text: &str) -> Option<(Kind, bool)> {
    let near = nearest(text, &Kind::ALL.map(Kind::as_str))?;
    Kind::ALL.into_iter().find(|kind| kind.as_str() == near).map(|kind| (kind, near == text))
}

/// The kind that a document is meant to be.
fn meant(root: &Node) -> Option<Kind> {
    let Value::Map(entries) = &root.value else { return None };
    let (text, _) = entries.iter().find(|entry| entry.key == "kind")?.node.value.scalar()?;
    spelt(text).map(|(kind, _)| kind)
}

/// The name, and its line.
fn name(top: &mut Fields<'_>, places: &[&'static str], scope: &mut Scope<'_>) -> Option<(usize, String)> {
    let metadata = top.required("metadata", scope)?;
    let mut fields = Fields::of(metadata, "metadata.", &METADATA_FIELDS, places, scope);
    fields.required("name", scope);
    let name = fields.text("name", scope)?;
    NetworkName::violations(&name).for_each(|rule| fields.breaks("name", rule.to_string(), scope));
    NetworkName::parse(&name).ok().map(|name| (fields.line("name"), name.to_string()))
}

fn network(spec: &Node, name: String, scope: &mut Scope<'_>) -> NetworkDraft {
    let mut fields = Fields::of(spec, "spec.", &NETWORK_FIELDS, &NETWORK_PLACES, scope);
    let draft = NetworkDraft {
        name,
        kind: fields.text("type", scope).or_else(|| broken(&fields, "type")),
        bridge_name: fields.text("bridgeName", scope),
        managed: fields.truth("managed", scope).or_else(|| fields.has_spoken_of("managed").then_some(true)),
        egress: fields.text("egress", scope).or_else(|| broken(&fields, "egress")),
        subnet: fields.text("subnet", scope),
        gateway: fields.text("gateway", scope),
        mtu: fields.number("mtu", scope),
        vlan: fields.number("vlan", scope),
    };
    // As for `network create`: only the control plane knows the mesh; whether its rule alone is broken is for it to say.
    let broken = draft.check(None).is_err().then(|| draft.check(Some(Ipv4Subnet::DEFAULT_MESH)).err());
    tell(&broken.flatten().unwrap_or_default(), &fields, scope);
    draft
}

fn vm(spec: &Node, name: String, scope: &mut Scope<'_>) -> WantedVm {
    let mut fields = Fields::of(spec, "spec.", &VM_FIELDS, &VM_PLACES, scope);
    let wanted = WantedVm {
        name,
        image_url: fields.text("imageURL", scope),
        arch: fields.text("arch", scope),
        network: fields.text("network", scope),
        node: fields.text("node", scope),
    };
    tell(&wanted.violations(), &fields, scope);
    wanted
}

/// Notes the rules of the request that are broken, with the manifest's names of the fields.
fn tell(violations: &Violations, fields: &Fields<'_>, scope: &mut Scope<'_>) {
    for (field, rule) in violations.iter() {
        let field = match field {
            "bridge_name" => "bridgeName",
            "image_url" => "imageURL",
            other => other,
        };
        if !fields.has_spoken_of(field) {
            fields.breaks(field, rule, scope);
        }
    }
}

/// For a field that must be one of some words, and was not understood: none of them, so that nothing follows from it.
fn broken(fields: &Fields<'_>, name: &str) -> Option<String> {
    fields.has_spoken_of(name).then(String::new)
}
