//! How long a query takes while commands are written as fast as they can be: it waits until the read models have
//! applied everything that was acknowledged before it arrived.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::{Duration, Instant};

use super::load::measure;
use super::plane::{Key, Plane};
use super::{managed, scratch, verdict};
use crate::Failure;
use crate::report::{Figures, say};

/// Commands in flight meanwhile, and for how long.
const IN_FLIGHT: u32 = 1024;
const TIME: Duration = Duration::from_secs(8);

/// Target of the 99th percentile, in milliseconds.
const TARGET: f64 = 100.0;

/// Measures, and returns a line of figures.
pub(crate) async fn run(bin_dir: &Path) -> Result<String, Failure> {
    let folder = scratch()?;
    let (plane, _) = Plane::start(bin_dir, &folder.path().join("otherix")).await?;
    say("bench: queries while commands are written");
    let number = Cell::new(1);
    let id = plane.create(managed(0), Key::None).await?;
    let query = format!(r#"{{"id":"{id}"}}"#);
    let (taken, failed) = (RefCell::new(Vec::new()), Cell::new(0_u32));
    let queries = async {
        loop {
            let begin = Instant::now();
            match plane.request("network.get", query.clone(), Key::None).await {
                Ok(_) => taken.borrow_mut().push(begin.elapsed()),
                Err(_) => failed.set(failed.get() + 1),
            }
        }
    };
    let create = |_| {
        let body = managed(number.replace(number.get() + 1));
        let plane = &plane;
        async move { plane.create(body, Key::None).await.map(drop) }
    };
    let rate = tokio::select! {
        rate = measure(IN_FLIGHT, TIME, create) => rate?,
        () = queries => return Err("the queries ended".into()),
    };
    plane.stop().await?;
    let (taken, failed) = (taken.into_inner(), failed.get());
    let figures = Figures::of(taken.iter().copied());
    Ok(format!(
        "{} queries at {:.0} commands/s: p50 {:.1} ms, p99 {:.1} ms, {failed} unavailable (target p99 at most \
         {TARGET:.0} ms: {})",
        taken.len(),
        rate.per_second,
        figures.p50,
        figures.p99,
        verdict(failed == 0 && figures.p99 <= TARGET),
    ))
}
