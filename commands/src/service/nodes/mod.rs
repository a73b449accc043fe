//! The node service: requests of people that a node answers. Each is admitted and decided here, by role and by owner,
//! and passed on to the node, whose answer is passed back (docs/adr/0049).
//!
//! It has a queue of its own: a request may wait for seconds, and delays no command or query.

mod asker;
mod limits;
mod links;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otherix_runtime::Runtime;
use otherix_schemas::cloudevent::Actor;
use otherix_schemas::command::Command;
use otherix_schemas::decision_chain::DecisionSigner;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::{CorrelationId, NodeId, VmId};
use otherix_schemas::image::{ImagesOfNode, ListImages, NodeImages};
use otherix_schemas::node::{ConsoleGrant, NodeAsk};
use otherix_schemas::permission::Permission;
use otherix_schemas::request::{Answer, RequestType, ServiceKind};
use otherix_schemas::subject::ASK_ANSWERS;
use otherix_schemas::user::Callers;
use otherix_schemas::vm::{
    CloseConsole, ConsoleClosed, ConsoleClosing, ConsoleInput, ConsoleOpening, ConsoleOutput, ConsoleRead,
    ConsoleSession, ConsoleTyped, OpenConsole, ReadConsole, VmCommand, VmView, WriteConsole,
};
use otherix_transport::service::{Call, Connections, Denied, RequestServer, ServeError};
use otherix_transport::transport::Subscription;
use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;

use self::asker::Asker;
use self::limits::Limits;
pub(super) use self::links::{NodeLink, NodeLinks};
use super::credentials::encode;
use crate::domain::Roster;
use crate::refusals::RefusalLog;
use crate::writer::{Cause, CommandRequest, Durable, WriterHandle};

/// How long a node may take for an answer, beside what it is asked to wait.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What the service needs from others.
pub(super) struct Inputs {
    pub(super) links: NodeLinks,
    pub(super) roster: watch::Receiver<Roster>,
    pub(super) callers: watch::Receiver<Callers>,
    pub(super) signer: Arc<DecisionSigner>,
    pub(super) writer: WriterHandle,
    pub(super) durable: watch::Receiver<Durable>,
    pub(super) refusals: RefusalLog,
    pub(super) runtime: Arc<dyn Runtime>,
}

/// The service with its subscriptions.
pub(super) struct NodeService {
    requests: RequestServer,
    answers: Subscription,
    handler: Arc<Handler>,
}

/// Handles one request.
struct Handler {
    asker: Asker,
    limits: Limits,
    writer: WriterHandle,
    callers: watch::Receiver<Callers>,
    durable: watch::Receiver<Durable>,
    refusals: RefusalLog,
    runtime: Arc<dyn Runtime>,
}

impl NodeService {
    pub(super) async fn start(connections: &Connections, inputs: Inputs) -> Result<Self, ServeError> {
        let Inputs { links, roster, callers, signer, writer, durable, refusals, runtime } = inputs;
        let connection = connections.nodes.clone();
        let answers = connection.subscribe(format!("{ASK_ANSWERS}.*")).await.map_err(ServeError::new)?;
        let requests = RequestServer::start(connections, ServiceKind::Nodes, callers.clone()).await?;
        let (own, runtime_of_asker) = (callers.clone(), Arc::clone(&runtime));
        let asker = asker::Inputs { connection, links, roster, callers: own, signer, runtime: runtime_of_asker };
        let (asker, limits) = (Asker::new(asker), Limits::default());
        let handler = Arc::new(Handler { asker, limits, writer, callers, durable, refusals, runtime });
        Ok(Self { requests, answers, handler })
    }

    /// Serves until the connection is closed.
    pub(super) async fn run(self) {
        let Self { requests, mut answers, handler } = self;
        let (own, denials) = (Arc::clone(&handler), Arc::clone(&handler));
        let record = move |denied: Denied<'_>| {
            if let Ok(now) = denials.runtime.now() {
                denials.refusals.record(denied, now);
            }
        };
        let handle = move |call: Call| {
            let handler = Arc::clone(&own);
            async move { handler.handle(&call).await }
        };
        tokio::select! {
            () = requests.serve(handle, record) => {}
            () = async { while let Some(message) = answers.next().await { handler.asker.received(&message) } } => {}
        }
    }
}

impl Handler {
    async fn handle(&self, call: &Call) -> Result<Bytes, ErrorBody> {
        let answer = self.answer(call).await;
        if let (Err(refusal), Ok(now)) = (&answer, self.runtime.now()) {
            let Call { request, caller, body, .. } = call;
            self.refusals.record(Denied { request: *request, caller, body, refusal }, now);
        }
        answer
    }

    async fn answer(&self, call: &Call) -> Result<Bytes, ErrorBody> {
        if call.dry_run {
            let text = format!("`{}` is not a command: it cannot be tried without carrying it out", call.request.name);
            return Err(ErrorBody::new(ErrorCode::ValidationFailed, text));
        }
        match call.request.name {
            ReadConsole::NAME => self.encode(self.read(call).await?),
            OpenConsole::NAME => self.encode(self.open(call).await?),
            WriteConsole::NAME => self.encode(self.write(call).await?),
            CloseConsole::NAME => self.encode(self.close(call).await?),
            ListImages::NAME => self.encode(self.images(call).await?),
            name => Err(ErrorBody::new(ErrorCode::NotFound, format!("`{name}` is not about nodes"))),
        }
    }

