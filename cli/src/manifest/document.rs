//! What a manifest says: which kinds there are, which fields they have. Whoever needs a manifest's form, to read or to write
//! one, finds it here.

use otherix_schemas::network::NetworkDraft;
use otherix_schemas::rules;
use otherix_schemas::value::{Ipv4Subnet, NetworkName};
use otherix_schemas::violations::Violations;

use super::fields::{Fields, is_null, quoted};
use super::problem::Scope;
use super::suggest::nearest;
use super::yaml::{Document, Node};

/// The only version of manifests there is.
pub(crate) const API_VERSION: &str = "otherix/v1";

/// The kind of a network.
pub(crate) const NETWORK: &str = "Network";

/// The kind of a VM.
const VM: &str = "VM";

const DOCUMENT_FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
const METADATA_FIELDS: [&str; 1] = ["name"];
const NETWORK_FIELDS: [&str; 8] = ["type", "bridgeName", "managed", "egress", "subnet", "gateway", "mtu", "vlan"];
const VM_FIELDS: [&str; 3] = ["imageURL", "arch", "network"];

/// Where a field may have been meant to be, if not where it is.
const PLACES: [&str; 11] = [
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

/// A network that a manifest describes; it breaks no rule that is known here.
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
    pub(super) draft: NetworkDraft,
}

/// Reads a document; every problem of it is noted. A manifest that comes out is only good if none was.
pub(super) fn read(document: &Document, scope: &mut Scope<'_>) -> Option<Manifest> {
    scope.document = Some(document.number);
    let root = &document.root;
    if is_null(root) {
        scope.place(root.line, format!("document {} is empty", document.number));
        return None;
    }
    let mut top = Fields::of(root, "", &DOCUMENT_FIELDS, &PLACES, scope);
    top.required("apiVersion", scope);
    if let Some(version) = top.text("apiVersion", scope).filter(|version| version != API_VERSION) {
        top.breaks("apiVersion", format!("must be `{API_VERSION}`, not `{}`", quoted(&version)), scope);
    }
    let kind = kind(&mut top, scope);
    let name = name(&mut top, scope);
    let spec = top.required("spec", scope);
    match (kind, spec) {
        (Some(Kind::Network), Some(spec)) => network(spec, name, scope).map(|(name_line, draft)| Manifest {
            file: scope.file.to_owned(),
            document: document.number,
            line: root.line,
            name_line,
            draft,
        }),
        (Some(Kind::Vm), spec) => {
            if let Some(spec) = spec {
                vm(spec, scope);
            }
            top.breaks("kind", "there are no VMs in this version of otherix, only networks", scope);
            None
        }
        (Some(Kind::Network) | None, _) => None,
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Network,
    Vm,
}

fn kind(top: &mut Fields<'_>, scope: &mut Scope<'_>) -> Option<Kind> {
    top.required("kind", scope);
    let text = top.text("kind", scope)?;
    match text.as_str() {
        NETWORK => Some(Kind::Network),
        VM => Some(Kind::Vm),
        other => {
            let near = nearest(other, &[NETWORK, VM]);
            let meant = near.map(|kind| format!("; did you mean `{kind}`?")).unwrap_or_default();
            top.breaks("kind", format!("must be `{NETWORK}` or `{VM}`, not `{}`{meant}", quoted(other)), scope);
            // What is meant is clear enough to say what else is wrong.
            near.filter(|kind| *kind == NETWORK).map(|_| Kind::Network)
        }
    }
}

/// The name, and its line.
fn name(top: &mut Fields<'_>, scope: &mut Scope<'_>) -> Option<(usize, String)> {
    let metadata = top.required("metadata", scope)?;
    let mut fields = Fields::of(metadata, "metadata.", &METADATA_FIELDS, &PLACES, scope);
    fields.required("name", scope);
    let name = fields.text("name", scope)?;
    NetworkName::faults(&name).for_each(|rule| fields.breaks("name", rule.to_string(), scope));
    NetworkName::parse(&name).ok().map(|name| (fields.line("name"), name.to_string()))
}

fn network(spec: &Node, name: Option<(usize, String)>, scope: &mut Scope<'_>) -> Option<(usize, NetworkDraft)> {
    let mut fields = Fields::of(spec, "spec.", &NETWORK_FIELDS, &PLACES, scope);
    let draft = NetworkDraft {
        // The rule about names was checked, and one that is no name must not hide what else is wrong.
        name: name.as_ref().map_or("unnamed", |(_, name)| name).to_owned(),
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
    let broken =
        rules::check(&draft, None).is_err().then(|| rules::check(&draft, Some(Ipv4Subnet::DEFAULT_MESH)).err());
    let violations = broken.flatten().unwrap_or_default();
    for (field, rule) in with_fields(&violations) {
        if !fields.has_spoken_of(field) {
            fields.breaks(field, rule, scope);
        }
    }
    name.map(|(line, _)| (line, draft))
}

/// For a field that must be one of some words, and was not understood: none of them, so that nothing follows from it.
fn broken(fields: &Fields<'_>, name: &str) -> Option<String> {
    fields.has_spoken_of(name).then(String::new)
}

/// The rules of the request that are broken, with the manifest's names of the fields.
fn with_fields(violations: &Violations) -> impl Iterator<Item = (&str, &str)> {
    violations.iter().map(|(field, rule)| (if field == "bridge_name" { "bridgeName" } else { field }, rule))
}

fn vm(spec: &Node, scope: &mut Scope<'_>) {
    let mut fields = Fields::of(spec, "spec.", &VM_FIELDS, &PLACES, scope);
    fields.required("imageURL", scope);
    if fields.text("imageURL", scope).is_some_and(|url| url.trim().is_empty()) {
        fields.breaks("imageURL", "must not be empty", scope);
    }
    fields.required("arch", scope);
    if let Some(arch) = fields.text("arch", scope).filter(|arch| !["amd64", "arm64"].contains(&arch.as_str())) {
        fields.breaks("arch", format!("must be `amd64` or `arm64`, not `{}`", quoted(&arch)), scope);
    }
    if fields.text("network", scope).is_some_and(|network| network.trim().is_empty()) {
        fields.breaks("network", "must not be empty", scope);
    }
}
