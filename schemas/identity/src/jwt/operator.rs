//! What a JWT says about an operator.

use serde::{Deserialize, Serialize};

use super::Body;
use crate::key::{KeyKind, PublicKey};

/// An operator: the keys that sign accounts for it, and the account of the servers' own services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<PublicKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_account: Option<PublicKey>,
    /// Accounts must be signed with one of the signing keys.
    #[serde(default)]
    pub strict_signing_key_usage: bool,
}

impl Body for Operator {
    const TYPE: &'static str = "operator";
    const SUBJECT: KeyKind = KeyKind::Operator;
    const ISSUER: KeyKind = KeyKind::Operator;
}
