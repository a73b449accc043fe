//! Offline access to a stopped control plane: its journal is locked, and its NATS runs for the duration on a free port
//! that no client knows.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_nats::jetstream::Context;
use otherix_commands::store::{EventStore, OpenError};
use otherix_schemas::id::ClusterId;
use otherix_schemas::subject::STREAM;
use otherix_transport::Nats;
use uuid::Uuid;

use crate::args::AtRestArgs;
use crate::event_store::{self, JournalStore};
use crate::nats::{Settings, Supervisor};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Time-out for a connection to that NATS.
const CONNECT: Duration = Duration::from_secs(10);

/// Time-out for its answers.
const ANSWER: Duration = Duration::from_secs(10);

/// A stopped control plane.
pub(crate) struct AtRest {
    /// The journal, locked against other processes.
    pub(crate) journal: JournalStore,
    /// The existing streams with their display names, the one with the most events first.
    pub(crate) streams: Vec<(&'static str, Context)>,
    nats: Supervisor,
}

impl AtRest {
    /// Opens it. A missing journal is created if `may_be_new`.
    pub(crate) async fn open(args: &AtRestArgs, may_be_new: bool) -> Result<Self, Failure> {
        let path = args.state.journal();
        if !path.exists() && !may_be_new {
            return Err(OpenError::Missing(path).into());
        }
        let journal = event_store::open(&args.state, ClusterId::new(Uuid::now_v7())).await?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = Settings { state: args.state.folder.clone(), listen, server: args.nats_server.clone() };
        let nats = Supervisor::start(settings).await?;
        let access = nats.access();
        let mut streams = Vec::new();
        for (name, endpoint) in [("stream", &access.control), ("clients' mirror", &access.clients)] {
            let connection = Nats::once(endpoint, "otherixd", CONNECT).await?;
            let mut context = connection.jetstream();
            context.set_timeout(ANSWER);
            match context.get_stream(STREAM).await {
                Ok(stream) => streams.push((stream.cached_info().state.last_sequence, name, context)),
                Err(error) if crate::nats::is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        streams.sort_by_key(|(last, ..)| std::cmp::Reverse(*last));
        let streams = streams.into_iter().map(|(_, name, context)| (name, context)).collect();
        Ok(Self { journal, streams, nats })
    }

    /// Stops NATS and closes the journal.
    pub(crate) async fn close(self) {
        self.nats.stop().await;
        self.journal.close().await;
    }
}
