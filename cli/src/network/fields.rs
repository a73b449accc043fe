//! The fields of a network: as flags of `create`, as `get` and `list` show them, and in a manifest.

use clap::Args;
use otherix_schemas::change::{Applied, ChangeResult};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{
    ApplyNetwork, BridgeSpec, Egress, EgressView, NetworkApplyRequest, NetworkDraft, NetworkKind, NetworkPageRequest,
    NetworkView, NewNetworkSpec, Ownership,
};
use otherix_schemas::request::PageRequest;
use otherix_schemas::value::{Ipv4Subnet, Metadata};
use otherix_schemas::violations::Violations;

use super::status;
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::{DryRunResources, ManifestKind, ManifestMetadata, MappingFields, ProblemScope};
use crate::number;
use crate::output::table::{self, optional, yes_no};
use crate::output::yaml::scalar;
use crate::resource::args::completes_to;
use crate::resource::change::MetadataArgs;

/// The types of networks, for shell completion.
pub(super) const TYPES: [&str; 2] = ["bridge", "overlay"];

#[derive(Debug, Args)]
pub(super) struct NetworkFlags {
    /// The type: bridge or overlay [default: bridge]
    #[arg(long = "type", value_name = "TYPE", value_parser = completes_to(&TYPES), hide_possible_values = true)]
    kind: Option<String>,

    /// The bridge on each node, required for type bridge: 1 to 15 of `A-Z a-z 0-9 _ -`, beginning with a letter
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    bridge_name: Option<String>,

    /// Create, repair and remove the bridge on every node, instead of only checking that it exists
    #[arg(long)]
    managed: bool,

    /// Egress of the guests: none, or nat (source NAT to the node's address) [default: none]
    #[arg(long, value_name = "EGRESS", value_parser = completes_to(&["none", "nat"]), hide_possible_values = true)]
    egress: Option<String>,

    /// The IPv4 subnet, /8 to /30, such as 10.20.0.0/24: for egress nat, for DHCP and for type overlay
    #[arg(long, value_name = "CIDR")]
    subnet: Option<String>,

    /// The node's IPv4 address in the subnet [default: the subnet's first host]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<String>,

    /// Assign addresses of the subnet to the guests, which get them by DHCP
    #[arg(long)]
    dhcp: bool,

    /// Resolve names at the gateway: those of the network's VMs, and with egress others, too: true or false
    /// [default: as --dhcp]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    dns: Option<bool>,

    /// The same as --dns=false
    #[arg(long, conflicts_with = "dns")]
    no_dns: bool,

    /// Let guests send from other MAC and IP addresses than those of their NICs, as virtual machines inside them do
    #[arg(long)]
    allow_spoofing: bool,

    /// The MTU in bytes, 68 to 9216 [default: 1500; for an overlay, derived from the underlay]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    mtu: Option<String>,

    /// The VLAN id, 1 to 4094 [default: untagged]
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    vlan: Option<String>,

    #[command(flatten)]
    metadata: MetadataArgs,
}

impl NetworkFlags {
    /// Returns the draft of a network, or all rules that it violates.
    pub(super) fn into_draft(self, name: String) -> Result<NetworkDraft, Violations> {
        let Self { kind, bridge_name, managed, egress, subnet, gateway, dhcp, dns, no_dns, .. } = self;
        let Self { allow_spoofing, mtu, vlan, metadata, .. } = self;
        let [managed, dhcp, allow_spoofing] = [managed, dhcp, allow_spoofing].map(|given| given.then_some(true));
        let dns = dns.or(no_dns.then_some(false));
        let mut violations = Violations::default();
        let mtu = number::parse("mtu", mtu.as_deref(), &mut violations);
        let vlan = number::parse("vlan", vlan.as_deref(), &mut violations);
        let labels = metadata.labels(&mut violations);
        let draft = NetworkDraft {
            name,
            kind,
            bridge_name,
            managed,
            egress,
            subnet,
            gateway,
            dhcp,
            dns,
            allow_spoofing,
            mtu,
            vlan,
            description: metadata.description,
            labels,
        };
        let violations = check(&draft, violations);
        if violations.is_empty() { Ok(draft) } else { Err(violations) }
    }
}

/// Adds the rules that a draft violates. Only the control plane knows the mesh supernet of the cluster, so a draft that
/// may violate just that rule is left to it. If there are other violations, the default supernet is assumed, so that
/// most likely all are reported together.
fn check(draft: &NetworkDraft, mut violations: Violations) -> Violations {
    if violations.is_empty() && draft.check(None).is_ok() {
        return violations;
    }
    if let Err(violated) = draft.check(Some(Ipv4Subnet::DEFAULT_MESH)) {
        for (field, rule) in violated.iter() {
            violations.add(field, rule);
        }
    }
    violations
}

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
        match view.deleted_at {
            None => format!("{}/{}", view.status.ready, view.status.expected),
            Some(_) => "deleting".to_owned(),
        },
    ]
}

