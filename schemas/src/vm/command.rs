//! Commands on VMs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NewVm;
use crate::id::VmId;
use crate::nic::GeneratedNic;

/// A command on a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmCommand {
    /// Create a VM and, if it names a network, its NIC.
    Create {
        /// Generated for the request.
        vm_id: VmId,
        /// For the NIC, if there is to be one.
        nic: GeneratedNic,
        vm: NewVm,
    },
    /// Delete a VM and its NIC.
    Delete { vm_id: VmId },
}

/// Selects a VM by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VmById {
    pub id: VmId,
}
