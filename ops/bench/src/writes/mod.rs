//! The write path as a client sees it: from a request to its durable acknowledgement, beside etcd on the same disk; the
//! same with many networks; a start with many events; and queries while commands are written.
//!
//! No nodes take part and no root is needed. The client runs on one thread; how busy it is is printed, for a client
//! that is always busy would measure itself.

mod compare;
mod etcd;
mod load;
mod networks;
mod plane;
mod process;
mod queries;
mod start;

use std::path::Path;

use otherix_testkit::TempDir;

use crate::Failure;

pub(crate) use self::compare::run as beside_etcd;
pub(crate) use self::networks::run as many_networks;
pub(crate) use self::queries::run as queries_under_load;
pub(crate) use self::start::run as start_with_many_events;

/// A temporary folder on a real disk, where `/tmp` may be memory; both systems compared keep their data in it.
fn scratch() -> Result<TempDir, Failure> {
    Ok(TempDir::with_prefix_in("otherix-bench-", Path::new("/var/tmp"))?)
}

/// The median of at least one value.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Whether a target is met.
const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// The request that creates a managed bridge of its own, under a name that `number` makes unique.
fn managed(number: u32) -> String {
    format!(r#"{{"name":"net-{number}","bridge_name":"br{number}","managed":true}}"#)
}
