//! The fields of a VM: as `get` and `list` show them, and in a manifest.

use otherix_schemas::network::NetworkView;
use otherix_schemas::nic::NicView;
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::vm::{VmDraft, VmOwner, VmView};

use super::definition::VmDefinition;
use crate::client::ControlPlaneClient;
use crate::failure::Failure;
use crate::manifest::{DryRunResources, ManifestKind, MappingFields, ProblemScope};
use crate::output::table::{self, optional};
use crate::output::yaml::scalar;

/// The heading of [`row`].
pub(super) const COLUMNS: [&str; 7] = ["NAME", "ARCH", "NODE", "NETWORK", "IP", "MAC", "STATUS"];

/// The row in a list.
pub(super) fn row(view: &VmView) -> Vec<String> {
    let nic = view.nic.as_ref();
    vec![
        view.name.to_string(),
        view.arch.to_string(),
        view.node_name.to_string(),
        optional(nic.map(|nic| &nic.network_name)),
        optional(nic.and_then(|nic| nic.ip)),
        optional(nic.map(|nic| &nic.mac)),
        status(view),
    ]
}

/// The text of `get`.
pub(super) fn details(view: &VmView) -> String {
    let mut lines = vec![("name", view.name.to_string())];
    lines.extend(fields(view));
    if let Some(at) = view.deleted_at {
        lines.push(("deleted", at.to_string()));
    }
    lines.push(("status", status(view)));
    if let Some(error) = &view.error {
        lines.push(("error", error.clone()));
    }
    table::fields(&lines) + &table::warnings(&view.warnings)
}

/// The fields after a creation.
pub(super) fn summary(view: &VmView) -> String {
    table::fields(&fields(view))
}

fn fields(view: &VmView) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("id", view.id.to_string()),
        ("image", view.image_url.to_string()),
        ("arch", view.arch.to_string()),
        ("node", view.node_name.to_string()),
        ("network", optional(view.nic.as_ref().map(|nic| &nic.network_name))),
    ];
    if let Some(NicView { bridge_name, mac, ip, tap, .. }) = &view.nic {
        lines.extend([("bridge", bridge_name.clone()), ("mac", mac.to_string())]);
        lines.extend(ip.map(|ip| ("ip", ip.to_string())));
        lines.push(("tap", tap.clone()));
    }
    if let Some(VmOwner { id, name }) = &view.owner {
        lines.push(("owner", name.clone().unwrap_or_else(|| id.to_string())));
    }
    lines.push(("created", view.created_at.to_string()));
    lines
}

/// The status, with whether the node is unreachable.
fn status(view: &VmView) -> String {
    let unreachable = if view.node_reachable { "" } else { " (node unreachable)" };
    let status = match (view.deleted_at, view.status) {
        (None, status) => status.as_str(),
        (Some(_), OutcomeStatus::Failed) => "deleting (failed)",
        (Some(_), OutcomeStatus::Pending | OutcomeStatus::Ready | OutcomeStatus::Removed) => "deleting",
    };
    format!("{status}{unreachable}")
}

impl ManifestKind for VmView {
    const KIND: &'static str = "VM";
    const FIELDS: &'static [&'static str] = &["imageURL", "arch", "network", "ip", "node"];
    const EXAMPLE: &'static str = "\
metadata: {name: web-1}
spec:
  imageURL: https://images.example/debian-12.qcow2
  arch: amd64               # or arm64
  network: net-app          # name or UUID; without it, the VM has no NIC
  ip: 10.20.0.9             # on a network with DHCP; without it, the lowest address that is free
  node: node-1              # name or UUID; without it, a node is chosen
";
    type Definition = VmDefinition;

    fn read(name: String, fields: &mut MappingFields<'_>, scope: &mut ProblemScope<'_>) -> VmDefinition {
        let definition = VmDefinition {
            name,
            image_url: fields.string("imageURL", scope),
            arch: fields.string("arch", scope),
            network: fields.string("network", scope),
            ip: fields.string("ip", scope),
            node: fields.string("node", scope),
        };
        fields.report_violations(&definition.violations(), scope);
        definition
    }

    async fn request(definition: &VmDefinition, client: &mut ControlPlaneClient) -> Result<VmDraft, Failure> {
        definition.resolve(client).await
    }

    async fn planned_request(
        definition: &VmDefinition,
        planned: &DryRunResources,
        client: &mut ControlPlaneClient,
    ) -> Result<VmDraft, Failure> {
        let mut definition = definition.clone();
        // A network that does not exist yet has no id.
        if definition.network.take_if(|network| planned.contains::<NetworkView>(network)).is_some() {
            definition.ip = None;
        }
        definition.resolve(client).await
    }

    /// Without the node and the address: it is unknown whether the user or the control plane chose them.
    fn spec(&self) -> Vec<(&'static str, String)> {
        let mut spec = vec![("imageURL", scalar(self.image_url.as_str())), ("arch", self.arch.to_string())];
        spec.extend(self.nic.as_ref().map(|nic| ("network", scalar(nic.network_name.as_str()))));
        spec
    }
}
