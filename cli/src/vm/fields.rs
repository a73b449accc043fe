//! The fields of a VM: as `get` and `list` show them, and in a manifest.

use otherix_schemas::change::Applied;
use otherix_schemas::network::NetworkView;
use otherix_schemas::nic::NicView;
use otherix_schemas::outcome::OutcomeStatus;
use otherix_schemas::request::PageRequest;
use otherix_schemas::value::Metadata;
use otherix_schemas::vm::{ApplyVm, CloudInit, MachineView, PullPolicy, VmDraft, VmOwner, VmView};

use super::definition::VmDefinition;
use super::machine_definition::MachineDefinition;
use crate::client::ControlPlaneClient;
use crate::failure::Failure;
use crate::manifest::{DryRunResources, ManifestKind, ManifestMetadata, MappingFields, ProblemScope};
use crate::output::table::{self, optional};
use crate::output::yaml::scalar;
use crate::resource::change::MetadataArgs;

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
    if let Some(machine) = &view.machine {
        lines.push(("power", machine.power.to_string()));
        lines.push(("phase", machine.phase.to_string()));
        lines.extend(machine.started_at.map(|at| ("running since", at.to_string())));
        lines.extend(machine.last_line.clone().map(|line| ("last line", line)));
    }
    lines.extend(view.moving.as_ref().map(|moving| ("moves to", moving.node_name.to_string())));
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
    let mut lines = vec![("id", view.id.to_string())];
    lines.extend(table::metadata(view.description.as_ref(), &view.labels));
    lines.extend([
        ("image", view.image_url.to_string()),
        ("arch", view.arch.to_string()),
        ("node", view.node_name.to_string()),
        ("network", optional(view.nic.as_ref().map(|nic| &nic.network_name))),
    ]);
    if let Some(NicView { bridge_name, mac, ip, tap, .. }) = &view.nic {
        lines.extend([("bridge", bridge_name.clone()), ("mac", mac.to_string())]);
        lines.extend(ip.map(|ip| ("ip", ip.to_string())));
        lines.push(("tap", tap.clone()));
    }
    if let Some(machine) = &view.machine {
        lines.extend(machine_fields(machine));
    }
    if let Some(VmOwner { id, name }) = &view.owner {
        lines.push(("owner", name.clone().unwrap_or_else(|| id.to_string())));
    }
    lines.push(("created", view.created_at.to_string()));
    lines
}

fn machine_fields(machine: &MachineView) -> Vec<(&'static str, String)> {
    let mut lines = vec![("vcpus", machine.vcpus.to_string()), ("memory", format!("{} MiB", machine.memory_mb))];
    lines.extend(machine.disk_gib.map(|size| ("disk", format!("{size} GiB"))));
    lines.extend(machine.image_sha256.as_ref().map(|digest| ("sha256", digest.to_string())));
    lines.push(("pull", machine.pull_policy.to_string()));
    lines.push(("cloud-init", if machine.has_cloud_init { "yes" } else { "no" }.to_owned()));
    lines
}

/// The status, with whether the node is unreachable.
fn status(view: &VmView) -> String {
    let unreachable = if view.node_reachable { "" } else { " (node unreachable)" };
    let status = match (view.deleted_at, view.status) {
        (None, OutcomeStatus::Pending) if view.moving.is_some() => "moving",
        (None, OutcomeStatus::Ready) => view.machine.as_ref().map_or("ready", |machine| machine.phase.as_str()),
        (None, status) => status.as_str(),
        (Some(_), OutcomeStatus::Failed) => "deleting (failed)",
        (Some(_), OutcomeStatus::Pending | OutcomeStatus::Ready | OutcomeStatus::Removed) => "deleting",
    };
    format!("{status}{unreachable}")
}