    fn encode(&self, data: impl Serialize) -> Result<Bytes, ErrorBody> {
        encode(self.durable.borrow().position, data)
    }

    async fn read(&self, call: &Call) -> Result<ConsoleOutput, ErrorBody> {
        let read: ConsoleRead = call.json()?;
        read.check()?;
        let vm = self.decide(call, read.id, Uuid::nil(), false).await?;
        let timeout = Duration::from_millis(read.wait_ms.into()) + ASK_TIMEOUT;
        self.ask(call, (vm.node_id, vm.node_name.as_str()), &NodeAsk::ReadConsole(read), timeout).await
    }

    /// The node gives the input to the session, the event is recorded, and only then the caller learns of the session:
    /// nobody types without an event.
    async fn open(&self, call: &Call) -> Result<ConsoleSession, ErrorBody> {
        let ConsoleOpening { id, take_over } = call.json()?;
        let session = self.runtime.uuid_v4();
        let vm = self.decide(call, id, session, false).await?;
        let node = (vm.node_id, vm.node_name.as_str());
        let (holder, holder_name) = (call.caller.id.clone(), call.caller.name.clone());
        let grant = ConsoleGrant { id, session, holder: holder.clone(), holder_name, take_over };
        let granted: ConsoleSession = self.ask(call, node, &NodeAsk::OpenConsole(grant), ASK_TIMEOUT).await?;
        match self.decide(call, id, session, true).await {
            Ok(_) => Ok(ConsoleSession { session, ..granted }),
            Err(refusal) => {
                let close = NodeAsk::CloseConsole { holder, session: ConsoleClosing { id, session } };
                // If it is not closed, it ends by itself: nobody knows of it.
                let _closed: Result<ConsoleClosed, _> = self.ask(call, node, &close, ASK_TIMEOUT).await;
                Err(refusal)
            }
        }
    }

    async fn write(&self, call: &Call) -> Result<ConsoleTyped, ErrorBody> {
        let input: ConsoleInput = call.json()?;
        input.check()?;
        let vm = self.decide(call, input.id, input.session, false).await?;
        let ask = NodeAsk::WriteConsole { holder: call.caller.id.clone(), input };
        self.ask(call, (vm.node_id, vm.node_name.as_str()), &ask, ASK_TIMEOUT).await
    }

    async fn close(&self, call: &Call) -> Result<ConsoleClosed, ErrorBody> {
        let session: ConsoleClosing = call.json()?;
        let vm = self.decide(call, session.id, session.session, false).await?;
        let ask = NodeAsk::CloseConsole { holder: call.caller.id.clone(), session };
        self.ask(call, (vm.node_id, vm.node_name.as_str()), &ask, ASK_TIMEOUT).await
    }

    async fn images(&self, call: &Call) -> Result<NodeImages, ErrorBody> {
        let ImagesOfNode { node_id } = call.json()?;
        let name = self.name_of(node_id);
        self.ask(call, (node_id, &name), &NodeAsk::ListImages {}, ASK_TIMEOUT).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        call: &Call,
        node: (NodeId, &str),
        ask: &NodeAsk,
        timeout: Duration,
    ) -> Result<T, ErrorBody> {
        let _turn = self.limits.take(&call.caller.id, node.0)?;
        self.asker.ask(node, ask, timeout).await
    }

    /// The name of a node, for errors.
    fn name_of(&self, node: NodeId) -> String {
        let callers = self.callers.borrow();
        let keys = callers.enrollments().nodes().get(&node);
        keys.map_or_else(|| node.to_string(), |keys| keys.name.to_string())
    }

    /// Decides whether the caller may use the console of a VM, on the state of the writer, and returns the VM. If it is
    /// to be recorded, the event is durable then.
    async fn decide(&self, call: &Call, vm_id: VmId, session: Uuid, is_recorded: bool) -> Result<VmView, ErrorBody> {
        let scope = call.caller.scope(Permission::VmConsole);
        let request = CommandRequest {
            command: Command::Vm(VmCommand::OpenConsole { vm_id, session, scope }),
            actor: Actor::from(&call.caller),
            caller: Some(call.caller.clone()),
            correlation_id: CorrelationId::new(self.runtime.uuid_v7()),
            cause: Cause { traceparent: call.traceparent.clone(), ..Cause::default() },
            key: None,
        };
        let decided = if is_recorded { self.writer.execute(request).await } else { self.writer.try_out(request).await };
        let answer = decided.map_err(|refusal| {
            let body = ErrorBody::from(refusal);
            if body.error.code == ErrorCode::PermissionDenied { call.denied(body) } else { body }
        })?;
        let answer: Answer<VmView> =
            serde_json::from_slice(&answer).map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?;
        Ok(answer.data)
    }
}
