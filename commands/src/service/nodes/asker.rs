//! Asks nodes: each request is signed, sent to the node's key, and answered once, on a subject that NATS permits to
//! this node only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::decision_chain::{DecisionSigner, Nonce};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{AskAnswer, AskResult, NodeAsk, SignedAsk};
use otherix_schemas::permission::Permission;
use otherix_schemas::subject;
use otherix_schemas::user::Callers;
use otherix_schemas::value::UserId;
use otherix_transport::Connection;
use otherix_transport::service::{Sender, authorize};
use otherix_transport::transport::Message;
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};

use super::links::{NodeLink, NodeLinks};
use crate::domain::Roster;

/// Most bytes of an answer: the output of a console in base64, and what is around it.
const ANSWER_MAX: usize = 256 << 10;

/// What asking depends on.
pub(super) struct Inputs {
    pub(super) connection: Connection,
    pub(super) links: NodeLinks,
    pub(super) roster: watch::Receiver<Roster>,
    pub(super) callers: watch::Receiver<Callers>,
    pub(super) signer: Arc<DecisionSigner>,
    pub(super) runtime: Arc<dyn Runtime>,
}

/// Asks nodes.
pub(super) struct Asker {
    inputs: Inputs,
    /// Differs with each start.
    sender: Nonce,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

/// Who waits for an answer.
struct Waiting {
    /// The key of the node that was asked.
    key: UserId,
    answer: oneshot::Sender<AskResult>,
}

/// Stops waiting when it is dropped.
struct WaitingFor<'a> {
    asker: &'a Asker,
    number: u64,
}

impl Drop for WaitingFor<'_> {
    fn drop(&mut self) {
        self.asker.waiting().remove(&self.number);
    }
}

impl Asker {
    pub(super) fn new(inputs: Inputs) -> Self {
        let sender = Nonce::new(*inputs.runtime.uuid_v4().as_bytes());
        Self { inputs, sender, next: AtomicU64::new(1), waiting: Mutex::default() }
    }

    /// Asks a node, and waits for its answer. `name` is for errors.
    ///
    /// # Errors
    /// `not_found` if it is no member, `conflict` if its agent takes no requests, `unavailable` if it does not answer
    /// in time; those of the node.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        (node, name): (NodeId, &str),
        ask: &NodeAsk,
        timeout: Duration,
    ) -> Result<T, ErrorBody> {
        let (key, challenge) = self.link(node, name)?;
        let body = serde_json::to_string(ask).map_err(internal)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let ask = SignedAsk { sender: self.sender, number, challenge, body, signature: String::new() };
        let payload = serde_json::to_vec(&ask.signed(&key, &self.inputs.signer)).map_err(internal)?;
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(number, Waiting { key: key.clone(), answer: sender });
        let _until_dropped = WaitingFor { asker: self, number };
        let unavailable = |text: String| ErrorBody::new(ErrorCode::Unavailable, text);
        let sent = self.inputs.connection.publish(Message::new(subject::ask(&key), payload)).await;
        sent.map_err(|error| unavailable(format!("cannot ask node `{name}`: {error}")))?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(AskResult::Done(value))) => serde_json::from_value(value).map_err(|error| {
                let text = format!("the answer of node `{name}` is malformed: {error}; is its agent newer or older?");
                ErrorBody::new(ErrorCode::Internal, text)
            }),
            Ok(Ok(AskResult::Refused(refusal))) => Err(refusal),
            Ok(Err(_)) | Err(_) => Err(unavailable(format!(
                "node `{name}` did not answer within {} ms: try again, and see `otherix node get {name}` and the \
                 log of its otherix-agent",
                timeout.as_millis()
            ))),
        }
    }

    /// The key to send requests to, and what they must be signed with.
    fn link(&self, node: NodeId, name: &str) -> Result<(UserId, Nonce), ErrorBody> {
        let is_reachable = self.inputs.roster.borrow().members.get(&node).copied();
        let Some(is_reachable) = is_reachable else {
            return Err(ErrorBody::new(ErrorCode::NotFound, format!("there is no node `{node}`")));
        };
        let unavailable = |text: String| Err(ErrorBody::new(ErrorCode::Unavailable, text));
        if !is_reachable {
            return unavailable(format!(
                "node `{name}` is unreachable, and cannot be asked: its VMs may run. See `otherix node get {name}`"
            ));
        }
        match self.inputs.links.get(node) {
            Some(NodeLink { key, challenge: Some(challenge) }) => Ok((key, challenge)),
            Some(NodeLink { key: _, challenge: None }) => Err(ErrorBody::new(
                ErrorCode::Conflict,
                format!("the otherix-agent of node `{name}` is too old to be asked: upgrade it"),
            )
            .with_detail("agent_too_old", node.to_string())),
            None => unavailable(format!(
                "node `{name}` has not been heard of since the start of the control plane: try again in some seconds"
            )),
        }
    }

    /// Takes what a node has sent as an answer.
    pub(super) fn received(&self, message: &Message) {
        if let Err(error) = self.accept(message) {
            tracing::debug!(error = %error.error.message, "what arrived as the answer of a node is none");
        }
    }

    fn accept(&self, message: &Message) -> Result<(), ErrorBody> {
        let (sender, now) = (Sender::attested(&message.headers), self.inputs.runtime.now().ok());
        let caller = authorize(sender.as_ref(), Permission::NodeReport, &self.inputs.callers.borrow(), now)?;
        let refused = |text: &str| ErrorBody::new(ErrorCode::PermissionDenied, text);
        if message.subject != subject::ask_answer(&caller.key) {
            return Err(refused("it is not on the subject of its sender"));
        }
        if message.payload.len() > ANSWER_MAX {
            return Err(refused("it is too large"));
        }
        let answer: AskAnswer = serde_json::from_slice(&message.payload).map_err(internal)?;
        let mut waiting = self.waiting();
        let is_expected = waiting
            .get(&answer.number)
            .is_some_and(|waiting| waiting.key == caller.key && answer.sender == self.sender);
        if !is_expected {
            return Err(refused("nobody waits for it"));
        }
        if let Some(Waiting { answer: sender, .. }) = waiting.remove(&answer.number) {
            // Who has asked may have given up at this moment.
            let _given_up = sender.send(answer.result);
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn internal(error: serde_json::Error) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}
