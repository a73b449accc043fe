//! A messaging system within one process, for tests and simulations: the subjects, queue groups, services and the event
//! stream of NATS, without a server.
//!
//! A [`Faults`] value determines which faults it injects: it delays, duplicates and reorders messages and cuts
//! connections, so that everything in flight to them is lost. All choices depend on the [`Runtime`]'s random numbers,
//! and delays are tokio timers: with a seeded runtime and a paused clock, a run is a function of the seed.
//!
//! Accounts are simulated as far as services depend on them: requests and heartbeats of a [`MemoryNetwork::client`]
//! carry the server's attestation of their user, those of [`MemoryNetwork::control`] do not. Permissions on subjects
//! are not simulated.

mod faults;
mod stream;
mod subscribers;
mod transport;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use otherix_runtime::Runtime;
use otherix_schemas::position::Position;
use otherix_schemas::subject::{HEARTBEATS, REQUESTS};
use otherix_schemas::value::UserId;
use tokio::sync::watch;

use self::stream::MemoryStream;
use self::subscribers::Subscriber;
use self::transport::MemoryTransport;
use crate::connection::Connection;
use crate::service::REQUEST_INFO;
use crate::transport::Message;

pub use faults::Faults;
pub use stream::{AppendError, StreamMissing};

/// The messaging system. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    runtime: Arc<dyn Runtime>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    links: Vec<Link>,
    subscribers: BTreeMap<u64, Subscriber>,
    /// Numbers subscriptions, inboxes and deliveries.
    next_id: u64,
    stream: Option<MemoryStream>,
}

/// The server's side of a connection.
#[derive(Debug)]
struct Link {
    user: UserId,
    is_client: bool,
    is_up: bool,
    /// Messages published while the link was down.
    outbox: Vec<Message>,
    connects: watch::Sender<u64>,
}

/// A connection to a [`MemoryNetwork`] that can be cut.
#[derive(Clone, Debug)]
pub struct MemoryConnection {
    network: MemoryNetwork,
    link: usize,
    connection: Connection,
}

impl Deref for MemoryConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl From<MemoryConnection> for Connection {
    fn from(connection: MemoryConnection) -> Self {
        connection.connection
    }
}

impl MemoryConnection {
    /// The connection, for code that does not depend on the implementation.
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Cuts the connection. Messages in flight to it are lost; those published meanwhile are sent when it is restored.
    pub fn cut(&self) {
        self.network.state().cut(self.link);
    }

    /// Restores the connection.
    pub fn restore(&self) {
        self.network.restore(self.link);
    }
}

impl MemoryNetwork {
    /// Returns a network without an event stream.
    pub fn new(runtime: Arc<dyn Runtime>, faults: Faults) -> Self {
        let state = State { faults, links: Vec::new(), subscribers: BTreeMap::new(), next_id: 1, stream: None };
        Self { runtime, state: Arc::new(Mutex::new(state)) }
    }

    /// Changes the faults from now on. Messages in flight keep their delays.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Connects as an operator or a node: the network attests the user to services.
    pub fn client(&self, user: UserId) -> MemoryConnection {
        self.connect(user, true)
    }

    /// Connects as the control plane.
    pub fn control(&self, user: UserId) -> MemoryConnection {
        self.connect(user, false)
    }

    fn connect(&self, user: UserId, is_client: bool) -> MemoryConnection {
        let mut state = self.state();
        let link = state.links.len();
        state.links.push(Link {
            user: user.clone(),
            is_client,
            is_up: true,
            outbox: Vec::new(),
            connects: watch::Sender::new(1),
        });
        drop(state);
        let transport = Arc::new(MemoryTransport { network: self.clone(), link });
        let connection = Connection::new(transport, watch::channel(user).1, "memory", Arc::clone(&self.runtime));
        MemoryConnection { network: self.clone(), link, connection }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers the message of a link to all matching subscriptions, and returns their number.
    fn publish(&self, link: usize, message: Message) -> usize {
        let mut state = self.state();
        let Some(from) = state.links.get_mut(link) else { return 0 };
        if !from.is_up {
            from.outbox.push(message);
            // The receivers are not known yet.
            return 1;
        }
        let message = from.attest(message);
        self.route(&mut state, &message)
    }

    fn route(&self, state: &mut State, message: &Message) -> usize {
        let receivers = state.receivers(&message.subject, &*self.runtime);
        for receiver in &receivers {
            self.deliver(state, *receiver, message);
        }
        receivers.len()
    }

    fn restore(&self, link: usize) {
        let mut state = self.state();
        let Some(restored) = state.links.get_mut(link) else { return };
        if restored.is_up {
            return;
        }
        restored.is_up = true;
        restored.connects.send_modify(|connects| *connects += 1);
        let outbox: Vec<Message> =
            std::mem::take(&mut restored.outbox).into_iter().map(|message| restored.attest(message)).collect();
        for message in &outbox {
            self.route(&mut state, message);
        }
    }

    /// Restores a link after a pause.
    fn restore_after(&self, link: usize, pause: Duration) {
        let network = self.clone();
        let restore = async move {
            tokio::time::sleep(pause).await;
            network.restore(link);
        };
        drop(self.runtime.spawn_boxed("memory network: restore a connection", Box::pin(restore)));
    }
}

impl Link {
    /// Adds the server's attestation of the sender.
    fn attest(&self, mut message: Message) -> Message {
        let crosses_accounts = [REQUESTS, HEARTBEATS].iter().any(|prefix| message.subject.starts_with(prefix));
        if self.is_client && crosses_accounts {
            let attestation = serde_json::json!({ "acc": "CLIENTS", "user": self.user, "kind": "Client" });
            // JSON without line breaks.
            let _always_valid = message.headers.insert(REQUEST_INFO, attestation.to_string());
        }
        message
    }
}

impl State {
    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn is_up(&self, link: usize) -> bool {
        self.links.get(link).is_some_and(|link| link.is_up)
    }

    fn cut(&mut self, link: usize) {
        if let Some(cut) = self.links.get_mut(link) {
            cut.is_up = false;
        }
        for subscriber in self.subscribers.values_mut().filter(|subscriber| subscriber.link == link) {
            subscriber.in_flight.clear();
        }
    }
}

/// The event stream.
impl MemoryNetwork {
    /// Creates the event stream, empty. One that exists is replaced, and its readers fail.
    pub fn create_stream(&self) {
        let mut state = self.state();
        let id = state.id();
        state.stream = Some(MemoryStream::new(id));
    }

    /// Deletes the event stream.
    pub fn delete_stream(&self) {
        self.state().stream = None;
    }

    /// Appends a message to the event stream at the sequence after `expected_last`, which must be the last one.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append(&self, message: Message, expected_last: Position) -> Result<Position, AppendError> {
        self.state().stream.as_mut().ok_or(StreamMissing)?.append(message, expected_last)
    }

    /// Returns the last sequence of the event stream; `None` if there is no stream.
    pub fn last_sequence(&self) -> Option<Position> {
        self.state().stream.as_ref().map(MemoryStream::last)
    }
}
