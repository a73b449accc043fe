//! The registry of join tokens and of nodes' keys: a function of the events about them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    EnrollmentEvent, JoinTokenCreated, JoinTokenRevoked, JoinTokenStatus, JoinTokenView, NodeKeyChanged,
    NodeKeyOffered, NodeKeyRegistered, NodeKeyRevoked,
};
use crate::cloudevent::Header;
use crate::id::{JoinTokenId, NodeId};
use crate::permission::Role;
use crate::timestamp::Timestamp;
use crate::user::{Caller, CallerError};
use crate::value::{NodeName, UserId, UserKey};

/// How long a join token that has expired is kept, in microseconds: 30 days.
const EXPIRED_KEPT: i64 = 30 * 24 * 3600 * 1_000_000;

/// The actor's name in what a machine with a join token does.
const TOKEN_NAME: &str = "join-token";

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredToken {
    /// The only node that can be joined with it.
    pub node_name: Option<NodeName>,
    pub key: UserKey,
    pub max_uses: u32,
    pub uses: u32,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// Stream version of its last event.
    pub version: u32,
}

/// A key, and when it was registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKey {
    pub key: UserKey,
    /// The `iat` of its JWT, as Unix time in seconds.
    pub issued_at: i64,
}

/// The keys of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKeys {
    pub name: NodeName,
    /// `None` if it is revoked.
    pub present: Option<NodeKey>,
    /// The one that is to follow, valid beside the present one.
    pub offered: Option<NodeKey>,
    /// When a key was last offered, as Unix time in seconds.
    pub offered_at: Option<i64>,
    /// The token with which the node was registered last.
    pub token_id: JoinTokenId,
    /// Whether nobody has joined with a key since: that of a machine whose agent was not started yet, or of somebody
    /// who had the token.
    pub is_unconfirmed: bool,
    /// Stream version of the last event about its keys.
    pub version: u32,
}

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Token(JoinTokenId),
    Node(NodeId),
}

/// All join tokens and keys of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SavedEnrollments")]
pub struct Enrollments {
    tokens: BTreeMap<JoinTokenId, RegisteredToken>,
    nodes: BTreeMap<NodeId, NodeKeys>,
    /// Keys that nodes had, with the second (Unix time) up to which credentials for them are not valid.
    revoked: BTreeMap<UserId, i64>,
    #[serde(skip_serializing)]
    by_key: BTreeMap<UserId, Holder>,
    /// The nodes that have a key, by name without regard to case.
    #[serde(skip_serializing)]
    by_name: BTreeMap<String, NodeId>,
}

/// What a state snapshot holds of [`Enrollments`].
#[derive(Deserialize)]
struct SavedEnrollments {
    tokens: BTreeMap<JoinTokenId, RegisteredToken>,
    nodes: BTreeMap<NodeId, NodeKeys>,
    revoked: BTreeMap<UserId, i64>,
}

impl From<SavedEnrollments> for Enrollments {
    fn from(SavedEnrollments { tokens, nodes, revoked }: SavedEnrollments) -> Self {
        let of_tokens = tokens.iter().map(|(id, token)| (UserId::from(&token.key), Holder::Token(*id)));
        let of_nodes = nodes.iter().flat_map(|(id, keys)| keys.valid().map(|key| (key.into(), Holder::Node(*id))));
        let by_key = of_tokens.chain(of_nodes).collect();
        let named = nodes.iter().filter(|(_, keys)| keys.present.is_some());
        let by_name = named.map(|(id, keys)| (keys.name.key(), *id)).collect();
        Self { tokens, nodes, revoked, by_key, by_name }
    }
}

/// A registry with these tokens, and no nodes.
impl FromIterator<(JoinTokenId, RegisteredToken)> for Enrollments {
    fn from_iter<T: IntoIterator<Item = (JoinTokenId, RegisteredToken)>>(tokens: T) -> Self {
        let tokens = tokens.into_iter().collect();
        SavedEnrollments { tokens, nodes: BTreeMap::new(), revoked: BTreeMap::new() }.into()
    }
}

impl RegisteredToken {
    /// Whether it can be redeemed as of `now`.
    pub fn status(&self, now: Timestamp) -> JoinTokenStatus {
        if self.revoked_at.is_some() {
            JoinTokenStatus::Revoked
        } else if self.expires_at <= now {
            JoinTokenStatus::Expired
        } else if self.uses >= self.max_uses {
            JoinTokenStatus::UsedUp
        } else {
            JoinTokenStatus::Active
        }
    }

