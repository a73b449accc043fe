//! Offline access to a stopped control plane: its journal is locked, and its nats-server runs temporarily on a free
//! port unknown to clients, unless the streams are on an existing NATS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_nats::jetstream::Context;
use otherix_commands::store::{EventStore, OpenError};
use otherix_schemas::id::ClusterId;
use otherix_schemas::subject::STREAM;
use otherix_schemas::user::Callers;
use otherix_transport::JetStream;
use tokio::sync::watch;
use uuid::Uuid;

use crate::args::OfflineArgs;
use crate::error::BoxError;
use crate::event_store::{self, JournalStore};
use crate::nats::{NatsChoice, NatsServer, NatsSettings, Revocations, TlsSettings, Wanted};

/// Time-out for a connection to that nats-server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time-out for its responses.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A stopped control plane.
pub(crate) struct StoppedControlPlane {
    /// The journal, locked against other processes.
    pub(crate) journal: JournalStore,
    /// The existing streams with their display names, the one with the most events first.
    pub(crate) streams: Vec<(&'static str, Context)>,
    /// The JetStream API of the account with the log's checkpoints.
    pub(crate) checkpoints: Context,
    nats: NatsServer,
}

impl StoppedControlPlane {
    /// Opens the journal and starts the nats-server. A missing journal is created if `create_journal`.
    pub(crate) async fn open(args: &OfflineArgs, create_journal: bool) -> Result<Self, BoxError> {
        let path = args.state.journal();
        if !path.exists() && !create_journal {
            return Err(OpenError::Missing(path).into());
        }
        let journal = event_store::open(&args.state, ClusterId::new(Uuid::now_v7())).await?;
        let choice = match args.own.settings(&args.state)? {
            Some(settings) => NatsChoice::Own(settings),
            None => {
                let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let (state, server) = (args.state.folder.clone(), args.nats_server.clone());
                // Nobody but this process knows the port: there is nobody to refuse.
                let revoked = watch::Sender::new(Revocations::default()).subscribe();
                // On loopback, without TLS.
                NatsChoice::Embedded(NatsSettings { state, listen, server, tls: TlsSettings::default(), revoked })
            }
        };
        // No account is pushed: what is revoked does not matter.
        let (revoked, callers) = (Revocations::default(), Callers::default());
        let wanted = Wanted { revoked: &revoked, callers: &callers, is_dry_run: true };
        let nats = NatsServer::start(choice, wanted).await?;
        let access = nats.access();
        let checkpoints = JetStream::once(&access.mirror, "otherixd", CONNECT_TIMEOUT).await?.context();
        let mut streams = Vec::new();
        for (name, endpoint) in [("stream", &access.relay), ("clients' mirror", &access.mirror)] {
            let connection = JetStream::once(endpoint, "otherixd", CONNECT_TIMEOUT).await?;
            let mut context = connection.context();
            context.set_timeout(RESPONSE_TIMEOUT);
            match context.get_stream(STREAM).await {
                Ok(stream) => streams.push((stream.cached_info().state.last_sequence, name, context)),
                Err(error) if crate::nats::is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        streams.sort_by_key(|(last, ..)| std::cmp::Reverse(*last));
        let streams = streams.into_iter().map(|(_, name, context)| (name, context)).collect();
        Ok(Self { journal, streams, checkpoints, nats })
    }

    /// Stops NATS and closes the journal.
    pub(crate) async fn close(self) {
        self.nats.stop().await;
        self.journal.close().await;
    }
}
