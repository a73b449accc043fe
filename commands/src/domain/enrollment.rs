//! Join tokens and keys of nodes: the decisions about them, and the reply. Their state is part of the registry of
//! callers ([`otherix_schemas::enrollment::Enrollments`]).

use otherix_schemas::cloudevent::EventEnvelope;
use otherix_schemas::enrollment::{
    EnrollmentCommand, EnrollmentEvent, Enrollments, JoinTokenCreated, JoinTokenRevoked, JoinTokenStatus,
    JoinTokenView, NewJoinToken, NodeKeyChanged, NodeKeyOffered, NodeKeyRegistered, NodeKeyRevoked, NodeKeyView,
    NodeKeys, NodeToEnroll, RegisteredToken,
};
use otherix_schemas::event::Event;
use otherix_schemas::id::{JoinTokenId, NodeId, UserUuid};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::value::{NodeName, UserId, UserKey};

use super::user::{check_expiry, check_key};
use super::{Decision, Rejection, Reply, State};

/// Time between two keys that a node offers, in seconds. Keys that were given up are kept for ever, and NATS is told of
/// all of them.
const OFFER_INTERVAL: i64 = 600;

/// Longest validity of a token, in microseconds: 366 days.
const VALIDITY_MAX: i64 = 366 * 24 * 3600 * 1_000_000;

/// Most tokens that can be redeemed at the same time.
const ACTIVE_MAX: usize = 1000;

impl State {
    /// Returns the join tokens, and the keys of nodes.
    pub fn enrollments(&self) -> &Enrollments {
        self.callers().enrollments()
    }

    fn token(&self, id: JoinTokenId) -> Result<&RegisteredToken, Rejection> {
        self.enrollments().tokens().get(&id).ok_or(Rejection::NoSuchJoinToken(id))
    }

    /// Returns the name of a node: of a member, or of one that has a key and has not joined yet.
    fn name_of(&self, node: NodeId) -> Option<&NodeName> {
        let enrolled = || self.enrollments().nodes().get(&node).filter(|keys| keys.present.is_some());
        self.nodes().get(&node).map(|member| &member.name).or_else(|| enrolled().map(|keys| &keys.name))
    }

    /// Returns the node with this name: a member, or one that has a key and has not joined yet.
    fn node_or_enrolled(&self, name: &NodeName) -> Option<NodeId> {
        self.node_named(name).or_else(|| self.enrollments().node_named(name))
    }
}

pub(super) fn decide(state: &State, now: Timestamp, command: &EnrollmentCommand) -> Result<Decision, Rejection> {
    // The time that the events will have.
    let now = state.time().map_or(now, |last| last.max(now));
    match command {
        EnrollmentCommand::CreateToken { token_id, token } => create(state, now, *token_id, token.clone()),
        EnrollmentCommand::RevokeToken { token_id } => revoke(state, *token_id),
        EnrollmentCommand::Enroll { token_id, new_id, node } => enroll(state, now, *token_id, *new_id, node),
        EnrollmentCommand::OfferKey { node_id, key } => offer(state, now, *node_id, key),
    }
}

fn create(
    state: &State,
    now: Timestamp,
    token_id: JoinTokenId,
    NewJoinToken { node_name, key, expires_at, max_uses }: NewJoinToken,
) -> Result<Decision, Rejection> {
    check_key(state, &key)?;
    check_expiry(now, Some(expires_at))?;
    let tokens = state.enrollments().tokens().values();
    if tokens.filter(|token| token.status(now) == JoinTokenStatus::Active).count() >= ACTIVE_MAX {
        return Err(Rejection::TooManyJoinTokens(ACTIVE_MAX));
    }
    if expires_at.unix_micros() > now.unix_micros().saturating_add(VALIDITY_MAX) {
        return Err(Rejection::JoinTokenTooLong(expires_at));
    }
    // Nobody could revoke what was redeemed with a token that is forgotten.
    let forgotten = |keys: &NodeKeys| state.enrollments().is_forgotten(keys.token_id, now);
    let events =
        not_joined(state, forgotten)
            .chain([JoinTokenCreated { token_id, node_name, key, expires_at, max_uses }.into()]);
    Ok(events.collect::<Vec<Event>>().into())
}

