//! Ids, a type for each kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::value::UserId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

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
    /// The id of a cluster, generated at its control plane's first start.
    ClusterId
}
id! {
    /// The id of a network (UUID version 7).
    NetworkId
}
id! {
    /// The id of a node, generated when it redeems its first join token.
    NodeId
}
id! {
    /// The id of a VM (UUID version 7).
    VmId
}
id! {
    /// The id of a NIC (UUID version 4).
    NicId
}
id! {
    /// The id of a user (UUID version 7). See [`UserId`] for the text in events.
    UserUuid
}
id! {
    /// The id of a join token (UUID version 7).
    JoinTokenId
}
id! {
    /// The id of an event (UUID version 7).
    EventId
}
id! {
    /// The id of a request, shared by all events that result from it.
    CorrelationId
}

macro_rules! caller_id {
    ($name:ident) => {
        impl From<$name> for UserId {
            fn from(id: $name) -> Self {
                Self::of_uuid(id.uuid())
            }
        }
    };
}
caller_id!(UserUuid);
caller_id!(NodeId);
caller_id!(JoinTokenId);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID, not `{0}`")]
pub struct IdError(String);
