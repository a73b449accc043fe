//! The write path as a client sees it: from a request to its durable acknowledgement, compared with etcd on the same
//! disk; the same with many networks; what checkpoints cost it; a start with many events; an audit of them; and queries
//! while commands are written.
//!
//! Without nodes, and without root. The client runs on one thread; its processor time is printed, because a saturated
//! client would measure itself.

mod audit;
mod checkpoints;
mod compare;
mod control_plane;
mod etcd;
mod load;
mod networks;
mod process;
mod queries;
mod start;

use std::path::Path;

use otherix_testkit::TempDir;

use crate::BenchError;

pub(crate) use self::audit::run as audited;
pub(crate) use self::checkpoints::run as checkpoint_cost;
pub(crate) use self::compare::run as beside_etcd;
pub(crate) use self::networks::run as many_networks;
pub(crate) use self::queries::run as queries_under_load;
pub(crate) use self::start::run as start_with_many_events;

/// A temporary folder on a disk (`/tmp` may be in memory); both systems keep their data in it.
fn scratch() -> Result<TempDir, BenchError> {
    Ok(TempDir::with_prefix_in("otherix-bench-", Path::new("/var/tmp"))?)
}

/// The median of at least one value.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The request that creates a network with its own managed bridge, under a name that `number` makes unique.
fn managed(number: u32) -> String {
    format!(r#"{{"name":"net-{number}","bridge_name":"br{number}","managed":true}}"#)
}
