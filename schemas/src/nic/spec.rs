//! What identifies a NIC on its node.

use crate::id::NicId;

/// Hex digits of a NIC's id in the name of its tap: with `ot`, 14 of the 15 bytes that an interface name may have.
const TAP_DIGITS: usize = 12;

/// The random values for a new NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratedNic {
    pub nic_id: NicId,
    /// Where the search for an unused MAC address begins: the argument of [`crate::value::MacAddress::assigned`].
    pub mac: u32,
}

/// The name of a NIC's tap: `ot` and the first 12 hex digits of the NIC's id. Bridges cannot have such names.
pub fn tap_name(nic: NicId) -> String {
    let digits = nic.uuid().as_simple().to_string();
    format!("ot{}", digits.get(..TAP_DIGITS).unwrap_or(&digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::BridgeName;

    #[test]
    fn tap_name_is_reserved() {
        let name = tap_name("0198e8c4-0abc-4000-8000-000000000001".parse().unwrap());
        assert_eq!(name, "ot0198e8c40abc");
        assert!(name.parse::<BridgeName>().is_err());
    }
}