impl ManifestKind for VmView {
    const KIND: &'static str = "VM";
    const FIELDS: &'static [&'static str] = &[
        "imageURL",
        "arch",
        "network",
        "ip",
        "node",
        "vcpus",
        "memoryMB",
        "diskGiB",
        "imageSHA256",
        "pullPolicy",
        "cloudInit",
        "userData",
        "networkConfig",
        "sshKeys",
        "tapOnly",
    ];
    const EXAMPLE: &'static str = "\
metadata: {name: web-1}
spec:
  imageURL: https://images.example/debian-12.qcow2
  arch: amd64               # or arm64
  network: net-app          # name or UUID; without it, the VM has no NIC
  ip: 10.20.0.9             # on a network with DHCP; without it, the lowest address that is free
  node: node-1              # name or UUID; without it, a node is chosen
  vcpus: 2                  # 1 to 64
  memoryMB: 2048            # MiB
  diskGiB: 20               # without it, the size of the image
  imageSHA256: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
  pullPolicy: always        # or if-not-present
  cloudInit: true           # false: no seed disk
  userData: |               # for cloud-init; kept for ever, and readable for every user
    #cloud-config
    packages: [nginx]
  networkConfig: |          # without it, the guest uses DHCP
    version: 2
  sshKeys: |                # one public key in each line
    ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me
  tapOnly: false            # true: only the NIC's tap, for a machine that you run yourself
";
    type Definition = VmDefinition;

    fn read(metadata: ManifestMetadata, fields: &mut MappingFields<'_>, scope: &mut ProblemScope<'_>) -> VmDefinition {
        let ManifestMetadata { name, description, labels } = metadata;
        let labels = labels.unwrap_or_default().into_iter().map(|(key, value)| format!("{key}={value}"));
        let metadata = MetadataArgs { description, labels: labels.collect() };
        let definition = VmDefinition {
            name,
            image_url: fields.string("imageURL", scope),
            arch: fields.string("arch", scope),
            network: fields.string("network", scope),
            ip: fields.string("ip", scope),
            node: fields.string("node", scope),
            machine: machine(fields, scope),
            metadata: MetadataArgs::default(),
        };
        fields.report_violations(&definition.violations(), scope);
        VmDefinition { metadata, ..definition }
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

    async fn apply(
        definition: &VmDefinition,
        planned: Option<&DryRunResources>,
        client: &mut ControlPlaneClient,
    ) -> Result<Applied<Self>, Failure> {
        let Some(planned) = planned else {
            let request = Self::request(definition, client).await?;
            return Ok(client.call::<ApplyVm>(&request).await?.data);
        };
        let request = Self::planned_request(definition, planned, client).await?;
        Ok(client.try_out::<ApplyVm>(&request).await?.data)
    }

    fn page(page: PageRequest) -> PageRequest {
        page
    }

    fn metadata(&self) -> Metadata {
        Metadata { description: self.description.clone(), labels: self.labels.clone() }
    }

    /// Without the node and the address: it is unknown whether the user or the control plane chose them.
    fn spec(&self) -> Vec<(&'static str, String)> {
        let mut spec = vec![("imageURL", scalar(self.image_url.as_str())), ("arch", self.arch.to_string())];
        spec.extend(self.nic.as_ref().map(|nic| ("network", scalar(nic.network_name.as_str()))));
        match &self.machine {
            Some(machine) => spec.extend(machine_spec(machine)),
            None => spec.push(("tapOnly", "true".to_owned())),
        }
        spec
    }
}

/// Without the texts for cloud-init, which views do not have.
fn machine_spec(machine: &MachineView) -> Vec<(&'static str, String)> {
    let mut spec = vec![("vcpus", machine.vcpus.to_string()), ("memoryMB", machine.memory_mb.to_string())];
    spec.extend(machine.disk_gib.map(|size| ("diskGiB", size.to_string())));
    spec.extend(machine.image_sha256.as_ref().map(|digest| ("imageSHA256", scalar(digest.as_str()))));
    if machine.pull_policy != PullPolicy::default() {
        spec.push(("pullPolicy", machine.pull_policy.to_string()));
    }
    if !machine.has_cloud_init {
        spec.push(("cloudInit", "false".to_owned()));
    }
    spec
}

fn machine(fields: &mut MappingFields<'_>, scope: &mut ProblemScope<'_>) -> MachineDefinition {
    let keys = fields.string("sshKeys", scope).unwrap_or_default();
    let keys = keys.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
    MachineDefinition {
        vcpus: fields.number("vcpus", scope),
        memory_mb: fields.number("memoryMB", scope),
        disk_gib: fields.number("diskGiB", scope),
        image_sha256: fields.string("imageSHA256", scope),
        pull_policy: fields.string("pullPolicy", scope),
        no_cloud_init: fields.boolean("cloudInit", scope) == Some(false),
        tap_only: fields.boolean("tapOnly", scope) == Some(true),
        cloud_init: CloudInit {
            user_data: fields.string("userData", scope),
            network_config: fields.string("networkConfig", scope),
            ssh_keys: keys.collect(),
        },
    }
}
