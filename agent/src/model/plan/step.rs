//! The steps of a plan, and which of them are not to be tried for now.

use std::collections::BTreeMap;
use std::fmt;

use otherix_schemas::id::NetworkId;
use serde::{Deserialize, Serialize};

use crate::model::desired::DesiredBridge;
use crate::model::observed::Settings;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Make a network's bridge.
    Create {
        /// The network.
        network: NetworkId,
        /// The bridge.
        bridge: DesiredBridge,
    },
    /// Change a bridge of ours back to what it must be.
    Repair {
        /// The network.
        network: NetworkId,
        /// The bridge.
        index: u32,
        /// What to change.
        changes: Changes,
    },
    /// Remove a bridge of ours.
    Remove {
        /// The bridge.
        index: u32,
        /// Its name.
        name: String,
    },
}

/// What differs from what must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// The name it must get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The MTU it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// It is down.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// It lacks its alias.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alias: bool,
    /// It is a port of something.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
    /// Settings that it must have again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// A setting that somebody changed, and how it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// See [`Settings::stp`].
    Stp(bool),
    /// See [`Settings::vlan_filtering`].
    VlanFiltering(bool),
    /// See [`Settings::mcast_snooping`].
    McastSnooping(bool),
    /// See [`Settings::mcast_querier`].
    McastQuerier(bool),
}

impl Setting {
    /// What is to be changed about `is` so that it becomes [`Settings::OURS`].
    pub(super) fn changes(is: Settings) -> Vec<Self> {
        let Settings { stp, vlan_filtering, mcast_snooping, mcast_querier } = Settings::OURS;
        let changes = [
            (is.stp != stp, Self::Stp(stp)),
            (is.vlan_filtering != vlan_filtering, Self::VlanFiltering(vlan_filtering)),
            (is.mcast_snooping != mcast_snooping, Self::McastSnooping(mcast_snooping)),
            (is.mcast_querier != mcast_querier, Self::McastQuerier(mcast_querier)),
        ];
        changes.into_iter().filter_map(|(differs, setting)| differs.then_some(setting)).collect()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { network, bridge } => {
                let DesiredBridge { name, mtu } = bridge;
                write!(f, "create bridge {name} with mtu {mtu} for network {network}")
            }
            Self::Repair { network, index, changes } => {
                write!(f, "repair bridge {index} of network {network}:{changes}")
            }
            Self::Remove { index, name } => write!(f, "remove bridge {name} ({index})"),
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mtu, up, alias, release, settings } = self;
        name.iter().try_for_each(|name| write!(f, " name {name}"))?;
        mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
        for (changes, what) in [(alias, " alias"), (release, " nomaster"), (up, " up")] {
            if *changes {
                f.write_str(what)?;
            }
        }
        settings.iter().try_for_each(|setting| match setting {
            Setting::Stp(on) => write!(f, " stp {on}"),
            Setting::VlanFiltering(on) => write!(f, " vlan_filtering {on}"),
            Setting::McastSnooping(on) => write!(f, " mcast_snooping {on}"),
            Setting::McastQuerier(on) => write!(f, " mcast_querier {on}"),
        })
    }
}

/// Steps that are not to be tried for now: the kernel refused them, or somebody undoes them again and again. The texts are
/// for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// Creations and repairs.
    pub networks: BTreeMap<NetworkId, String>,
    /// Removals, by the index of the device.
    pub devices: BTreeMap<u32, String>,
}
