//! Whose a device is. Every device of ours says so in its alias; until it has one, its name does.

use std::fmt;
use std::str::FromStr;

use otherix_schemas::id::{ClusterId, NetworkId, NicId};
use uuid::Uuid;

/// What an alias of ours begins with.
const PREFIX: &str = "otherix:";

/// What the name of a device in the making begins with. No user may ask for a name with a dot.
const TEMPORARY: &str = "ot.";

/// Characters of a UUID with its hyphens.
const UUID_LENGTH: usize = 36;

/// Hex digits in the name of a device in the making: with them it has 15 bytes, the most there can be (`IFNAMSIZ` - 1).
const TEMPORARY_DIGITS: usize = 12;

/// The cluster that a device was made for, and the network if it is a bridge or VTEP, the NIC if it is a tap; its alias is
/// `otherix:<cluster>:<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The id of the network or NIC.
    pub id: Uuid,
}

impl Owner {
    /// Of a network's bridge and VTEP.
    pub fn of_network(cluster: ClusterId, network: NetworkId) -> Self {
        Self { cluster, id: network.uuid() }
    }

    /// Of a NIC's tap.
    pub fn of_nic(cluster: ClusterId, nic: NicId) -> Self {
        Self { cluster, id: nic.uuid() }
    }
}

/// A text that is no alias of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the alias of a device of otherix")]
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
        // A UUID can be spelled in more than one way; we write only one. Every link is asked at every plan: this is cheap.
        let written = |id: &str| id.len() == UUID_LENGTH && !id.bytes().any(|b| b.is_ascii_uppercase());
        if !written(cluster) || !written(id) {
            return Err(error());
        }
        Ok(Self { cluster: cluster.parse().map_err(|_| error())?, id: id.parse().map_err(|_| error())? })
    }
}

/// The name of a network's or NIC's device while it is being made. The digits are the last of the id, which
/// are random; the first are the time, which networks of one batch share.
pub fn temporary_name(id: Uuid) -> String {
    let digits = id.as_simple().to_string();
    let tail = digits.len().saturating_sub(TEMPORARY_DIGITS);
    format!("{TEMPORARY}{}", digits.get(tail..).unwrap_or_default())
}

/// The name of a network's VTEP while it is being made; its bridge has another.
pub fn temporary_vtep_name(network: NetworkId) -> String {
    temporary_name(Uuid::from_u128(!network.uuid().as_u128()))
}

/// Whether a device of this name is one in the making.
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
    fn an_alias_is_read_as_it_is_written() {
        assert_eq!(ALIAS.parse::<Owner>().unwrap().to_string(), ALIAS);
        let upper = ALIAS.replace('b', "B");
        for bad in ["", "otherix:", "uplink", &ALIAS[1..], &ALIAS[..ALIAS.len() - 1], &upper] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_in_the_making_is_known_by_its_name() {
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