    /// The token as answers contain it.
    pub fn view(&self, id: JoinTokenId, now: Timestamp) -> JoinTokenView {
        let status = self.status(now);
        let Self { node_name, key, max_uses, uses, created_at, expires_at, revoked_at, version: _ } = self.clone();
        JoinTokenView { id, node_name, key, status, max_uses, uses, created_at, expires_at, revoked_at }
    }

    /// Whether the next token takes its place.
    fn is_forgotten(&self, now: Timestamp) -> bool {
        self.expires_at.unix_micros().saturating_add(EXPIRED_KEPT) < now.unix_micros()
    }

    /// The `iat` of its JWT, as Unix time in seconds.
    pub fn issued_at(&self) -> i64 {
        second(self.created_at)
    }
}

impl NodeKeys {
    /// The keys that are valid.
    fn valid(&self) -> impl Iterator<Item = &UserKey> {
        self.present.iter().chain(&self.offered).map(|key| &key.key)
    }

    /// The valid key with this public key.
    pub fn find(&self, key: &UserKey) -> Option<&NodeKey> {
        self.present.iter().chain(&self.offered).find(|valid| valid.key == *key)
    }
}

impl Enrollments {
    pub fn tokens(&self) -> &BTreeMap<JoinTokenId, RegisteredToken> {
        &self.tokens
    }

    /// Whether a token is forgotten with the next one that is created, or was already.
    pub fn is_forgotten(&self, id: JoinTokenId, now: Timestamp) -> bool {
        self.tokens.get(&id).is_none_or(|token| token.is_forgotten(now))
    }