/// What nothing prevents on networks that do not assign addresses, and on those that allow spoofing.
const NOT_PREVENTED: &str = "not prevented: guests of this network can use each other's IP addresses\n";
const SPOOFING: &str = "not prevented: guests of this network can use each other's MAC and IP addresses\n";

/// The text of `get`.
pub(super) fn details(view: &NetworkView) -> String {
    let mut lines = vec![("name", view.name.to_string())];
    lines.extend(fields(view));
    if view.updated_at != view.created_at && view.deleted_at.is_none() {
        lines.push(("changed", format!("{} (generation {})", view.updated_at, view.generation)));
    }
    if let Some(at) = view.deleted_at {
        lines.push(("deleted", at.to_string()));
    }
    let warnings = table::warnings(&view.status.warnings);
    let not_prevented = match (view.deleted_at, view.allow_spoofing, view.dhcp) {
        (None, true, _) => SPOOFING,
        (None, false, false) => NOT_PREVENTED,
        (None, false, true) | (Some(_), _, _) => "",
    };
    format!("{}status:\n{}{warnings}{not_prevented}", table::fields(&lines), status::status(view))
}

/// The fields after a creation.
pub(super) fn summary(view: &NetworkView) -> String {
    table::fields(&fields(view))
}

fn fields(view: &NetworkView) -> Vec<(&'static str, String)> {
    let mut lines = vec![("id", view.id.to_string())];
    lines.extend(table::metadata(view.description.as_ref(), &view.labels));
    lines.extend(spec_fields(view));
    lines
}

fn spec_fields(view: &NetworkView) -> Vec<(&'static str, String)> {
    vec![
        ("type", view.kind.to_string()),
        ("bridge", view.bridge_name.clone()),
        ("managed", yes_no(view.managed)),
        ("egress", egress(view).to_owned()),
        ("subnet", optional(view.subnet)),
        ("gateway", optional(view.gateway)),
        ("dhcp", yes_no(view.dhcp)),
        ("dns", yes_no(view.dns)),
        ("lock", lock(view).to_owned()),
        ("mtu", view.mtu.to_string()),
        ("vlan", optional(view.vlan.map(|vlan| vlan.get()))),
        ("vni", optional(view.vni)),
        ("created", view.created_at.to_string()),
    ]
}

/// Which addresses of their NICs guests cannot change.
fn lock(view: &NetworkView) -> &'static str {
    match (view.allow_spoofing, view.dhcp) {
        (true, _) => "none",
        (false, true) => "mac and ip",
        (false, false) => "mac",
    }
}

fn egress(view: &NetworkView) -> &'static str {
    match view.egress {
        EgressView::Nat => "nat",
        EgressView::None => "none",
    }
}

/// Why a network cannot be created once another is, as the control plane would say.
fn conflict(draft: &NetworkDraft, other: &NetworkDraft) -> Option<String> {
    let (new, other) = (draft.check(None).ok()?, other.check(None).ok()?);
    let is_unmanaged = |bridge: &BridgeSpec| bridge.ownership == Ownership::Unmanaged;
    if let (NewNetworkSpec::Bridge(bridge), NewNetworkSpec::Bridge(taken)) = (&new.spec, &other.spec)
        && bridge.bridge_name == taken.bridge_name
        && !(is_unmanaged(bridge) && is_unmanaged(taken))
    {
        let (name, other) = (&bridge.bridge_name, &other.name);
        return Some(format!(
            "bridge `{name}` belongs to network `{other}`: only unmanaged networks may share a bridge"
        ));
    }
    let (subnet, taken) = (nat_subnet(&new.spec)?, nat_subnet(&other.spec)?);
    let message =
        || format!("subnet `{subnet}` overlaps `{taken}` of network `{}`, which has NAT egress too", other.name);
    subnet.overlaps(taken).then(message)
}

fn nat_subnet(spec: &NewNetworkSpec) -> Option<Ipv4Subnet> {
    let egress = match spec {
        NewNetworkSpec::Bridge(BridgeSpec { ownership: Ownership::Managed(egress), .. }) => egress,
        NewNetworkSpec::Overlay { egress, .. } => egress,
        NewNetworkSpec::Bridge(BridgeSpec { ownership: Ownership::Unmanaged, .. }) => return None,
    };
    match egress {
        Egress::Nat(nat) => Some(nat.subnet()),
        Egress::None => None,
    }
}