/// The ends of keys of nodes that have not joined.
fn not_joined(state: &State, is_meant: impl Fn(&NodeKeys) -> bool) -> impl Iterator<Item = Event> {
    let nodes = state.enrollments().nodes().iter();
    let meant =
        nodes.filter(move |(id, keys)| keys.present.is_some() && is_meant(keys) && !state.nodes().contains_key(id));
    meant.map(|(id, keys)| NodeKeyRevoked { node_id: *id, name: keys.name.clone() }.into())
}

/// Also revokes what was redeemed with the token and is not in use: whoever revokes a token may have lost it.
fn revoke(state: &State, token_id: JoinTokenId) -> Result<Decision, Rejection> {
    if state.token(token_id)?.revoked_at.is_some() {
        return Ok(Decision::default());
    }
    let nodes = state.enrollments().nodes().iter();
    let unused = nodes.filter(|(_, keys)| keys.present.is_some() && keys.token_id == token_id && keys.is_unconfirmed);
    let revoked = unused.map(|(id, keys)| NodeKeyRevoked { node_id: *id, name: keys.name.clone() }.into());
    let events: Vec<Event> = [JoinTokenRevoked { token_id }.into()].into_iter().chain(revoked).collect();
    Ok(events.into())
}

fn enroll(
    state: &State,
    now: Timestamp,
    token_id: JoinTokenId,
    new_id: NodeId,
    NodeToEnroll { name, key, node_id: own }: &NodeToEnroll,
) -> Result<Decision, Rejection> {
    let token = state.token(token_id)?;
    // A machine that was interrupted asks again.
    let registered = state.enrollments().node_of(key);
    if registered.is_some_and(|(_, keys)| keys.token_id == token_id && keys.name.key() == name.key()) {
        return Ok(Decision::default());
    }
    check_key(state, key)?;
    match token.status(now) {
        JoinTokenStatus::Active => {}
        JoinTokenStatus::UsedUp => return Err(Rejection::JoinTokenUsedUp { id: token_id, uses: token.uses }),
        JoinTokenStatus::Expired => {
            return Err(Rejection::JoinTokenExpired { id: token_id, at: token.expires_at });
        }
        JoinTokenStatus::Revoked => return Err(Rejection::JoinTokenRevoked(token_id)),
    }
    if let Some(named) = token.node_name.as_ref().filter(|named| named.key() != name.key()) {
        return Err(Rejection::JoinTokenOfAnotherNode { named: named.clone(), name: name.clone() });
    }
    if let Some(own) = own {
        check_own_id(state, *own)?;
    }
    let (node_id, name) = match state.node_or_enrolled(name) {
        Some(existing) if token.node_name.is_none() => {
            return Err(Rejection::NodeNeedsNamedToken { name: name.clone(), node: existing });
        }
        Some(existing) if own.is_some_and(|own| own != existing) => {
            return Err(Rejection::StateFolderOfAnotherNode { name: name.clone(), own: own.unwrap_or(existing) });
        }
        // A node keeps its name as it is.
        Some(existing) => (existing, state.name_of(existing).unwrap_or(name)),
        None => (own.unwrap_or(new_id), name),
    };
    check_name(state, node_id, name)?;
    Ok(Decision::one(NodeKeyRegistered { node_id, name: name.clone(), key: key.clone(), token_id }))
}

/// The id in a machine's state folder is not that of a removed node, nor of a user or token: ids name who did what.
fn check_own_id(state: &State, own: NodeId) -> Result<(), Rejection> {
    if state.roster().removed.contains_key(&own) {
        return Err(state.roster().unknown(own));
    }
    let is_user = state.callers().users().contains_key(&UserUuid::new(own.uuid()));
    let is_token = state.enrollments().tokens().contains_key(&JoinTokenId::new(own.uuid()));
    if is_user || is_token { Err(Rejection::NodeIdTaken(own)) } else { Ok(()) }
}

/// A node keeps its name, and no other node has it.
pub(super) fn check_name(state: &State, node: NodeId, name: &NodeName) -> Result<(), Rejection> {
    if let Some(other) = state.name_of(node).filter(|other| *other != name) {
        return Err(Rejection::NodeHasName { node, name: other.clone() });
    }
    match state.node_or_enrolled(name) {
        Some(other) if other != node => Err(Rejection::NodeNameTaken(name.clone())),
        Some(_) | None => Ok(()),
    }
}

