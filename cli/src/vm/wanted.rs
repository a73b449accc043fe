//! A VM as a person asks for it, who knows networks and nodes by their names.

use otherix_schemas::network::NetworkView;
use otherix_schemas::node::NodeView;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::VmDraft;

use crate::client::Client;
use crate::failure::Failure;
use crate::thing::{Reference, Thing};

/// A VM as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WantedVm {
    /// Its name.
    pub(crate) name: String,
    /// Where its image is.
    pub(crate) image_url: Option<String>,
    /// Its architecture.
    pub(crate) arch: Option<String>,
    /// The name or UUID of its NIC's network.
    pub(crate) network: Option<String>,
    /// The name or UUID of its node.
    pub(crate) node: Option<String>,
}

impl WantedVm {
    /// The rules that it breaks, as far as they can be judged before anybody is asked.
    pub(crate) fn violations(&self) -> Violations {
        let mut violations = self.draft().check().err().unwrap_or_default();
        for (field, reference) in [("network", &self.network), ("node", &self.node)] {
            if reference.as_ref().is_some_and(|text| text.trim().is_empty()) {
                violations.add(field, "must not be empty");
            }
        }
        violations
    }

    /// What the control plane is to be asked, with the ids of what is named here: one look-up for each name.
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

async fn id<T: Thing>(reference: Option<&str>, client: &mut Client) -> Result<Option<String>, Failure> {
    let id = match reference.map(Reference::new) {
        None => return Ok(None),
        // The control plane says whether there is such a thing.
        Some(Reference::Id(id)) => id,
        Some(name) => name.look_up::<T>(client).await?.id(),
    };
    Ok(Some(id.to_string()))
}
