//! The kinds of manifests. A resource implements [`ManifestKind`]; [`KindEntry`] is its entry in the table of kinds,
//! and hides the types of its definition and view.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use otherix_schemas::change::{Applied, ChangeResult, FieldChange};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::request::{PageRequest, RequestType};
use otherix_schemas::value::{Metadata, NetworkName};
use serde_json::{Value, json};
use uuid::Uuid;

use super::document::ManifestMetadata;
use super::fields::MappingFields;
use super::problem::ProblemScope;
use super::prune::{self, Existing, PruneAnswer};
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::output::Printer;
use crate::output::yaml::scalar;
use crate::resource::{NameOrId, Provisioned, create, wait};

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
    type Definition: Clone + 'static;

    /// Reads `spec`. Problems are added to the scope; the definition is used only if there are none.
    fn read(
        metadata: ManifestMetadata,
        fields: &mut MappingFields<'_>,
        scope: &mut ProblemScope<'_>,
    ) -> Self::Definition;
    /// Returns the request, with names replaced by ids.
    async fn request(
        definition: &Self::Definition,
        client: &mut ControlPlaneClient,
    ) -> Result<<Self::Create as RequestType>::Body, Failure>;
    /// Returns the request for a dry run, without what only a resource that is `planned` will have.
    ///
    /// # Errors
    /// As [`ManifestKind::request`], and if the definition conflicts with a planned resource.
    async fn planned_request(
        definition: &Self::Definition,
        planned: &DryRunResources,
        client: &mut ControlPlaneClient,
    ) -> Result<<Self::Create as RequestType>::Body, Failure>;
    /// Creates the resource, changes it, or does nothing; with `planned`, only asks what would be done.
    async fn apply(
        definition: &Self::Definition,
        planned: Option<&DryRunResources>,
        client: &mut ControlPlaneClient,
    ) -> Result<Applied<Self>, Failure>;
    /// The request for a page of the list.
    fn page(page: PageRequest) -> <Self::List as RequestType>::Body;
    /// The fields of `spec` that create an equal resource, with their values in YAML.
    fn spec(&self) -> Vec<(&'static str, String)>;
    /// What people say about it.
    fn metadata(&self) -> Metadata {
        Metadata::default()
    }
}

/// The manifest that creates an equal resource.
pub(crate) fn write<K: ManifestKind>(view: &K) -> String {
    let (kind, name) = (K::KIND, scalar(view.name()));
    let spec: String = view.spec().iter().map(|(field, value)| format!("  {field}: {value}\n")).collect();
    let Metadata { description, labels } = view.metadata();
    let mut metadata = format!("  name: {name}\n");
    metadata.extend(description.map(|text| format!("  description: {}\n", scalar(text.as_str()))));
    if !labels.is_empty() {
        metadata.push_str("  labels:\n");
        metadata.extend(labels.iter().map(|(key, value)| format!("    {}: {}\n", scalar(key), scalar(value))));
    }
    format!("apiVersion: {API_VERSION}\nkind: {kind}\nmetadata:\n{metadata}spec:\n{spec}")
}

/// What applying a manifest did, or would do.
pub(super) struct AppliedManifest {
    pub(super) result: ChangeResult,
    pub(super) changes: Vec<FieldChange>,
    pub(super) view: Value,
    /// The manifest of the resource as it is then.
    pub(super) text: String,
}

/// The key of a name, for comparison. The names of all resources follow the same rules.
pub(super) fn key(name: &str) -> String {
    NetworkName::parse(name).map(|name| name.key()).unwrap_or_default()
}

/// The resources that a dry run would have created or deleted so far: the control plane does not know of them.
#[derive(Default)]
pub(crate) struct DryRunResources {
    /// Kind and key of the name of each that would be created.
    created: BTreeSet<(&'static str, String)>,
    definitions: Vec<Box<dyn Any>>,
    /// How many dependents of the resource with an id would be deleted.
    freed: BTreeMap<String, u64>,
}

impl DryRunResources {
    /// Whether a resource of this kind and name would exist.
    pub(crate) fn contains<K: ManifestKind>(&self, name: &str) -> bool {
        self.created.contains(&(K::KIND, key(name)))
    }

    /// The definitions of one kind.
    pub(crate) fn definitions<K: ManifestKind>(&self) -> impl Iterator<Item = &K::Definition> {
        self.definitions.iter().filter_map(|definition| definition.downcast_ref())
    }

    fn insert<K: ManifestKind>(&mut self, name: &str, definition: &K::Definition) {
        self.created.insert((K::KIND, key(name)));
        self.definitions.push(Box::new(definition.clone()));
    }

    /// Adds a VM that would be deleted, with its NIC.
    fn delete(&mut self, view: &Value) {
        if let Some(network) = view.pointer("/nic/network_id").and_then(Value::as_str) {
            *self.freed.entry(network.to_owned()).or_default() += 1;
        }
    }

