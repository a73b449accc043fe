//! The owner of a device, which its alias contains. Until a new device has its alias, its temporary name marks it as
//! ours.

use std::fmt;
use std::str::FromStr;

use otherix_schemas::id::{ClusterId, NetworkId, NicId};
use uuid::Uuid;

/// The prefix of an alias of ours.
const PREFIX: &str = "otherix:";

/// The prefix of a temporary name. Users cannot choose a name with a dot.
const TEMPORARY: &str = "ot.";

/// Characters of a UUID with hyphens.
const UUID_LENGTH: usize = 36;

/// Hex digits of a temporary name, which make it 15 bytes long, the maximum (`IFNAMSIZ` - 1).
const TEMPORARY_DIGITS: usize = 12;

/// The cluster and the resource that a device was created for: a network (bridge, VTEP) or a NIC (tap). The alias is
/// `otherix:<cluster>:<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub cluster: ClusterId,
    /// The id of the network or NIC.
    pub id: Uuid,
}

impl Owner {
    /// Returns the owner of a network's devices.
    pub fn of_network(cluster: ClusterId, network: NetworkId) -> Self {
        Self { cluster, id: network.uuid() }
    }

    /// Returns the owner of a NIC's devices.
    pub fn of_nic(cluster: ClusterId, nic: NicId) -> Self {
        Self { cluster, id: nic.uuid() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an alias of an otherix device")]
pub struct OwnerError(String);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, id } = self;
        write!(f, "{PREFIX}{cluster}:{id}")
    }
}

impl FromStr for Owner {
    type Err = OwnerError;
    fn from_str(text: &str) -> Result<Self, OwnerError> {
        let error = || OwnerError(text.to_owned());
        let ids = text.strip_prefix(PREFIX).ok_or_else(error)?;
        let (cluster, id) = ids.split_once(':').ok_or_else(error)?;
        // `Uuid::from_str` accepts other forms too.
        let is_canonical = |id: &str| id.len() == UUID_LENGTH && !id.bytes().any(|b| b.is_ascii_uppercase());
        if !is_canonical(cluster) || !is_canonical(id) {
            return Err(error());
        }
        Ok(Self { cluster: cluster.parse().map_err(|_| error())?, id: id.parse().map_err(|_| error())? })
    }
}

/// Returns the temporary name of a resource's device. It contains the last digits of the id, which are random; the
/// first are a timestamp, which resources created together share.
pub fn temporary_name(id: Uuid) -> String {
    let digits = id.as_simple().to_string();
    let tail = digits.len().saturating_sub(TEMPORARY_DIGITS);
    format!("{TEMPORARY}{}", digits.get(tail..).unwrap_or_default())
}

/// Returns the temporary name of a network's VTEP: its bridge has [`temporary_name`].
pub fn temporary_vtep_name(network: NetworkId) -> String {
    temporary_name(Uuid::from_u128(!network.uuid().as_u128()))
}

/// Whether the name is a temporary one.
pub fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY).is_some_and(|digits| {
        digits.len() == TEMPORARY_DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIAS: &str = "otherix:01890a5d-ac96-774b-bcce-b302099a8057:01890a5d-ac96-774b-bcce-b302099a8058";

    #[test]
    fn parses_its_display_form() {
        assert_eq!(ALIAS.parse::<Owner>().unwrap().to_string(), ALIAS);
        let upper = ALIAS.replace('b', "B");
        for bad in ["", "otherix:", "uplink", &ALIAS[1..], &ALIAS[..ALIAS.len() - 1], &upper] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }

    #[test]
    fn recognises_temporary_names() {
        let name = temporary_name(ALIAS.parse::<Owner>().unwrap().id);
        assert_eq!(name, "ot.b302099a8058");
        assert!(is_temporary(&name));
        let vtep = temporary_vtep_name(NetworkId::new(ALIAS.parse::<Owner>().unwrap().id));
        assert_eq!(vtep, "ot.4cfdf6657fa7");
        assert!(is_temporary(&vtep));
        for other in ["ot.", "ot0123456789ab", "ot.0123456789a", "ot.0123456789AB", "ot.0123456789abc", "br-app"] {
            assert!(!is_temporary(other), "{other}");
        }
    }
}
