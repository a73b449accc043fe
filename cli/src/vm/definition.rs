//! A VM as the user defines it by flags or in a manifest, with references to networks and nodes by name.

use clap::Args;
use otherix_schemas::network::NetworkView;
use otherix_schemas::node::NodeView;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmDraft;
use uuid::Uuid;

use super::machine_definition::MachineDefinition;
use crate::client::ControlPlaneClient;
use crate::failure::Failure;
use crate::resource::args::completes_to;
use crate::resource::change::MetadataArgs;
use crate::resource::{NameOrId, Resource};

#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VmDefinition {
    /// The name, unique and not case-sensitive: 1 to 255 characters without `/`, not in the form of a UUID
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// The URL of the disk image, required: http:// or https://
    #[arg(long, value_name = "URL")]
    pub(crate) image_url: Option<String>,

    /// The architecture, required: amd64 or arm64
    #[arg(long, value_name = "ARCH", value_parser = completes_to(&["amd64", "arm64"]), hide_possible_values = true)]
    pub(crate) arch: Option<String>,

    /// The network of the NIC [default: no NIC]
    #[arg(long, value_name = "NAME|UUID")]
    pub(crate) network: Option<String>,

    /// The IPv4 address of the NIC, on a network with DHCP [default: the lowest that is free]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,

    /// The node [default: of the reachable nodes on which the network has not failed, the one with the fewest NICs]
    #[arg(long, value_name = "NAME|UUID")]
    pub(crate) node: Option<String>,

    #[command(flatten)]
    pub(crate) machine: MachineDefinition,

    #[command(flatten)]
    pub(crate) metadata: MetadataArgs,
}

impl VmDefinition {
    /// The rules that the definition violates, as far as they can be checked without the control plane.
    pub(crate) fn violations(&self) -> Violations {
        // Any id stands for the network's, which is not known yet.
        let network_id = self.network.as_ref().map(|_| Uuid::nil().to_string());
        let violated = VmDraft { network_id, ..self.draft() }.check().err().unwrap_or_default();
        let mut violations = Violations::default();
        // The fields of a machine are those of a VM to whoever defines one.
        violated.iter().for_each(|(field, rule)| violations.add(field.rsplit('.').next().unwrap_or(field), rule));
        self.metadata.labels(&mut violations);
        self.machine.conflicts(&mut violations);
        for (field, reference) in [("network", &self.network), ("node", &self.node)] {
            if reference.as_ref().is_some_and(|text| text.trim().is_empty()) {
                violations.add(field, "must not be empty");
            }
        }
        violations
    }

    /// Returns the request, with names replaced by ids: one query for each name.
    pub(crate) async fn resolve(&self, client: &mut ControlPlaneClient) -> Result<VmDraft, Failure> {
        let network_id = id::<NetworkView>(self.network.as_deref(), client).await?;
        let node_id = id::<NodeView>(self.node.as_deref(), client).await?;
        Ok(VmDraft { network_id, node_id, ..self.draft() })
    }

    fn draft(&self) -> VmDraft {
        let Self { name, image_url, arch, network: _, ip, node: _, machine, metadata } = self.clone();
        // What is malformed is among the violations.
        let labels = metadata.labels(&mut Violations::default());
        let (description, machine) = (metadata.description, machine.draft());
        VmDraft { name, image_url, arch, network_id: None, ip, node_id: None, machine, description, labels }
    }
}

async fn id<R: Resource>(reference: Option<&str>, client: &mut ControlPlaneClient) -> Result<Option<String>, Failure> {
    match reference {
        None => Ok(None),
        Some(reference) => Ok(Some(NameOrId::new(reference).resolve::<R>(client).await?.to_string())),
    }
}
