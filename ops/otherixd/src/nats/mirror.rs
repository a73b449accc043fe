//! The clients' mirror of the events: the same sequences in account `CLIENTS`, so that people and nodes read the stream
//! without any right in the account where it is written. Owns the mirror's definition; the server fills it.
//!
//! Cancel-safety: [`ensure_mirror`] may be dropped at any await and called again.

use std::collections::HashMap;

use async_nats::jetstream::context::{CreateStreamError, DeleteStreamError, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, External, Info, Source};
use async_nats::jetstream::{self, ErrorCode};
use otherix_schemas::subject::STREAM;
use otherix_transport::Connection;

use super::accounts::{MIRROR_API, MIRROR_DELIVER};

/// Notes in the mirror which stream it is of: one that was made anew may have other events at the same sequences.
const SOURCE_CREATED: &str = "otherix.source-created";

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorError {
    /// The stream or the mirror cannot be looked at.
    #[error("cannot look at stream `{STREAM}` in account {account}")]
    Look {
        /// Whose.
        account: &'static str,
        /// Why not.
        #[source]
        source: GetStreamError,
    },
    /// The mirror that is there cannot be removed.
    #[error("cannot remove the outdated mirror of `{STREAM}`")]
    Remove(#[source] DeleteStreamError),
    /// The mirror cannot be made.
    #[error("cannot make the mirror of `{STREAM}`")]
    Make(#[source] CreateStreamError),
}

/// Makes the mirror, unless it is there. One that is of an earlier stream, is defined otherwise or is ahead of the stream
/// is made anew; consumers that clients have on it end then.
///
/// `control` and `clients` are connections into the two accounts. To be called when the stream is there, and again
/// whenever it has been made anew.
pub(crate) async fn ensure_mirror(control: &Connection, clients: &Connection) -> Result<(), MirrorError> {
    let clients = jetstream::new(clients.client().clone());
    // The mirror first: it can only be ahead of a stream that is looked at later if something is wrong.
    let mirror = match clients.get_stream(STREAM).await {
        Ok(mirror) => Some(mirror),
        Err(error) if is_not_found(&error) => None,
        Err(source) => return Err(MirrorError::Look { account: "CLIENTS", source }),
    };
    let source = jetstream::new(control.client().clone())
        .get_stream(STREAM)
        .await
        .map_err(|source| MirrorError::Look { account: "CONTROL", source })?;
    let wanted = definition(source.cached_info());
    if let Some(mirror) = mirror {
        if is_faithful(mirror.cached_info(), &wanted, source.cached_info()) {
            return Ok(());
        }
        tracing::warn!("the clients' mirror of the events is outdated and is made anew");
        clients.delete_stream(STREAM).await.map_err(MirrorError::Remove)?;
    }
    clients.create_stream(wanted).await.map_err(MirrorError::Make)?;
    Ok(())
}

fn is_not_found(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName | GetStreamErrorKind::Request => false,
    }
}

fn definition(source: &Info) -> Config {
    Config {
        name: STREAM.to_owned(),
        mirror: Some(Source {
            name: STREAM.to_owned(),
            external: Some(External {
                api_prefix: MIRROR_API.to_owned(),
                delivery_prefix: Some(MIRROR_DELIVER.to_owned()),
            }),
            ..Source::default()
        }),
        mirror_direct: true,
        storage: source.config.storage,
        metadata: HashMap::from([(SOURCE_CREATED.to_owned(), source.created.to_string())]),
        ..Config::default()
    }
}

fn is_faithful(mirror: &Info, wanted: &Config, source: &Info) -> bool {
    let has = &mirror.config;
    has.mirror == wanted.mirror
        && has.mirror_direct == wanted.mirror_direct
        && has.metadata.get(SOURCE_CREATED) == wanted.metadata.get(SOURCE_CREATED)
        && mirror.state.last_sequence <= source.state.last_sequence
}
