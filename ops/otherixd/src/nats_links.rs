//! The connections of the control plane to NATS, and what depends on which NATS it is.

use std::sync::Arc;

use otherix_schemas::bucket::Bucket;
use otherix_schemas::log::CHECKPOINT_STREAM;
use otherix_schemas::subject::STREAM;
use otherix_transport::service::{Connections, RequestObserver};
use otherix_transport::{Connection, JetStream, Nats};

use crate::error::BoxError;
use crate::nats::{
    AccountAuthority, AccountPusher, NatsAccess, PUSH_HINT, REVOKED_BY_SERVICES, RefusalSource, RevocationSink,
    SystemClient, set_replicas,
};

/// The connections. What arrives on one of them does not delay the others.
pub(crate) struct Links {
    pub(crate) stream: JetStream,
    pub(crate) events: JetStream,
    /// The buckets of the state, and their mirrors.
    pub(crate) state: JetStream,
    pub(crate) state_mirrors: JetStream,
    /// The system account.
    pub(crate) claims: Option<Connection>,
    pub(crate) connections: Connections,
}

impl Links {
    pub(crate) async fn open(nats: &NatsAccess, observer: RequestObserver) -> Result<Self, BoxError> {
        let claims = match &nats.claims {
            Some(endpoint) => Some(Nats::lasting(endpoint, "otherixd accounts").await?.into()),
            None => None,
        };
        Ok(Self {
            stream: JetStream::lasting(&nats.relay, "otherixd stream").await?,
            events: JetStream::lasting(&nats.mirror, "otherixd mirror").await?,
            state: JetStream::lasting(&nats.state, "otherixd state").await?,
            state_mirrors: JetStream::lasting(&nats.state_mirrors, "otherixd state mirrors").await?,
            claims,
            connections: Connections {
                people: Nats::lasting(&nats.people, "otherixd requests").await?.into(),
                nodes: Nats::lasting(&nats.nodes, "otherixd nodes").await?.into(),
                observer,
            },
        })
    }
}

/// Who is told of revocations.
pub(crate) fn revocation_sink(nats: &NatsAccess, claims: Option<Connection>) -> RevocationSink {
    let identity = Arc::clone(&nats.identity);
    match (&nats.accounts, claims) {
        (AccountAuthority::Embedded, Some(claims)) => RevocationSink::Embedded { identity, claims },
        (AccountAuthority::Operator(operator), Some(claims)) => {
            let (operator, system) = (Arc::clone(operator), SystemClient::new(claims));
            RevocationSink::Own(AccountPusher { identity, operator, system })
        }
        (AccountAuthority::Embedded | AccountAuthority::Operator(_) | AccountAuthority::SomebodyElse, _) => {
            tracing::warn!(hint = PUSH_HINT, "{REVOKED_BY_SERVICES}");
            RevocationSink::Nobody
        }
    }
}

/// Where NATS tells of what it refuses.
pub(crate) fn refusal_source(nats: &NatsAccess, claims: Option<&Connection>) -> RefusalSource {
    let is_shared = match &nats.accounts {
        AccountAuthority::Embedded => false,
        AccountAuthority::Operator(_) | AccountAuthority::SomebodyElse => true,
    };
    RefusalSource { log: nats.log.clone(), claims: claims.cloned(), is_shared }
}

/// Sets the number of replicas of stream, buckets, checkpoints and mirrors, if one is given. Those that do not exist
/// yet are created with it. The connections are those of the stream and the buckets, and those of their mirrors.
pub(crate) async fn ensure_replicas(
    nats: &NatsAccess,
    (stream, state): (&JetStream, &JetStream),
    (events, state_mirrors): (&JetStream, &JetStream),
) {
    let Some(replicas) = nats.replicas else { return };
    set_replicas(&stream.context(), STREAM, replicas, "the stream").await;
    set_replicas(&events.context(), STREAM, replicas, "the clients' mirror").await;
    set_replicas(&events.context(), CHECKPOINT_STREAM, replicas, "the checkpoints").await;
    for bucket in Bucket::ALL {
        set_replicas(&state.context(), bucket.stream(), replicas, "a bucket").await;
        set_replicas(&state_mirrors.context(), bucket.stream(), replicas, "the mirror of a bucket").await;
    }
}
