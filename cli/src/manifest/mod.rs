//! `otherix create -f` and `otherix delete -f`: what manifests describe, made and unmade. The way: all files are read
//! ([`source`]), parsed ([`yaml`]), understood and checked ([`document`]); only if nothing at all is wrong with any of them is
//! anything sent ([`apply`]).

mod apply;
mod document;
mod fields;
mod problem;
mod source;
mod suggest;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use otherix_schemas::value::NetworkName;

pub(crate) use apply::{Action, run};
pub(crate) use document::{API_VERSION, NETWORK, VM};
pub(crate) use problem::told;

use crate::failure::Failure;
use document::{Kind, Manifest};
use problem::{Problems, Scope};
use source::Source;

/// The manifests in all files, in their order; or all that is wrong with them.
fn load(files: &[PathBuf]) -> Result<Vec<Manifest>, Failure> {
    let mut problems = Problems::default();
    let sources = source::read(files, &mut problems);
    let manifests = understand(&sources, &mut problems);
    problems.into_result().map(|()| manifests)
}

fn understand(sources: &[Source], problems: &mut Problems) -> Vec<Manifest> {
    let mut manifests: Vec<Manifest> = Vec::new();
    // Where something was described, by its kind and the key under which its name is unique there.
    let mut places: BTreeMap<(Kind, String), String> = BTreeMap::new();
    for source in sources {
        let before = problems.len();
        let mut scope = Scope { file: &source.name, document: None, problems };
        let documents = yaml::documents(&source.text, &mut scope);
        for document in &documents {
            let Some(manifest) = document::read(document, &mut scope) else { continue };
            let place = format!("{}:{}", manifest.file, manifest.line);
            let (kind, name) = (manifest.wanted.kind(), manifest.wanted.name());
            let key = (kind, key(name));
            match places.get(&key) {
                Some(first) => {
                    let message = format!("{} `{name}` is described twice, first at {first}", kind.what());
                    scope.field(manifest.name_line, "metadata.name", message);
                }
                None => drop(places.insert(key, place)),
            }
            manifests.push(manifest);
        }
        if documents.is_empty() && scope.problems.len() == before {
            scope.document = None;
            scope.whole("there is no document in it");
        }
        problems.sort(before);
    }
    manifests
}

/// The key under which a name is unique: those of networks and of VMs follow the same rules.
fn key(name: &str) -> String {
    NetworkName::parse(name).map(|name| name.key()).unwrap_or_default()
}
