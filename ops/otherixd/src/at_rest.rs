//! What is done to a control plane that does not run: its journal is held, and its NATS is started for as long as that
//! takes, on a port of its own where no client looks for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_nats::jetstream::Context;
use otherix_commands::journal::{OpenError, SqliteJournal};
use otherix_schemas::id::ClusterId;
use otherix_schemas::subject::STREAM;
use otherix_transport::Nats;
use uuid::Uuid;

use crate::args::AtRestArgs;
use crate::nats::{Settings, Supervisor};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long the own NATS may take to take a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A control plane that does not run.
pub(crate) struct AtRest {
    /// Its journal, held against any otherixd.
    pub(crate) journal: SqliteJournal,
    /// The streams that there are, the one with the most events first, by what they are called.
    pub(crate) streams: Vec<(&'static str, Context)>,
    nats: Supervisor,
}

impl AtRest {
    /// Takes hold of it. A journal that is missing is made if `may_be_new`.
    pub(crate) async fn take(args: &AtRestArgs, may_be_new: bool) -> Result<Self, Failure> {
        let path = args.state.journal();
        if !path.exists() && !may_be_new {
            return Err(OpenError::Missing(path).into());
        }
        let journal = SqliteJournal::open(&path, ClusterId::new(Uuid::now_v7())).await?;
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

    /// Lets go of it.
    pub(crate) async fn release(self) {
        self.nats.stop().await;
        self.journal.close().await;
    }
}