    /// The nodes that have, or had, a key.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeKeys> {
        &self.nodes
    }

    /// The keys of nodes that are not valid any more: no credential for them that was issued up to this second (Unix
    /// time).
    pub fn revoked(&self) -> &BTreeMap<UserId, i64> {
        &self.revoked
    }

    /// The node with this name, without regard to case.
    pub fn node_named(&self, name: &NodeName) -> Option<NodeId> {
        self.by_name.get(&name.key()).copied()
    }

    /// The node that a key is valid for.
    pub fn node_of(&self, key: &UserKey) -> Option<(NodeId, &NodeKeys)> {
        match self.by_key.get(&UserId::from(key))? {
            Holder::Node(id) => self.nodes.get(id).map(|keys| (*id, keys)),
            Holder::Token(_) => None,
        }
    }

    /// Whether a key was ever registered. Those of join tokens are forgotten some time after they have expired.
    pub fn was_registered(&self, key: &UserId) -> bool {
        self.by_key.contains_key(key) || self.revoked.contains_key(key)
    }

    /// Returns who may make requests with a key, as of `now`; `None` if it was never registered here.
    ///
    /// # Errors
    /// If nobody may any longer.
    pub fn find(&self, key: &UserId, now: Option<Timestamp>) -> Result<Option<Caller>, CallerError> {
        match self.by_key.get(key) {
            None if self.revoked.contains_key(key) => Err(CallerError::Revoked(key.clone())),
            None => Ok(None),
            Some(Holder::Node(id)) => {
                let name = self.nodes.get(id).map(|keys| keys.name.to_string()).unwrap_or_default();
                Ok(Some(Caller { key: key.clone(), id: (*id).into(), name, role: Role::Node, expires_at: None }))
            }
            Some(Holder::Token(id)) => {
                let Some(token) = self.tokens.get(id) else { return Ok(None) };
                if token.revoked_at.is_some() {
                    return Err(CallerError::TokenRevoked(*id));
                }
                let at = token.expires_at;
                if now.is_none_or(|now| now >= at) {
                    return Err(CallerError::TokenExpired { id: *id, at });
                }
                let (id, name, role) = ((*id).into(), TOKEN_NAME.to_owned(), Role::NodeJoin);
                Ok(Some(Caller { key: key.clone(), id, name, role, expires_at: Some(at) }))
            }
        }
    }

    /// Applies an event.
    pub fn apply(&mut self, header: &Header, event: &EnrollmentEvent) {
        match event {
            EnrollmentEvent::TokenCreated(event) => self.create_token(header, event),
            EnrollmentEvent::TokenRevoked(JoinTokenRevoked { token_id }) => {
                if let Some(token) = self.tokens.get_mut(token_id) {
                    token.revoked_at = Some(header.time);
                    token.version = header.stream_version;
                }
            }
            EnrollmentEvent::KeyRegistered(event) => self.register(header, event),
            EnrollmentEvent::KeyOffered(NodeKeyOffered { node_id, name: _, key }) => {
                self.change(header, *node_id, |keys| {
                    keys.offered = Some(NodeKey { key: key.clone(), issued_at: second(header.time) });
                    keys.offered_at = Some(second(header.time));
                });
            }
            EnrollmentEvent::KeyChanged(NodeKeyChanged { node_id, name: _, key }) => {
                self.change(header, *node_id, |keys| {
                    keys.is_unconfirmed = false;
                    // Otherwise it is the registered one, which is used for the first time.
                    if let Some(offered) = keys.offered.take_if(|offered| offered.key == *key) {
                        keys.present = Some(offered);
                    }
                });
            }
            EnrollmentEvent::KeyRevoked(NodeKeyRevoked { node_id, name: _ }) => {
                self.change(header, *node_id, |keys| (keys.present, keys.offered) = (None, None));
            }
        }
    }

    fn create_token(&mut self, header: &Header, event: &JoinTokenCreated) {
        let JoinTokenCreated { token_id, node_name, key, expires_at, max_uses } = event.clone();
        for (_, token) in self.tokens.extract_if(.., |_, token| token.is_forgotten(header.time)) {
            self.by_key.remove(&UserId::from(&token.key));
        }
        self.by_key.insert((&key).into(), Holder::Token(token_id));
        let (uses, created_at, revoked_at, version) = (0, header.time, None, header.stream_version);
        let token = RegisteredToken { node_name, key, max_uses, uses, created_at, expires_at, revoked_at, version };
        self.tokens.insert(token_id, token);
    }

    fn register(&mut self, header: &Header, event: &NodeKeyRegistered) {
        let NodeKeyRegistered { node_id, name, key, token_id } = event.clone();
        if let Some(token) = self.tokens.get_mut(&token_id) {
            token.uses = token.uses.saturating_add(1);
        }
        let registered = NodeKey { key: key.clone(), issued_at: second(header.time) };
        self.nodes.entry(node_id).or_insert_with(|| NodeKeys {
            name: name.clone(),
            present: None,
            offered: None,
            offered_at: None,
            token_id,
            is_unconfirmed: true,
            version: 0,
        });
        self.change(header, node_id, |keys| {
            (keys.name, keys.token_id, keys.is_unconfirmed) = (name, token_id, true);
            (keys.present, keys.offered) = (Some(registered), None);
        });
    }

    /// A node has joined for the first time, with the key that it has.
    pub(crate) fn joined(&mut self, id: NodeId) {
        if let Some(keys) = self.nodes.get_mut(&id) {
            keys.is_unconfirmed = false;
        }
    }

    /// Changes a node's keys. Those that are not valid any more are revoked.
    fn change(&mut self, header: &Header, id: NodeId, change: impl FnOnce(&mut NodeKeys)) {
        let Some(keys) = self.nodes.get_mut(&id) else { return };
        let before: Vec<NodeKey> = keys.present.iter().chain(&keys.offered).cloned().collect();
        // The name of a node without keys may be that of another one by now.
        if keys.present.is_some() {
            self.by_name.remove(&keys.name.key());
        }
        change(keys);
        if keys.present.is_some() {
            self.by_name.insert(keys.name.key(), id);
        }
        keys.version = header.stream_version;
        for NodeKey { key, issued_at } in before.into_iter().filter(|before| keys.find(&before.key).is_none()) {
            let key = UserId::from(&key);
            self.by_key.remove(&key);
            // The clock may have been set back since it was issued.
            self.revoked.insert(key, second(header.time).max(issued_at));
        }
        for key in keys.valid() {
            self.by_key.insert(key.into(), Holder::Node(id));
        }
    }
}

/// The Unix time in seconds, rounded down.
fn second(time: Timestamp) -> i64 {
    time.unix_micros().div_euclid(1_000_000)
}
