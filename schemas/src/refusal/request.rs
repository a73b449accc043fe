//! Requests about refused commands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::view::Refusals;
use crate::permission::Permission;
use crate::request::{Request, RequestKind, RequestType};
use crate::violations::Violations;

/// The requests about refused commands.
pub(crate) const REQUESTS: &[Request] = &[Request::of::<ListRefusals>()];

/// Most ids of a query.
pub const REFUSAL_IDS_MAX: usize = 64;

/// Selects refused commands that name one of the ids, or the resource; without either, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RefusalQuery {
    /// Ids of resources; at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Uuid>,
    /// A resource by its name: that of one that could not be created is its only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named: Option<NamedResource>,
}

/// A resource by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedResource {
    /// `network`, `vm` or `node`: the first part of the names of its requests.
    pub resource: String,
    /// Without regard to case.
    pub name: String,
}

impl RefusalQuery {
    /// Checks the limits.
    ///
    /// # Errors
    /// If there are too many ids.
    pub fn check(&self) -> Result<(), Violations> {
        if self.ids.len() > REFUSAL_IDS_MAX {
            return Err(Violations::one("ids", format!("must be at most {REFUSAL_IDS_MAX}")));
        }
        Ok(())
    }
}

/// `refusal.list`
#[derive(Clone, Copy, Debug)]
pub struct ListRefusals;

impl RequestType for ListRefusals {
    const NAME: &'static str = "refusal.list";
    const PERMISSION: Permission = Permission::RefusalRead;
    const KIND: RequestKind = RequestKind::Unrecorded;
    const SUMMARY: &'static str = "List commands that were refused";
    const DESCRIPTION: &'static str = "At most 200 of those that are selected, the oldest first; of more, callers \
        take turns, from the latest one of each. The control plane keeps the latest 1,000 of each caller, 100,000 in \
        all, outside of the journal: nothing proves that they are all. \
        Those that the NATS server has refused are in the control plane's log only. Commands about users, join \
        tokens and keys are left out for roles without `audit:read`.";
    type Body = RefusalQuery;
    type Answer = Refusals;
}
