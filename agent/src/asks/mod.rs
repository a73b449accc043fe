//! Answers what the control plane asks this node: the consoles of its VMs, and its images (docs/adr/0049).
//!
//! A request must be signed by the control plane that this node follows, for this node and this start of its agent, and
//! is carried out once. What is wrong with it is logged, and not answered.
//!
//! Cancel-safety: may be dropped at any await. Requests that are being answered are answered.

mod replay;

use std::sync::Arc;

use otherix_runtime::{LogLimit, Runtime};
use otherix_schemas::decision_chain::Nonce;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::node::{AskAnswer, AskError, AskResult, NodeAsk, SignedAsk};
use otherix_schemas::subject;
use otherix_schemas::value::UserId;
use otherix_schemas::vm::ConsoleClosed;
use otherix_transport::Connection;
use otherix_transport::transport::Message;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use self::replay::{Receipt, Received};
use crate::machines::MachineAccess;
use crate::trust::Trust;

/// Requests that are answered at the same time: more than the control plane sends.
const AT_ONCE: usize = 160;

/// Largest request, in bytes.
const ASK_MAX: usize = 64 << 10;

/// What answering needs.
#[derive(Debug)]
pub(crate) struct Asks {
    pub(crate) connection: Connection,
    pub(crate) trust: Trust,
    /// What requests must be signed with; told with heartbeats.
    pub(crate) challenge: watch::Sender<Nonce>,
    pub(crate) machines: MachineAccess,
}

/// A challenge that nobody can foresee.
pub(crate) fn challenge(runtime: &dyn Runtime) -> Nonce {
    Nonce::new(*runtime.uuid_v4().as_bytes())
}

/// Answers until the connection is closed.
pub(crate) async fn answer(asks: Asks) {
    let Asks { connection, trust, challenge, machines } = asks;
    let (mut connects, limit) = (connection.connects(), Arc::new(Semaphore::new(AT_ONCE)));
    let mut verifier = Verifier { trust, challenge, received: Received::default(), refused: LogLimit::default() };
    loop {
        let key = connection.user();
        let Ok(mut incoming) = connection.subscribe(subject::ask(&key)).await else { return };
        // Until this node has another key.
        while connection.user() == key {
            let message = tokio::select! {
                message = incoming.next() => message,
                changed = connects.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            let Some(message) = message else { return };
            let Some(ask) = verifier.verify(&message, &key, connection.runtime().as_ref()) else { continue };
            let permit = Arc::clone(&limit).try_acquire_owned();
            let (own, machines, key) = (connection.clone(), machines.clone(), key.clone());
            let task = async move {
                let NodeRequest { sender, number, body } = ask;
                let result = match (&permit, body) {
                    (Ok(_), Ok(body)) => carry_out(&machines, body).await,
                    (Ok(_), Err(refusal)) => Err(refusal),
                    (Err(_), _) => Err(unavailable("this node answers too many requests: try again later")),
                };
                let result = result.map_or_else(AskResult::Refused, AskResult::Done);
                send(&own, &key, &AskAnswer { sender, number, result }).await;
                drop(permit);
            };
            drop(connection.runtime().spawn("ask", task));
        }
    }
}

/// A request that is to be answered, or refused.
struct NodeRequest {
    sender: Nonce,
    number: u64,
    body: Result<NodeAsk, ErrorBody>,
}

/// Tells the control plane's requests from others.
struct Verifier {
    trust: Trust,
    challenge: watch::Sender<Nonce>,
    received: Received,
    refused: LogLimit,
}

impl Verifier {
    /// Returns the request, if it is one of the control plane to this node, and was not received before.
    fn verify(&mut self, message: &Message, key: &UserId, runtime: &dyn Runtime) -> Option<NodeRequest> {
        let text = match self.check(message, key) {
            Ok(Checked::Request(ask)) => return Some(ask),
            Ok(Checked::NewChallenge) => {
                self.received = Received::default();
                self.challenge.send_replace(challenge(runtime));
                return None;
            }
            Err(text) => text,
        };
        if let Some(count) = self.refused.hit() {
            tracing::warn!(error = text, count, "a request to this node is not answered");
        }
        None
    }

    fn check(&mut self, message: &Message, key: &UserId) -> Result<Checked, String> {
        if message.payload.len() > ASK_MAX {
            return Err(format!("it has {} bytes", message.payload.len()));
        }
        let ask: SignedAsk = serde_json::from_slice(&message.payload).map_err(|error| error.to_string())?;
        let trusted = self.trust.key().ok_or("this node does not know its control plane")?;
        let (sender, number) = (ask.sender, ask.number);
        let refused = |refusal| Ok(Checked::Request(NodeRequest { sender, number, body: Err(refusal) }));
        match ask.verify(&trusted, key, *self.challenge.borrow()) {
            Ok(()) => {}
            // It is the control plane that asks, or somebody who sends again what it has asked: nothing is done.
            Err(AskError::Challenge) => {
                return refused(unavailable("the node's agent was restarted a moment ago: try again in some seconds"));
            }
            Err(error @ AskError::Signature) => return Err(error.to_string()),
        }
        match self.received.note(sender, number) {
            Receipt::New => {}
            Receipt::Again => return Err("it was received before".to_owned()),
            Receipt::Full => return Ok(Checked::NewChallenge),
        }
        match serde_json::from_str(&ask.body) {
            Ok(body) => Ok(Checked::Request(NodeRequest { sender, number, body: Ok(body) })),
            Err(error) => {
                let text = format!("the node's otherix-agent is too old for this, or too new: {error}");
                refused(ErrorBody::new(ErrorCode::Conflict, text))
            }
        }
    }
}

/// What a message is.
enum Checked {
    Request(NodeRequest),
    /// A request that cannot be told from an earlier one: the next is to have another challenge.
    NewChallenge,
}

async fn carry_out(machines: &MachineAccess, ask: NodeAsk) -> Result<Value, ErrorBody> {
    match ask {
        NodeAsk::ReadConsole(read) => encoded(&machines.console(read.id)?.read(read).await?),
        NodeAsk::OpenConsole(grant) => encoded(&machines.console(grant.id)?.open(grant)?),
        NodeAsk::WriteConsole { holder, input } => encoded(&machines.console(input.id)?.write(&holder, input).await?),
        NodeAsk::CloseConsole { holder, session } => {
            machines.console(session.id)?.close(&holder, &session);
            encoded(&ConsoleClosed {})
        }
        NodeAsk::ListImages {} => encoded(&machines.images().await?),
    }
}

fn encoded(answer: &impl Serialize) -> Result<Value, ErrorBody> {
    serde_json::to_value(answer).map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))
}

fn unavailable(text: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, text)
}

async fn send(connection: &Connection, key: &UserId, answer: &AskAnswer) {
    let sent = match serde_json::to_vec(answer) {
        Ok(payload) => {
            let sent = connection.publish(Message::new(subject::ask_answer(key), payload)).await;
            sent.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = sent {
        tracing::debug!(error, "cannot answer the control plane");
    }
}
