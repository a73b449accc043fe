//! Properties of the embedded NATS, on a real server: reading of the events with an independent client; a
//! child that is restarted on the same port, held, stopped, and never left behind; private credentials.

mod clients;
mod lifecycle;
mod many_revoked;
mod revocation;
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use otherix_commands::relay::Notes;
use otherix_commands::store::SqliteStore;
use otherix_schemas::id::ClusterId;
use otherix_schemas::permission::Role;
use otherix_schemas::subject::{STREAM, STREAM_SUBJECTS};
use otherix_testkit::{TempDir, tempdir};
use otherix_transport::{Credentials, JetStream, NatsEndpoint};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Mirror, MirrorTurn, NatsSettings, NatsSupervisor, Revocations, Scope, TlsSettings, private_folder, write_private,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Tests use the server in `.tools/bin` of the project, if there is one.
fn settings(state: &Path) -> NatsSettings {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/nats-server");
    NatsSettings {
        state: state.to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        server: installed.is_file().then_some(installed),
        tls: TlsSettings::default(),
        revoked: watch::Sender::new(Revocations::default()).subscribe(),
    }
}

/// A running server, with stream and mirror if a test creates them.
struct NatsFixture {
    supervisor: NatsSupervisor,
    folder: TempDir,
}

impl NatsFixture {
    async fn start() -> Self {
        let folder = tempdir().unwrap();
        let supervisor = NatsSupervisor::start(settings(folder.path())).await.unwrap();
        for role in [Role::Admin, Role::Node] {
            make_user(folder.path(), &supervisor, role);
        }
        Self { supervisor, folder }
    }

    fn state(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the server, and returns the state folder.
    async fn stop(self) -> TempDir {
        self.supervisor.stop().await;
        self.folder
    }

    async fn connect(&self, endpoint: &NatsEndpoint) -> JetStream {
        JetStream::once(endpoint, "test", DEADLINE).await.unwrap()
    }

    /// Connects as the administrator, or as a node.
    async fn connect_as(&self, user: &str) -> JetStream {
        let credentials = Credentials::load(&self.state().join(format!("credentials/{user}.creds"))).unwrap();
        self.connect(&self.supervisor.endpoint(&credentials)).await
    }

    /// Creates the stream as the relay does, in account `CONTROL`.
    async fn create_stream(&self, first_sequence: u64) -> jetstream::Context {
        let control = self.connect(&self.supervisor.access().relay).await;
        let context = control.context();
        let config = stream::Config {
            name: STREAM.into(),
            subjects: STREAM_SUBJECTS.map(String::from).to_vec(),
            first_sequence: Some(first_sequence),
            allow_direct: true,
            republish: Some(stream::Republish {
                source: "otherix.>".into(),
                destination: "live.otherix.>".into(),
                headers_only: false,
            }),
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
        context
    }

    async fn ensure_mirror(&self) {
        let access = self.supervisor.access();
        let (control, events) = (self.connect(&access.relay).await, self.connect(&access.mirror).await);
        // The messages of these tests are not events.
        let path = self.state().join("journal.db");
        let journal = SqliteStore::open(&path, ClusterId::new(Uuid::nil())).await.unwrap();
        let notes = Notes::new(self.state().join("relay"));
        Mirror::new(&control, &events, Arc::new(journal), notes, MirrorTurn::default()).ensure().await.unwrap();
    }

    /// The mirror's state, as clients read it.
    async fn mirror(&self) -> stream::Info {
        let events = self.connect(&self.supervisor.access().mirror).await;
        let mut mirror = events.context().get_stream(STREAM).await.unwrap();
        mirror.info().await.unwrap().clone()
    }
}

/// Makes credentials of an administrator or a node, about whom there is no event: the server alone accepts them.
fn make_user(state: &Path, supervisor: &NatsSupervisor, role: Role) {
    let name = role.as_str();
    let creds = supervisor.access().identity.new_user(name, Scope::Role(role), 1).unwrap();
    private_folder(&state.join("credentials")).unwrap();
    write_private(&state.join(format!("credentials/{name}.creds")), creds.render().as_bytes()).unwrap();
}

/// Publishes as the relay does, and returns the sequence.
async fn publish(context: &jetstream::Context, subject: &str, body: &str) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", body);
    let published = context.publish_with_headers(subject.to_owned(), headers, body.to_owned().into()).await.unwrap();
    published.await.unwrap().sequence
}
