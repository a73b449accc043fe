//! What a JWT says about an account: what it shares with others, its limits, and the keys that sign its users.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::user::UserPermissions;
use super::{Body, UNLIMITED};
use crate::key::{KeyKind, PublicKey};

/// Whether an account shares messages that it publishes, or answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportKind {
    Stream,
    Service,
}

/// How many answers a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseKind {
    Singleton,
    Stream,
}

/// What other accounts may import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    pub name: String,
    pub subject: String,
    #[serde(rename = "type")]
    pub kind: ExportKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_type: Option<ResponseKind>,
    /// Nanoseconds after the last answer from which on a request has no further ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_threshold: Option<u64>,
}

/// What an account takes from another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    pub name: String,
    /// The subject in the other account.
    pub subject: String,
    pub account: PublicKey,
    /// The subject in this account, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_subject: Option<String>,
    #[serde(rename = "type")]
    pub kind: ExportKind,
    /// The exporting account is told who asks.
    #[serde(default)]
    pub share: bool,
}

/// Where messages on a subject go instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    pub subject: String,
    /// Percent of the messages; 0 stands for all.
    #[serde(default)]
    pub weight: u8,
}

/// Limits of an account; -1 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLimits {
    /// Subscriptions.
    pub subs: i64,
    /// Bytes.
    pub data: i64,
    /// Bytes of a message.
    pub payload: i64,
    pub imports: i64,
    pub exports: i64,
    /// Whether exports may have wildcards.
    pub wildcards: bool,
    /// Connections of clients.
    pub conn: i64,
    /// Connections of leaf nodes.
    pub leaf: i64,
    #[serde(flatten)]
    pub jetstream: JetStreamLimits,
}

/// Limits of JetStream; 0 is none of it, -1 no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JetStreamLimits {
    /// Bytes.
    #[serde(default)]
    pub mem_storage: i64,
    /// Bytes.
    #[serde(default)]
    pub disk_storage: i64,
    #[serde(default)]
    pub streams: i64,
    #[serde(default)]
    pub consumer: i64,
}

impl JetStreamLimits {
    /// As much as the server has.
    pub const UNLIMITED: Self =
        Self { mem_storage: UNLIMITED, disk_storage: UNLIMITED, streams: UNLIMITED, consumer: UNLIMITED };
}

impl AccountLimits {
    /// No limits, but no leaf nodes and no JetStream either.
    pub const CLIENTS_ONLY: Self = Self {
        subs: UNLIMITED,
        data: UNLIMITED,
        payload: UNLIMITED,
        imports: UNLIMITED,
        exports: UNLIMITED,
        wildcards: true,
        conn: UNLIMITED,
        leaf: 0,
        jetstream: JetStreamLimits { mem_storage: 0, disk_storage: 0, streams: 0, consumer: 0 },
    };
}

/// The kind of a [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    UserScope,
}

/// A signing key whose users all have the same permissions. In subjects, `{{subject()}}` stands for the user's own
/// public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub kind: ScopeKind,
    pub key: PublicKey,
    pub role: String,
    pub template: UserPermissions,
}

/// An account: a space of subjects with its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<Import>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<Export>,
    pub limits: AccountLimits,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<Scope>,
    /// Users, by public key, whose JWTs are refused if they were issued at this Unix time, in seconds, or before. The
    /// key `*` stands for all users.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revocations: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mappings: BTreeMap<String, Vec<Mapping>>,
}

impl Account {
    /// An account that shares nothing and has no users.
    pub fn new(limits: AccountLimits) -> Self {
        Self {
            imports: Vec::new(),
            exports: Vec::new(),
            limits,
            signing_keys: Vec::new(),
            revocations: BTreeMap::new(),
            mappings: BTreeMap::new(),
        }
    }
}

impl Body for Account {
    const TYPE: &'static str = "account";
    const SUBJECT: KeyKind = KeyKind::Account;
    const ISSUER: KeyKind = KeyKind::Operator;
    /// No server accepts it before an operator has signed it.
    const SELF_SIGNED: bool = true;
}
