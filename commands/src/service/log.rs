//! Requests about the transparency log, which read it and change nothing.

use bytes::Bytes;
use otherix_schemas::error::{Causes, ErrorBody, ErrorCode};
use otherix_schemas::log::{GetLog, GetLogTiles, LOG_TILES_MAX, LogTileNames, NoConditions, ProveLogConsistency};
use otherix_schemas::position::Position;
use otherix_schemas::request::RequestType;
use otherix_schemas::violations::Violations;
use otherix_transport::service::Call;

use super::credentials::encode;
use crate::tlog::{LogHandle, LogUnavailable};

/// Answers a request. `head` is the position of the last durable event.
pub(super) async fn handle(call: &Call, head: Position, log: &LogHandle) -> Result<Bytes, ErrorBody> {
    match call.request.name {
        GetLog::NAME => {
            let NoConditions {} = call.json()?;
            encode(head, log.view())
        }
        ProveLogConsistency::NAME => encode(head, log.consistency(call.json()?).await.map_err(refusal)?),
        GetLogTiles::NAME => {
            let LogTileNames { tiles } = call.json()?;
            if tiles.len() > LOG_TILES_MAX {
                return Err(Violations::one("tiles", format!("must be at most {LOG_TILES_MAX}")).into());
            }
            encode(head, log.tiles(tiles).await.map_err(refusal)?)
        }
        name => Err(ErrorBody::new(ErrorCode::NotFound, format!("`{name}` is not about the log"))),
    }
}

fn refusal(error: LogUnavailable) -> ErrorBody {
    let code = match error {
        LogUnavailable::Sizes => ErrorCode::NotFound,
        LogUnavailable::Path(_) => return Violations::one("tiles", error.to_string()).into(),
        LogUnavailable::NoCheckpoint
        | LogUnavailable::Store(_)
        | LogUnavailable::Tiles(_)
        | LogUnavailable::Interrupted => ErrorCode::Unavailable,
    };
    ErrorBody::new(code, Causes(&error).to_string())
}
