//! The kinds of manifests. A resource implements [`ManifestKind`]; [`KindEntry`] is its entry in the table of kinds,
//! and hides the types of its definition and view.

use std::any::Any;
use std::collections::BTreeSet;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::request::RequestType;
use otherix_schemas::value::NetworkName;
use serde_json::{Value, json};

use super::fields::MappingFields;
use super::problem::ProblemScope;
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::yaml::scalar;
use crate::resource::{NameOrId, Provisioned, create};

/// The version of the manifest format.
pub(super) const API_VERSION: &str = "otherix/v1";

/// A resource that manifests describe.
pub(crate) trait ManifestKind: Provisioned + 'static {
    /// The value of `kind`.
    const KIND: &'static str;
    /// The fields of `spec`.
    const FIELDS: &'static [&'static str];
    /// `metadata` and `spec` of an example for the help.
    const EXAMPLE: &'static str;
    /// The resource's definition, as read from `spec`.
    type Definition: 'static;

    /// Reads `spec`. Problems are added to the scope; the definition is used only if there are none.
    fn read(name: String, fields: &mut MappingFields<'_>, scope: &mut ProblemScope<'_>) -> Self::Definition;
    /// Returns the request, with names replaced by ids.
    async fn request(
        definition: &Self::Definition,
        client: &mut ControlPlaneClient,
    ) -> Result<<Self::Create as RequestType>::Body, Failure>;
    /// Checks for a dry run that the resources which the definition refers to exist, or are `planned`.
    async fn check_references(
        definition: &Self::Definition,
        planned: &DryRunResources,
        client: &mut ControlPlaneClient,
    ) -> Result<(), Failure>;
    /// The fields of `spec` that create an equal resource, with their values in YAML.
    fn spec(&self) -> Vec<(&'static str, String)>;
}

/// The manifest that creates an equal resource.
pub(crate) fn write<K: ManifestKind>(view: &K) -> String {
    let (kind, name) = (K::KIND, scalar(view.name()));
    let spec: String = view.spec().iter().map(|(field, value)| format!("  {field}: {value}\n")).collect();
    format!("apiVersion: {API_VERSION}\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{spec}")
}

/// The key of a name, for comparison. The names of all resources follow the same rules.
pub(super) fn key(name: &str) -> String {
    NetworkName::parse(name).map(|name| name.key()).unwrap_or_default()
}

/// The resources that a dry run would have created so far.
#[derive(Default)]
pub(crate) struct DryRunResources(BTreeSet<(&'static str, String)>);

impl DryRunResources {
    /// Whether a resource of this kind and name would exist.
    pub(crate) fn contains<K: ManifestKind>(&self, name: &str) -> bool {
        self.0.contains(&(K::KIND, key(name)))
    }

    pub(super) fn insert(&mut self, kind: &KindEntry, name: &str) {
        self.0.insert((kind.name, key(name)));
    }
}

/// An entry in the table of kinds.
pub(crate) struct KindEntry {
    /// As manifests spell it.
    pub(super) name: &'static str,
    /// The noun in sentences.
    pub(super) noun: &'static str,
    /// The key of its view in JSON reports.
    pub(super) view_key: &'static str,
    pub(super) fields: &'static [&'static str],
    pub(super) example: &'static str,
    /// A note for the user after a creation.
    pub(super) note: Option<&'static str>,
    pub(super) read: fn(String, &mut MappingFields<'_>, &mut ProblemScope<'_>) -> Box<dyn ManifestTarget>,
}

impl KindEntry {
    /// The entry for a resource.
    pub(crate) const fn of<K: ManifestKind>() -> Self {
        Self {
            name: K::KIND,
            noun: K::NOUN,
            view_key: K::COMMAND,
            fields: K::FIELDS,
            example: K::EXAMPLE,
            note: K::NOTE,
            read: |name, fields, scope| {
                let definition = K::read(name.clone(), fields, scope);
                Box::new(TypedTarget::<K> { name, definition })
            },
        }
    }
}

/// The resource that a manifest defines. Views are returned as JSON.
pub(super) trait ManifestTarget: Any {
    /// Creates it.
    fn create<'a>(&'a self, client: &'a mut ControlPlaneClient) -> LocalBoxFuture<'a, Result<Value, Failure>>;
    /// Checks for a dry run that its name is free, and that the resources it refers to exist or are planned. Fails as a
    /// creation would.
    fn check_creation<'a>(
        &'a self,
        planned: &'a DryRunResources,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<(), Failure>>;
    /// Looks it up by name.
    fn find<'a>(&'a self, client: &'a mut ControlPlaneClient) -> LocalBoxFuture<'a, Result<Value, Failure>>;
    /// Looks it up by name and deletes it.
    fn delete<'a>(&'a self, client: &'a mut ControlPlaneClient) -> LocalBoxFuture<'a, Result<Value, Failure>>;
}

/// A [`ManifestTarget`] of one kind.
pub(super) struct TypedTarget<K: ManifestKind> {
    name: String,
    pub(super) definition: K::Definition,
}

impl<K: ManifestKind> TypedTarget<K> {
    async fn look_up(&self, client: &mut ControlPlaneClient) -> Result<K, Failure> {
        NameOrId::Name(self.name.clone()).look_up_live(client).await
    }
}

impl<K: ManifestKind> ManifestTarget for TypedTarget<K> {
    fn create<'a>(&'a self, client: &'a mut ControlPlaneClient) -> LocalBoxFuture<'a, Result<Value, Failure>> {
        async move {
            let request = K::request(&self.definition, client).await?;
            let created = create::send::<K>(client, &request).await?;
            Ok(json!(created))
        }
        .boxed_local()
    }

    fn check_creation<'a>(
        &'a self,
        planned: &'a DryRunResources,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<(), Failure>> {
        async move {
            match self.look_up(client).await {
                Ok(view) => {
                    let message = format!("{} `{}` exists already, as `{}`", K::NOUN, view.name(), view.id());
                    return Err(Failure::new(Exit::Conflict, ErrorCode::Conflict, message));
                }
                Err(failure) if failure.exit == Exit::NotFound => {}
                Err(failure) => return Err(failure),
            }
            K::check_references(&self.definition, planned, client).await
        }
        .boxed_local()
    }

    fn find<'a>(&'a self, client: &'a mut ControlPlaneClient) -> LocalBoxFuture<'a, Result<Value, Failure>> {
        async move { Ok(json!(self.look_up(client).await?)) }.boxed_local()
    }

    fn delete<'a>(&'a self, client: &'a mut ControlPlaneClient) -> LocalBoxFuture<'a, Result<Value, Failure>> {
        async move {
            let view = self.look_up(client).await?;
            let deleted: K = client.call::<K::Delete>(&K::by_id(view.id())).await?.data;
            Ok(json!(deleted))
        }
        .boxed_local()
    }
}
