//! Values that are validated once, when they are parsed. A value of such a type is valid.

mod bridge_name;
mod image_digest;
mod image_url;
mod mac;
mod mesh_endpoint;
mod mesh_public_key;
mod metadata;
mod mtu;
mod name;
mod subnet;
mod user;
mod user_key;
mod vlan;
mod vni;

pub use bridge_name::{BridgeName, BridgeNameError};
pub use image_digest::{ImageDigest, ImageDigestError};
pub use image_url::{ImageUrl, ImageUrlError};
pub use mac::{MacAddress, MacError};
pub use mesh_endpoint::{MeshEndpoint, MeshEndpointError};
pub use mesh_public_key::{MeshPublicKey, MeshPublicKeyError};
pub use metadata::{Description, DescriptionError, LABELS_MAX, LabelError, Labels, Metadata, MetadataChanges};
pub(crate) use metadata::{labels_from_json, merge_labels};
pub use mtu::{Mtu, MtuError};
pub use name::{NameError, NetworkName, NodeName, NodeNameError, UserName, VmName, name_key};
pub use subnet::{GatewaySubnet, HostAddressError, Ipv4Subnet, SubnetError};
pub use user::{UserId, UserIdError};
pub use user_key::{UserKey, UserKeyError};
pub use vlan::{VlanId, VlanIdError};
pub use vni::{Vni, VniError, VniRange};

/// Implements the conversions of a string type that has a `parse` function.
macro_rules! string_value {
    ($type:ident, $error:ident) => {
        impl $type {
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