fn offer(state: &State, now: Timestamp, node_id: NodeId, key: &UserKey) -> Result<Decision, Rejection> {
    let keys = state.enrollments().nodes().get(&node_id).filter(|keys| keys.present.is_some());
    let keys = keys.ok_or(Rejection::NoSuchNode(node_id))?;
    if keys.find(key).is_some() {
        return Ok(Decision::default());
    }
    check_key(state, key)?;
    let next_at = keys.offered_at.map_or(0, |at| at.saturating_add(OFFER_INTERVAL));
    let retry_after_s = next_at.saturating_sub(now.unix_micros().div_euclid(1_000_000)).min(OFFER_INTERVAL);
    if retry_after_s > 0 {
        return Err(Rejection::TooManyKeys { node: node_id, retry_after_s });
    }
    Ok(Decision::one(NodeKeyOffered { node_id, name: keys.name.clone(), key: key.clone() }))
}

/// Returns the event that a node uses `key`, if that is the one that it has offered, or the one that was registered for
/// it when it was a member already. The first join of a node says as much.
pub(super) fn key_in_use(state: &State, node_id: NodeId, key: &UserId) -> Option<Event> {
    let keys = state.enrollments().nodes().get(&node_id)?;
    let is_member = state.nodes().contains_key(&node_id);
    let registered = keys.present.as_ref().filter(|_| keys.is_unconfirmed && is_member);
    let used = keys.offered.iter().chain(registered).find(|used| UserId::from(&used.key) == *key)?;
    Some(NodeKeyChanged { node_id, name: keys.name.clone(), key: used.key.clone() }.into())
}

/// Returns the event that the keys of a node are revoked, if it has any.
pub(super) fn keys_revoked(state: &State, node_id: NodeId) -> Option<Event> {
    let keys = state.enrollments().nodes().get(&node_id).filter(|keys| keys.present.is_some())?;
    Some(NodeKeyRevoked { node_id, name: keys.name.clone() }.into())
}

/// Returns the token or key that the command is about, as it is after the events.
pub(super) fn reply(before: &State, command: &EnrollmentCommand, envelopes: &[EventEnvelope]) -> Reply {
    match command {
        EnrollmentCommand::CreateToken { token_id, .. } | EnrollmentCommand::RevokeToken { token_id } => {
            let view = token_after(before, *token_id, envelopes);
            view.map_or(Reply::Nothing, |view| Reply::JoinToken(Box::new(view)))
        }
        EnrollmentCommand::Enroll { node: NodeToEnroll { key, .. }, .. } | EnrollmentCommand::OfferKey { key, .. } => {
            let known = before.enrollments().node_of(key).map(|(node_id, keys)| (node_id, keys.name.clone()));
            let view = envelopes.iter().find_map(|envelope| registered(&envelope.event)).or(known);
            let view = view.map(|(node_id, name)| NodeKeyView { node_id, name, key: key.clone() });
            view.map_or(Reply::Nothing, |view| Reply::NodeKey(Box::new(view)))
        }
    }
}

/// The token as it is after the events, which it is the first or only subject of.
fn token_after(before: &State, id: JoinTokenId, envelopes: &[EventEnvelope]) -> Option<JoinTokenView> {
    let known = before.enrollments().tokens().get(&id).map(|token| (id, token.clone()));
    let mut after: Enrollments = known.into_iter().collect();
    for EventEnvelope { header, event } in envelopes {
        if let Event::Enrollment(event) = event {
            after.apply(header, event);
        }
    }
    let time = envelopes.last().map(|last| last.header.time).or(before.time())?;
    after.tokens().get(&id).map(|token| token.view(id, time))
}

/// The node that an event has registered a key of.
fn registered(event: &Event) -> Option<(NodeId, NodeName)> {
    let Event::Enrollment(event) = event else { return None };
    match event {
        EnrollmentEvent::KeyRegistered(event) => Some((event.node_id, event.name.clone())),
        EnrollmentEvent::KeyOffered(event) => Some((event.node_id, event.name.clone())),
        EnrollmentEvent::TokenCreated(_)
        | EnrollmentEvent::TokenRevoked(_)
        | EnrollmentEvent::KeyChanged(_)
        | EnrollmentEvent::KeyRevoked(_) => None,
    }
}
