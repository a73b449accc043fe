//! One id type for each kind of thing, so that none is taken for another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID that was made elsewhere; nothing here draws one.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdError(text.to_owned()))
            }
        }
    };
}

id! {
    /// One otherix installation: made at its first start.
    ClusterId
}
id! {
    /// A network.
    NetworkId
}
id! {
    /// A hypervisor: made on it, at its first start.
    NodeId
}
id! {
    /// A virtual machine.
    VmId
}
id! {
    /// A VM's network card.
    NicId
}
id! {
    /// An event (UUID version 7).
    EventId
}
id! {
    /// One request and all that follows from it.
    CorrelationId
}

/// A text that is no UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID, not `{0}`")]
pub struct IdError(String);
