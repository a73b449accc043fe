//! Taps, one for each NIC: a port of its network's bridge that accepts only frames of the NIC.

pub mod action;
mod apply;
mod plan;
mod text;

use std::collections::BTreeSet;

use otherix_schemas::id::NicId;
use uuid::Uuid;

use crate::engine::kind::{LinkKind, OwnerKind, PlannedOutcome};
use crate::engine::{DeviceKind, Interest, OwnerClaim, PlanContext};
use crate::model::desired::{Desired, DesiredTap};
use crate::model::link::{Link, TUN};

/// The device kind of taps.
pub struct TapKind;

impl DeviceKind for TapKind {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn link_kind(&self) -> Option<LinkKind> {
        Some(LinkKind { info_kind: TUN, owner: OwnerKind::Nic })
    }

    fn interest(&self, desired: &Desired) -> Interest {
        Interest { nic_ports: !desired.nics.is_empty(), ..Interest::default() }
    }

    fn nic_names(&self, tap: &DesiredTap, names: &mut BTreeSet<String>) {
        names.insert(tap.name.clone());
    }

    fn claim(&self, desired: &Desired, owner: Uuid, _: &Link) -> OwnerClaim {
        match desired.nics.get(&NicId::new(owner)).map(|nic| &nic.tap) {
            Some(Some(_)) => OwnerClaim::Required,
            Some(None) => OwnerClaim::Obsolete,
            None => OwnerClaim::Unknown,
        }
    }

    fn plan_nic(&self, context: &mut PlanContext<'_>, id: NicId, tap: &DesiredTap) -> PlannedOutcome {
        plan::nic(context, id, tap)
    }
}
