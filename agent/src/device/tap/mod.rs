//! Taps: one for each NIC, a port of its network's bridge that accepts no frames but the NIC's.

pub mod action;
mod apply;
pub mod desired;
mod plan;
mod text;

use std::collections::BTreeSet;

use otherix_schemas::id::NicId;
use uuid::Uuid;

use self::desired::DesiredTap;
use crate::engine::kind::{Links, OwnerKind, Verdict};
use crate::engine::{Claim, DeviceKind, Interest, PlanContext};
use crate::model::desired::Desired;
use crate::model::link::{Link, TUN};

/// The kind of taps.
pub struct Tap;

impl DeviceKind for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn links(&self) -> Option<Links> {
        Some(Links { kind: TUN, owner: OwnerKind::Nic })
    }

    fn interest(&self, desired: &Desired) -> Interest {
        Interest { nic_ports: !desired.nics.is_empty(), ..Interest::default() }
    }

    fn nic_names(&self, tap: &DesiredTap, names: &mut BTreeSet<String>) {
        names.insert(tap.name.clone());
    }

    fn claim(&self, desired: &Desired, owner: Uuid, _: &Link) -> Claim {
        match desired.nics.get(&NicId::new(owner)).map(|nic| &nic.tap) {
            Some(Some(_)) => Claim::Required,
            Some(None) => Claim::Obsolete,
            None => Claim::Unknown,
        }
    }

    fn plan_nic(&self, context: &mut PlanContext<'_>, id: NicId, tap: &DesiredTap) -> Verdict {
        plan::nic(context, id, tap)
    }
}
