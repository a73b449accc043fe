//! A VM as the user defines it, with references to networks and nodes by name.

use otherix_schemas::network::NetworkView;
use otherix_schemas::node::NodeView;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmDraft;

use crate::client::Client;
use crate::failure::Failure;
use crate::resource::{Reference, Resource};

/// A VM to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VmDefinition {
    pub(crate) name: String,
    pub(crate) image_url: Option<String>,
    pub(crate) arch: Option<String>,
    /// The name or UUID of the NIC's network.
    pub(crate) network: Option<String>,
    /// The name or UUID of the node.
    pub(crate) node: Option<String>,
}

impl VmDefinition {
    /// The rules that the definition violates, as far as they can be checked without the control plane.
    pub(crate) fn violations(&self) -> Violations {
        let mut violations = self.draft().check().err().unwrap_or_default();
        for (field, reference) in [("network", &self.network), ("node", &self.node)] {
            if reference.as_ref().is_some_and(|text| text.trim().is_empty()) {
                violations.add(field, "must not be empty");
            }
        }
        violations
    }

    /// Returns the request, with names replaced by ids: one query for each name.
    pub(crate) async fn resolve(&self, client: &mut Client) -> Result<VmDraft, Failure> {
        let network_id = id::<NetworkView>(self.network.as_deref(), client).await?;
        let node_id = id::<NodeView>(self.node.as_deref(), client).await?;
        Ok(VmDraft { network_id, node_id, ..self.draft() })
    }

    fn draft(&self) -> VmDraft {
        let Self { name, image_url, arch, network: _, node: _ } = self.clone();
        VmDraft { name, image_url, arch, network_id: None, node_id: None }
    }
}

async fn id<R: Resource>(reference: Option<&str>, client: &mut Client) -> Result<Option<String>, Failure> {
    match reference {
        None => Ok(None),
        Some(reference) => Ok(Some(Reference::new(reference).resolve::<R>(client).await?.to_string())),
    }
}
