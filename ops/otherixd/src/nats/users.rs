//! The users of the control plane's own connections, which exist in memory only.

use std::sync::Arc;

use otherix_transport::Credentials;

use super::accounts::AccountName;
use super::error::NatsError;
use super::identity::Identity;
use super::scope::{ControlPlanePart, Scope};

/// The credentials of the control plane's own connections. Generated at each start.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlaneUsers {
    /// `None` if the system account is somebody else's.
    pub(crate) claims: Option<Credentials>,
    pub(crate) relay: Credentials,
    pub(crate) people: Credentials,
    pub(crate) nodes: Credentials,
    pub(crate) mirror: Credentials,
    pub(crate) state: Credentials,
    pub(crate) state_mirrors: Credentials,
}

impl ControlPlaneUsers {
    /// Generates their keys and signs them. `now` is the Unix time in seconds.
    pub(super) fn generate(identity: &Identity, now: u64) -> Result<Self, NatsError> {
        let user = |part: ControlPlanePart| {
            let creds = identity.new_user(part.name(), Scope::Part(part), now)?;
            Ok::<_, NatsError>(Credentials::Key(Arc::new(creds)))
        };
        Ok(Self {
            claims: identity.account(AccountName::System).ok().map(|_| user(ControlPlanePart::Claims)).transpose()?,
            relay: user(ControlPlanePart::Relay)?,
            people: user(ControlPlanePart::PeopleService)?,
            nodes: user(ControlPlanePart::NodesService)?,
            mirror: user(ControlPlanePart::Mirror)?,
            state: user(ControlPlanePart::State)?,
            state_mirrors: user(ControlPlanePart::StateMirrors)?,
        })
    }
}