impl ManifestKind for NetworkView {
    const KIND: &'static str = "Network";
    const FIELDS: &'static [&'static str] = &[
        "type",
        "bridgeName",
        "managed",
        "egress",
        "subnet",
        "gateway",
        "dhcp",
        "dns",
        "allowSpoofing",
        "mtu",
        "vlan",
    ];
    const EXAMPLE: &'static str = "\
metadata:
  name: net-app
  description: the shop     # what it is for
  labels: {env: prod}       # for people, and to select by
spec:
  type: bridge              # or overlay, which accepts only subnet, egress, gateway, dhcp, dns and allowSpoofing
  bridgeName: br-app
  managed: true
  egress: nat               # or none
  subnet: 10.20.0.0/24
  gateway: 10.20.0.1
  dhcp: true                # the guests get addresses of the subnet
  dns: true                 # the gateway resolves names (not yet); the default with DHCP
  allowSpoofing: false      # whether guests may send from addresses that their NICs do not have
  mtu: 1500
  vlan: 12
";
    type Definition = NetworkDraft;

    fn read(metadata: ManifestMetadata, fields: &mut MappingFields<'_>, scope: &mut ProblemScope<'_>) -> NetworkDraft {
        let ManifestMetadata { name, description, labels } = metadata;
        let draft = NetworkDraft {
            name,
            kind: fields.keyword("type", scope),
            bridge_name: fields.string("bridgeName", scope),
            // Problems that follow from a malformed value are not reported: a managed bridge may have every field.
            managed: fields.boolean("managed", scope).or_else(|| fields.is_reported("managed").then_some(true)),
            egress: fields.keyword("egress", scope),
            subnet: fields.string("subnet", scope),
            gateway: fields.string("gateway", scope),
            dhcp: fields.boolean("dhcp", scope).or_else(|| fields.is_reported("dhcp").then_some(true)),
            dns: fields.boolean("dns", scope),
            allow_spoofing: fields.boolean("allowSpoofing", scope),
            mtu: fields.number("mtu", scope),
            vlan: fields.number("vlan", scope),
            description: None,
            labels: None,
        };
        fields.report_violations(&check(&draft, Violations::default()), scope);
        NetworkDraft { description, labels, ..draft }
    }

    async fn request(definition: &NetworkDraft, _: &mut ControlPlaneClient) -> Result<NetworkDraft, Failure> {
        Ok(definition.clone())
    }

    async fn planned_request(
        definition: &NetworkDraft,
        planned: &DryRunResources,
        _: &mut ControlPlaneClient,
    ) -> Result<NetworkDraft, Failure> {
        match planned.definitions::<Self>().find_map(|other| conflict(definition, other)) {
            Some(message) => Err(Failure::new(Exit::Conflict, ErrorCode::Conflict, message)),
            None => Ok(definition.clone()),
        }
    }

    async fn apply(
        definition: &NetworkDraft,
        planned: Option<&DryRunResources>,
        client: &mut ControlPlaneClient,
    ) -> Result<Applied<Self>, Failure> {
        let request = NetworkApplyRequest { draft: definition.clone(), if_generation: None };
        let Some(planned) = planned else { return Ok(client.call::<ApplyNetwork>(&request).await?.data) };
        let applied = client.try_out::<ApplyNetwork>(&request).await?.data;
        if applied.result != ChangeResult::Unchanged {
            Self::planned_request(definition, planned, client).await?;
        }
        Ok(applied)
    }

    fn page(PageRequest { limit, cursor }: PageRequest) -> NetworkPageRequest {
        NetworkPageRequest { kind: None, limit, cursor }
    }

    fn metadata(&self) -> Metadata {
        Metadata { description: self.description.clone(), labels: self.labels.clone() }
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
                field("dhcp", self.dhcp.then(|| true.to_string()));
                field("dns", self.dhcp.then(|| self.dns.to_string()));
                field("allowSpoofing", self.allow_spoofing.then(|| true.to_string()));
                field("mtu", Some(self.mtu.to_string()));
                field("vlan", self.vlan.map(|vlan| vlan.to_string()));
            }
            // The control plane chooses everything else of an overlay.
            NetworkKind::Overlay => {
                field("egress", (self.egress == EgressView::Nat).then(|| egress(self).to_owned()));
                field("subnet", self.subnet.map(|subnet| subnet.to_string()));
                field("gateway", self.gateway.map(|gateway| gateway.to_string()));
                field("dhcp", self.dhcp.then(|| true.to_string()));
                field("dns", self.dhcp.then(|| self.dns.to_string()));
                field("allowSpoofing", self.allow_spoofing.then(|| true.to_string()));
            }
        }
        spec
    }
}