    /// Returns the failure of a deletion, without the dependents that would be deleted before; `None` if no others
    /// prevent it.
    fn without_freed(&self, id: Uuid, mut failure: Failure) -> Option<Failure> {
        let freed = self.freed.get(&id.to_string()).copied().unwrap_or(0);
        if let Some(nics) = failure.body.error.details.get_mut("vm_nics") {
            let Some(count) = nics.as_u64() else { return Some(failure) };
            let rest = count.saturating_sub(freed);
            if rest == 0 {
                return None;
            }
            *nics = json!(rest);
        }
        Some(failure)
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
    pub(super) read: fn(ManifestMetadata, &mut MappingFields<'_>, &mut ProblemScope<'_>) -> Box<dyn ManifestTarget>,
    pub(super) list: fn(&mut ControlPlaneClient) -> PruneAnswer<'_, Vec<Existing>>,
    pub(super) delete: fn(Uuid, &mut ControlPlaneClient) -> PruneAnswer<'_, ()>,
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
            read: |metadata, fields, scope| {
                let name = metadata.name.clone();
                let definition = K::read(metadata, fields, scope);
                Box::new(TypedTarget::<K> { name, definition })
            },
            list: prune::list::<K>,
            delete: prune::delete::<K>,
        }
    }
}

/// The resource that a manifest defines. Views are returned as JSON.
pub(super) trait ManifestTarget: Any {
    /// Creates it.
    fn create<'a>(&'a self, client: &'a mut ControlPlaneClient) -> LocalBoxFuture<'a, Result<Value, Failure>>;
    /// Asks for a dry run whether it can be created, after those that are planned. Fails as a creation would.
    fn try_creation<'a>(
        &'a self,
        planned: &'a mut DryRunResources,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<(), Failure>>;
    /// Looks it up by name, and asks for a dry run whether it can be deleted, after those that are planned. Fails as a
    /// deletion would.
    fn try_deletion<'a>(
        &'a self,
        planned: &'a mut DryRunResources,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<Value, Failure>>;
    /// Creates it, changes it, or does nothing; with `planned`, only asks what would be done.
    fn apply<'a>(
        &'a self,
        planned: Option<&'a mut DryRunResources>,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<AppliedManifest, Failure>>;
    /// The manifest of the resource as it is; `None` if there is none.
    fn current<'a>(&'a self, client: &'a mut ControlPlaneClient)
    -> LocalBoxFuture<'a, Result<Option<String>, Failure>>;
    /// Waits until the resource with this view is ready.
    fn wait<'a>(
        &'a self,
        view: Value,
        client: ControlPlaneClient,
        timeout: Duration,
        printer: &'a mut Printer,
    ) -> LocalBoxFuture<'a, Result<Value, Failure>>;
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

    fn try_creation<'a>(
        &'a self,
        planned: &'a mut DryRunResources,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<(), Failure>> {
        async move {
            let request = K::planned_request(&self.definition, planned, client).await?;
            create::try_out::<K>(client, &request).await?;
            planned.insert::<K>(&self.name, &self.definition);
            Ok(())
        }
        .boxed_local()
    }

    fn apply<'a>(
        &'a self,
        planned: Option<&'a mut DryRunResources>,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<AppliedManifest, Failure>> {
        async move {
            let applied = K::apply(&self.definition, planned.as_deref(), client).await;
            let Applied { result, changes, resource } = applied.map_err(create::reference_hint::<K>)?;
            if let Some(planned) = planned.filter(|_| result == ChangeResult::Created) {
                planned.insert::<K>(&self.name, &self.definition);
            }
            Ok(AppliedManifest { result, changes, view: json!(resource), text: write(&resource) })
        }
        .boxed_local()
    }

    fn current<'a>(
        &'a self,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<Option<String>, Failure>> {
        async move {
            match NameOrId::Name(self.name.clone()).look_up::<K>(client).await {
                Ok(view) => Ok((!view.is_deleted()).then(|| write(&view))),
                Err(failure) if failure.exit == Exit::NotFound => Ok(None),
                Err(failure) => Err(failure),
            }
        }
        .boxed_local()
    }

    fn wait<'a>(
        &'a self,
        view: Value,
        mut client: ControlPlaneClient,
        timeout: Duration,
        printer: &'a mut Printer,
    ) -> LocalBoxFuture<'a, Result<Value, Failure>> {
        async move {
            let malformed = |error: serde_json::Error| {
                Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot parse the view: {error}"))
            };
            let view: K = serde_json::from_value(view).map_err(malformed)?;
            let outcomes = LiveFeed::outcomes(&mut client).await?;
            let (last, result) = wait::until_ready(client, outcomes, view, timeout, printer).await;
            result.map(|()| json!(last))
        }
        .boxed_local()
    }

    fn try_deletion<'a>(
        &'a self,
        planned: &'a mut DryRunResources,
        client: &'a mut ControlPlaneClient,
    ) -> LocalBoxFuture<'a, Result<Value, Failure>> {
        async move {
            let view = self.look_up(client).await?;
            if let Err(failure) = client.try_out::<K::Delete>(&K::by_id(view.id())).await
                && let Some(failure) = planned.without_freed(view.id(), failure)
            {
                return Err(failure);
            }
            let view = json!(view);
            planned.delete(&view);
            Ok(view)
        }
        .boxed_local()
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
