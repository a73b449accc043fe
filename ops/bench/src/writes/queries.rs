//! The duration of a query under full write load. It waits until the read models have applied everything that was
//! acknowledged before it arrived.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::{Duration, Instant};

use super::control_plane::{ControlPlane, KeyMode};
use super::load::measure;
use super::{managed, scratch};
use crate::BenchError;
use crate::report::{Figures, report_progress, target_result};

/// Commands in flight during the measurement, and its duration.
const IN_FLIGHT: u32 = 1024;
const TIME: Duration = Duration::from_secs(8);

/// Target of the 99th percentile, in milliseconds.
const TARGET: f64 = 100.0;

/// Measures, and returns a line of figures.
pub(crate) async fn run(bin_dir: &Path) -> Result<String, BenchError> {
    let folder = scratch()?;
    let (control_plane, _) = ControlPlane::start(bin_dir, &folder.path().join("otherix")).await?;
    report_progress("bench: queries while commands are written");
    let number = Cell::new(1);
    let id = control_plane.create(managed(0), KeyMode::None).await?;
    let query = format!(r#"{{"id":"{id}"}}"#);
    let (taken, failed) = (RefCell::new(Vec::new()), Cell::new(0_u32));
    let queries = async {
        loop {
            let begin = Instant::now();
            match control_plane.request("network.get", query.clone(), KeyMode::None).await {
                Ok(_) => taken.borrow_mut().push(begin.elapsed()),
                Err(_) => failed.set(failed.get() + 1),
            }
        }
    };
    let create = |_| {
        let body = managed(number.replace(number.get() + 1));
        let control_plane = &control_plane;
        async move { control_plane.create(body, KeyMode::None).await.map(drop) }
    };
    let rate = tokio::select! {
        rate = measure(IN_FLIGHT, TIME, create) => rate?,
        () = queries => return Err("the queries ended".into()),
    };
    control_plane.stop().await?;
    let (taken, failed) = (taken.into_inner(), failed.get());
    let figures = Figures::of(taken.iter().copied());
    Ok(format!(
        "{} queries at {:.0} commands/s: p50 {:.1} ms, p99 {:.1} ms, {failed} unavailable (target p99 at most \
         {TARGET:.0} ms: {})",
        taken.len(),
        rate.per_second,
        figures.p50,
        figures.p99,
        target_result(failed == 0 && figures.p99 <= TARGET),
    ))
}
