//! Tells the control plane what this node offers to machines of VMs.

use std::time::Duration;

use otherix_schemas::error::{Causes, ErrorCode};
use otherix_schemas::id::NodeId;
use otherix_schemas::node::{CapacityReport, NodeCapacity, ReportCapacity};
use otherix_transport::Connection;
use otherix_transport::request::{CallError, CallOptions};
use tokio::sync::watch;

use crate::control::backoff;

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Until the next attempt if the control plane does not take it: it may be one that does not know the request.
const REFUSED_RETRY: Duration = Duration::from_secs(60);

/// Reports what the node offers once it is known, and again when it has changed and after each reconnect: a control
/// plane that was restored may not know it. Nothing is recorded if nothing has changed.
pub async fn report(connection: Connection, node_id: NodeId, mut capacities: watch::Receiver<Option<NodeCapacity>>) {
    let mut connects = connection.connects();
    loop {
        connects.mark_unchanged();
        let known = capacities.borrow_and_update().clone();
        if let Some(capacity) = known {
            send(&connection, CapacityReport { node_id, capacity }).await;
        }
        tokio::select! {
            Ok(()) = connects.changed() => {}
            Ok(()) = capacities.changed() => {}
            else => return,
        }
    }
}

/// Sends until it is accepted.
async fn send(connection: &Connection, report: CapacityReport) {
    let mut connects = connection.connects();
    let mut backoff = backoff(connection.runtime().as_ref());
    let mut is_logged = false;
    loop {
        connects.mark_unchanged();
        let options = CallOptions { timeout: TIMEOUT, idempotency_key: None };
        let Err(error) = connection.call::<ReportCapacity>(&report, options).await else { return };
        // The node has not joined yet, it changes too often, or it is not connected. A control plane of an earlier
        // version does not answer at all.
        let is_soon = match &error {
            CallError::Refused(body) => matches!(body.error.code, ErrorCode::NotFound | ErrorCode::Unavailable),
            CallError::Transport { .. } => true,
            CallError::TimedOut { .. } | CallError::NoService { .. } | CallError::Malformed(_) => false,
        };
        if !is_soon && !std::mem::replace(&mut is_logged, true) {
            let error = Causes(&error);
            tracing::warn!(%error, "the control plane does not record what this node offers to VMs: retrying");
        }
        let pause = if is_soon { backoff.next_delay() } else { REFUSED_RETRY };
        let _reconnected_or_elapsed = tokio::time::timeout(pause, connects.changed()).await;
    }
}
