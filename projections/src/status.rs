//! Answers requests about the read models themselves.

use bytes::Bytes;
use otherix_schemas::error::ErrorBody;
use otherix_schemas::position::Position;
use otherix_schemas::projection::{
    AllProjections, ProjectionState, ProjectionStatus, ProjectionView, ProjectionsView, RebuildProjections,
};
use otherix_schemas::request::{Answer, Meta, RequestType};
use otherix_transport::service::Call;

use crate::history::History;
use crate::read_models::ReadModels;
use crate::service::{encode, not_served};

/// The name of the history among the read models.
const HISTORY: &str = "history";

/// Answers a request about the read models. `head` is the event store's.
pub(crate) fn answer(models: &ReadModels, history: &History, head: Position, call: &Call) -> Result<Bytes, ErrorBody> {
    let AllProjections {} = call.json()?;
    let meta = Meta::at(head);
    match call.request.name {
        ProjectionStatus::NAME => encode(&Answer { data: status(models, history, head), meta }),
        RebuildProjections::NAME => {
            models.rebuilds().request();
            let data = models.rebuilds().view(head).ok_or_else(|| not_served(call))?;
            tracing::info!(user = %call.caller.name, "a rebuild of the read models was requested");
            encode(&Answer { data, meta })
        }
        _ => Err(not_served(call)),
    }
}

/// How far each read model is.
pub(crate) fn status(models: &ReadModels, history: &History, head: Position) -> ProjectionsView {
    let view = |name: &str, position: Position, stopped, last_error| ProjectionView {
        name: name.to_owned(),
        state: if stopped { ProjectionState::Stopped } else { ProjectionState::Following },
        position,
        lag: head.get().saturating_sub(position.get()),
        last_error,
    };
    let progress = models.progress();
    let of_all = progress.error.is_some();
    let model = |model: &crate::read_models::ModelProgress| {
        let last_error = model.last_error.clone().or_else(|| progress.last_error.clone());
        view(model.name, model.position, of_all || model.error.is_some(), last_error)
    };
    let mut projections: Vec<ProjectionView> = progress.models.iter().map(model).collect();
    let of_history = history.progress();
    projections.push(view(HISTORY, of_history.position, of_history.error.is_some(), of_history.last_error));
    ProjectionsView { head, projections, rebuild: models.rebuilds().view(head) }
}
