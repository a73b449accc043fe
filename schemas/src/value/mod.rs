//! Values that are checked once, where they enter, and are right from then on.

mod bridge_name;
mod image_url;
mod mac;
mod mesh_endpoint;
mod mesh_public_key;
mod mtu;
mod name;
mod subnet;
mod user;
mod vlan;
mod vni;

pub use bridge_name::{BridgeName, BridgeNameError};
pub use image_url::{ImageUrl, ImageUrlError};
pub use mac::{MacAddress, MacError};
pub use mesh_endpoint::{MeshEndpoint, MeshEndpointError};
pub use mesh_public_key::{MeshPublicKey, MeshPublicKeyError};
pub use mtu::{Mtu, MtuError};
pub use name::{NameError, NetworkName, NodeName, NodeNameError, VmName};
pub use subnet::{Ipv4Subnet, Nat, NatError, SubnetError};
pub use user::{UserId, UserIdError};
pub use vlan::{VlanId, VlanIdError};
pub use vni::{Vni, VniError, VniRange};

/// Gives a checked string type its conversions, so that each type only states its rule.
macro_rules! string_value {
    ($type:ident, $error:ident) => {
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::str::FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }
        impl TryFrom<String> for $type {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                Self::parse(&text)
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.0
            }
        }
    };
}
pub(crate) use string_value;
