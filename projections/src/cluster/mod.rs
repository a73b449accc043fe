//! The state of the whole cluster, from the read models of networks, VMs and nodes.

mod query;

use bytes::Bytes;
use otherix_schemas::cluster::{ClusterStatusView, WholeCluster};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::position::Position;
use otherix_schemas::projection::ProjectionsView;
use otherix_schemas::request::{Answer, Meta};
use otherix_transport::service::Call;

pub use self::query::Totals;
use self::query::{problems, totals};
use crate::history::History;
use crate::query::QueryError;
use crate::read_models::ReadModels;
use crate::service::{LAG, encode, failed, not_read};
use crate::status::status;

const READS: &[&str] = &[crate::node::NAME, crate::network::NAME, crate::vm::NAME];

/// Answers `cluster.status`, also if the read models lag: the answer says so.
pub(crate) async fn answer(
    models: &ReadModels,
    history: &History,
    (head, stream): (Position, Position),
    call: &Call,
) -> Result<Bytes, ErrorBody> {
    let WholeCluster {} = call.json()?;
    let _said_in_the_answer = call.stale || models.reach(READS, head, LAG).await;
    let read = models
        .snapshot(READS, |snapshot| Ok((totals(snapshot.db)?, problems(snapshot.db)?, Meta::at(snapshot.position))));
    let read = read.await.map_err(|error| not_read(models, (READS, head), error))?;
    let (Totals { nodes, networks, vms }, (problems, problem_count), meta) = read.map_err(|error: QueryError| {
        models.suspect_damage();
        failed(&error)
    })?;
    let ProjectionsView { projections, .. } = status(models, history, head);
    let data = ClusterStatusView { head, stream, projections, nodes, networks, vms, problems, problem_count };
    encode(&Answer { data, meta })
}

impl ReadModels {
    /// The name of each, the last event that it has applied, and why it has stopped.
    pub fn positions(&self) -> Vec<(&'static str, Position, Option<String>)> {
        let progress = self.progress();
        let error = |own: &Option<String>| own.clone().or_else(|| progress.error.clone());
        progress.models.iter().map(|model| (model.name, model.position, error(&model.error))).collect()
    }

    /// Nodes, networks and VMs by state, as far as the read models are.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn totals(&self) -> Result<Totals, ErrorBody> {
        let error = |error: &dyn std::error::Error| ErrorBody::new(ErrorCode::Unavailable, error.to_string());
        let read = self.snapshot(READS, |snapshot| totals(snapshot.db)).await.map_err(|failed| error(&failed))?;
        read.map_err(|failed| error(&failed))
    }
}
