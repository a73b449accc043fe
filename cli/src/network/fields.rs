//! The fields of a network: as `get` and `list` show them, and in a manifest.

use otherix_schemas::network::{EgressView, NetworkDraft, NetworkKind, NetworkView};
use otherix_schemas::violations::Violations;

use super::{create, status};
use crate::client::Client;
use crate::failure::Failure;
use crate::manifest::{Fields, ManifestKind, Planned, Scope};
use crate::output::table::{self, optional, yes_no};
use crate::output::yaml::scalar;

/// The heading of [`row`].
pub(super) const COLUMNS: [&str; 8] = ["NAME", "TYPE", "BRIDGE", "MANAGED", "EGRESS", "SUBNET", "MTU", "READY"];

/// The row in a list.
pub(super) fn row(view: &NetworkView) -> Vec<String> {
    vec![
        view.name.to_string(),
        view.kind.to_string(),
        view.bridge_name.clone(),
        yes_no(view.managed),
        egress(view).to_owned(),
        optional(view.subnet),
        view.mtu.to_string(),
        format!("{}/{}", view.status.ready, view.status.expected),
    ]
}

/// All that is known of a network.
pub(super) fn details(view: &NetworkView) -> String {
    let mut lines = vec![("name", view.name.to_string())];
    lines.extend(fields(view));
    if let Some(at) = view.deleted_at {
        lines.push(("deleted", at.to_string()));
    }
    let warnings = table::warnings(&view.status.warnings);
    format!("{}status:\n{}{warnings}", table::fields(&lines), status::status(view))
}

/// The fields after a creation.
pub(super) fn summary(view: &NetworkView) -> String {
    table::fields(&fields(view))
}

fn fields(view: &NetworkView) -> Vec<(&'static str, String)> {
    vec![
        ("id", view.id.to_string()),
        ("type", view.kind.to_string()),
        ("bridge", view.bridge_name.clone()),
        ("managed", yes_no(view.managed)),
        ("egress", egress(view).to_owned()),
        ("subnet", optional(view.subnet)),
        ("gateway", optional(view.gateway)),
        ("mtu", view.mtu.to_string()),
        ("vlan", optional(view.vlan.map(|vlan| vlan.get()))),
        ("vni", optional(view.vni)),
        ("created", view.created_at.to_string()),
    ]
}

fn egress(view: &NetworkView) -> &'static str {
    match view.egress {
        EgressView::Nat => "nat",
        EgressView::None => "none",
    }
}

impl ManifestKind for NetworkView {
    const KIND: &'static str = "Network";
    const FIELDS: &'static [&'static str] =
        &["type", "bridgeName", "managed", "egress", "subnet", "gateway", "mtu", "vlan"];
    const EXAMPLE: &'static str = "\
metadata: {name: net-app}
spec:
  type: bridge              # or overlay, which accepts only a subnet
  bridgeName: br-app
  managed: true
  egress: nat               # or none
  subnet: 10.20.0.0/24
  gateway: 10.20.0.1
  mtu: 1500
  vlan: 12
";
    type Definition = NetworkDraft;

    fn read(name: String, fields: &mut Fields<'_>, scope: &mut Scope<'_>) -> NetworkDraft {
        let draft = NetworkDraft {
            name,
            kind: fields.keyword("type", scope),
            bridge_name: fields.string("bridgeName", scope),
            // What depends on a malformed value is not reported as well: a bridge may have every field if it is
            // managed.
            managed: fields.boolean("managed", scope).or_else(|| fields.is_reported("managed").then_some(true)),
            egress: fields.keyword("egress", scope),
            subnet: fields.string("subnet", scope),
            gateway: fields.string("gateway", scope),
            mtu: fields.number("mtu", scope),
            vlan: fields.number("vlan", scope),
        };
        fields.report_violations(&create::check(&draft, Violations::default()), scope);
        draft
    }

    async fn request(definition: &NetworkDraft, _: &mut Client) -> Result<NetworkDraft, Failure> {
        Ok(definition.clone())
    }

    async fn check_references(_: &NetworkDraft, _: &Planned, _: &mut Client) -> Result<(), Failure> {
        Ok(())
    }

    fn spec(&self) -> Vec<(&'static str, String)> {
        let mut spec = vec![("type", self.kind.to_string())];
        let mut field = |name, value: Option<String>| spec.extend(value.map(|value| (name, value)));
        match self.kind {
            NetworkKind::Bridge => {
                field("bridgeName", Some(scalar(&self.bridge_name)));
                field("managed", Some(self.managed.to_string()));
                field("egress", Some(egress(self).to_owned()));
                field("subnet", self.subnet.map(|subnet| subnet.to_string()));
                field("gateway", self.gateway.map(|gateway| gateway.to_string()));
                field("mtu", Some(self.mtu.to_string()));
                field("vlan", self.vlan.map(|vlan| vlan.to_string()));
            }
            // The control plane chooses everything else of an overlay.
            NetworkKind::Overlay => field("subnet", self.subnet.map(|subnet| subnet.to_string())),
        }
        spec
    }
}
