//! The actions on taps, as data.

use std::fmt;

use otherix_schemas::id::NicId;
use serde::Serialize;

use crate::device::port::action::PortChanges;
use crate::model::desired::DesiredTap;

/// Creates a NIC's tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CreateTap {
    #[serde(skip)]
    pub nic: NicId,
    pub tap: DesiredTap,
    pub changes: PortChanges,
}

/// Corrects a tap of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairTap {
    #[serde(skip)]
    pub nic: NicId,
    pub index: u32,
    pub changes: PortChanges,
}

impl fmt::Display for CreateTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nic, tap, changes: _ } = self;
        write!(f, "create tap {} for NIC {nic}", tap.name)
    }
}

impl fmt::Display for RepairTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nic, index, changes } = self;
        write!(f, "repair tap {index} of NIC {nic}:{changes}")
    }
}
