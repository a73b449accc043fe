//! Reads and validates documents as manifests.

use std::collections::BTreeMap;

use otherix_schemas::value::{Metadata, NetworkName};
use otherix_schemas::violations::Violations;

use super::fields::{MappingFields, is_null, quoted};
use super::kind::{API_VERSION, KindEntry, ManifestTarget, key};
use super::problem::{ProblemScope, Problems};
use super::source::Source;
use super::suggest::nearest;
use super::yaml::{self, YamlDocument, YamlNode, YamlValue};

const DOCUMENT_FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
const METADATA_FIELDS: &[&str] = &["name", "description", "labels"];

/// A manifest without problems.
pub(super) struct Manifest {
    /// The file as the user named it.
    pub(super) file: String,
    /// The number of the document in the file, from 1.
    pub(super) document: usize,
    /// The line where the document's content begins, from 1.
    pub(super) line: usize,
    /// The line of its name.
    name_line: usize,
    pub(super) kind: &'static KindEntry,
    /// The position of its kind in the table: resources are created in this order.
    pub(super) order: usize,
    pub(super) name: String,
    pub(super) target: Box<dyn ManifestTarget>,
}

/// Reads the documents of all sources. Empty ones are ignored, unless there is no other. Manifests are to be used
/// only if there are no problems.
pub(super) fn read_all(sources: &[Source], kinds: &'static [KindEntry], problems: &mut Problems) -> Vec<Manifest> {
    let mut manifests: Vec<Manifest> = Vec::new();
    let first = problems.len();
    // Where each resource is defined first, by kind and key of the name.
    let mut definitions: BTreeMap<(usize, String), String> = BTreeMap::new();
    for source in sources {
        let before = problems.len();
        let mut scope = ProblemScope::of(&source.name, problems);
        for document in &yaml::documents(&source.text, &mut scope) {
            let Some(manifest) = read(document, kinds, &mut scope) else { continue };
            let Manifest { name, kind, order, .. } = &manifest;
            let location = format!("{}:{}", manifest.file, manifest.line);
            let resource = (*order, key(name));
            match definitions.get(&resource) {
                Some(first) => {
                    let message = format!("{} `{name}` is defined twice, first at {first}", kind.noun);
                    scope.field(manifest.name_line, "metadata.name", message);
                }
                None => drop(definitions.insert(resource, location)),
            }
            manifests.push(manifest);
        }
        problems.sort(before);
    }
    if manifests.is_empty() && problems.len() == first {
        for source in sources {
            ProblemScope::of(&source.name, problems).file("contains no document");
        }
    }
    manifests
}

/// Reads a document, unless it is empty. All its problems are added to the scope.
fn read(document: &YamlDocument, kinds: &'static [KindEntry], scope: &mut ProblemScope<'_>) -> Option<Manifest> {
    scope.document = Some(document.number);
    let root = &document.root;
    if is_null(root) {
        return None;
    }
    let paths = intended_kind(root, kinds).or(kinds.first()).map(field_paths).unwrap_or_default();
    let mut top = MappingFields::of(root, "", DOCUMENT_FIELDS, &paths, scope);
    top.required("apiVersion", scope);
    if let Some(version) = top.string("apiVersion", scope).filter(|version| version != API_VERSION) {
        top.violates("apiVersion", format!("must be `{API_VERSION}`, not `{}`", quoted(&version)), scope);
    }
    let kind = read_kind(&mut top, kinds, scope);
    let metadata = read_metadata(&mut top, &paths, scope);
    let (kind, spec) = kind.zip(top.required("spec", scope))?;
    // It was checked above; an invalid name must not hide the problems of the spec.
    let unnamed = || ManifestMetadata { name: "unnamed".to_owned(), ..ManifestMetadata::default() };
    let valid = metadata.as_ref().map_or_else(unnamed, |(_, metadata)| metadata.clone());
    let target = {
        let mut fields = MappingFields::of(spec, "spec.", kind.fields, &paths, scope);
        (kind.read)(valid, &mut fields, scope)
    };
    let (name_line, ManifestMetadata { name, .. }) = metadata?;
    let order = kinds.iter().position(|other| other.name == kind.name)?;
    let (file, document, line) = (scope.file.to_owned(), document.number, root.line);
    Some(Manifest { file, document, line, name_line, kind, order, name, target })
}

/// The paths of all fields of a manifest of this kind, for suggestions.
fn field_paths(kind: &KindEntry) -> Vec<String> {
    let fields = kind.fields.iter().map(|field| format!("spec.{field}"));
    ["apiVersion", "kind", "metadata.name", "metadata.description", "metadata.labels"]
        .map(str::to_owned)
        .into_iter()
        .chain(fields)
        .collect()
}

fn read_kind(
    top: &mut MappingFields<'_>,
    kinds: &'static [KindEntry],
    scope: &mut ProblemScope<'_>,
) -> Option<&'static KindEntry> {
    let text = top.required("kind", scope).and_then(|_| top.string("kind", scope))?;
    let kind = find_kind(&text, kinds);
    if kind.is_none_or(|kind| kind.name != text) {
        let names = kinds.iter().map(|kind| format!("`{}`", kind.name)).collect::<Vec<_>>().join(" or ");
        let suggestion = kind.map(|kind| format!("; did you mean `{}`?", kind.name)).unwrap_or_default();
        top.violates("kind", format!("must be {names}, not `{}`{suggestion}", quoted(&text)), scope);
    }
    // The intended kind is known, so the problems of the spec can be reported.
    kind
}

/// The kind with this name, or a similar one.
fn find_kind(text: &str, kinds: &'static [KindEntry]) -> Option<&'static KindEntry> {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let name = nearest(text, &names)?;
    kinds.iter().find(|kind| kind.name == name)
}

/// The kind that a document is probably meant to be.
fn intended_kind(root: &YamlNode, kinds: &'static [KindEntry]) -> Option<&'static KindEntry> {
    let YamlValue::Map(entries) = &root.value else { return None };
    let (text, _) = entries.iter().find(|entry| entry.key == "kind")?.node.value.scalar()?;
    find_kind(text, kinds)
}

/// What a manifest says about its resource, besides its spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ManifestMetadata {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

/// The metadata, and the line of the name.
fn read_metadata(
    top: &mut MappingFields<'_>,
    paths: &[String],
    scope: &mut ProblemScope<'_>,
) -> Option<(usize, ManifestMetadata)> {
    let metadata = top.required("metadata", scope)?;
    let mut fields = MappingFields::of(metadata, "metadata.", METADATA_FIELDS, paths, scope);
    fields.required("name", scope);
    let description = fields.string("description", scope);
    let labels = fields.labels("labels", scope);
    let mut violations = Violations::default();
    Metadata::check(description.as_deref(), labels.as_ref(), &mut violations);
    fields.report_violations(&violations, scope);
    let name = fields.string("name", scope)?;
    NetworkName::violations(&name).for_each(|rule| fields.violates("name", rule.to_string(), scope));
    let name = NetworkName::parse(&name).ok()?.to_string();
    Some((fields.line("name"), ManifestMetadata { name, description, labels }))
}
