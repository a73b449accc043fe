//! How long queries about the past take, and how fast and large their history becomes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otherix_projections::service::Inputs;
use otherix_projections::{history, read_models};
use otherix_runtime::{Runtime, SeededRuntime, SystemRuntime};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{FindNetwork, ListNetworks};
use otherix_schemas::node::{FindNode, ListNodes};
use otherix_schemas::permission::Role;
use otherix_schemas::position::Position;
use otherix_schemas::request::{AsOf, Request};
use otherix_schemas::user::Caller;
use otherix_schemas::value::UserId;
use otherix_schemas::vm::{FindVm, ListVms};
use otherix_testkit::TempDir;
use otherix_transport::service::{Call, Sender};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::events::{self, CLUSTER};
use super::{InMemory, per_second};
use crate::BenchError;
use crate::report::{report_progress, target_result};

/// Positions that are looked at.
const POSITIONS: u32 = 100;

/// Target for each query.
const TARGET: Duration = Duration::from_secs(1);

/// Builds the history of `count` events, queries it at random positions, and returns lines of figures.
pub(crate) async fn run(count: u32) -> Result<String, BenchError> {
    report_progress(&format!("bench: creating {count} events"));
    let events = Arc::new(InMemory(events::history(count)?));
    // On a disk; `/tmp` may be in memory.
    let folder = TempDir::with_prefix_in("otherix-bench-", Path::new("/var/tmp"))?;
    let (runtime, last) = (SystemRuntime::shared(), Position::new(count.into()));
    let (_sender, head) = watch::channel(last);
    let (_, models) = read_models::open(&folder.path().join("read-models.db"), CLUSTER, last, Arc::clone(&runtime))?;
    let path = folder.path().join("history.db");
    let (follower, history) = history::open(&path, CLUSTER, last, runtime)?;
    report_progress(&format!("bench: building the history of {count} events"));
    let begin = Instant::now();
    let following = tokio::spawn(follower.run(head.clone(), Arc::clone(&events) as _));
    if !history.reach(last, Duration::from_secs(7200)).await {
        return Err(format!("the history is at {}", history.progress().position).into());
    }
    let rate = per_second(count, begin);
    let size = std::fs::metadata(&path)?.len() / 1_000_000;
    let inputs = Inputs { models, history, head, events, stream: Arc::new(|| Position::ZERO) };
    let random = SeededRuntime::new(1);
    let mut times: BTreeMap<&str, Vec<(Duration, u64)>> = BTreeMap::new();
    // What a query reads grows or shrinks along the history: both ends, and positions in between.
    let last = u64::from(count);
    let ends = [1, events::FULL.min(last), last];
    let positions = (0..POSITIONS).map(|_| random.random_u64() % last + 1);
    for position in positions.chain(ends) {
        for (request, body) in requests(position) {
            let begin = Instant::now();
            let answer = inputs.answer(call(request, &body, position)?).await;
            let time = begin.elapsed();
            if let Err(error) = answer
                && (error.error.code != ErrorCode::NotFound || position > events::FULL)
            {
                return Err(format!("{} {body} at {position}: {error}", request.name).into());
            }
            times.entry(request.name).or_default().push((time, position));
        }
    }
    following.abort();
    let mut slowest = Duration::ZERO;
    let mut lines = Vec::new();
    for (name, times) in &mut times {
        times.sort_unstable();
        let (median, _) = times.get(times.len() / 2).copied().unwrap_or_default();
        let (longest, position) = times.last().copied().unwrap_or_default();
        slowest = slowest.max(longest);
        lines.push(format!("  {name:<14}median {median:>8.1?}  longest {longest:>8.1?} (at {position})"));
    }
    let result = target_result(slowest <= TARGET);
    lines.insert(
        0,
        format!(
            "queries about the past of {count} events: longest {slowest:.1?} (target {TARGET:?}: {result}); history \
             built at {rate:.0} events/s, {size} MB"
        ),
    );
    Ok(lines.join("\n"))
}

/// The queries at a position, with names of what is in the middle of those that exist then.
fn requests(position: u64) -> [(Request, Value); 7] {
    let number = events::middle(position);
    [
        (Request::of::<ListNetworks>(), json!({ "limit": 200 })),
        (Request::of::<ListNetworks>(), json!({ "limit": 200, "type": "bridge" })),
        (Request::of::<ListVms>(), json!({ "limit": 200 })),
        (Request::of::<ListNodes>(), json!({})),
        (Request::of::<FindNetwork>(), json!({ "name": format!("network-{number}") })),
        (Request::of::<FindVm>(), json!({ "name": format!("vm-{}", number / events::VM_EVERY * events::VM_EVERY) })),
        (Request::of::<FindNode>(), json!({ "name": "node-1" })),
    ]
}

fn call(request: Request, body: &Value, position: u64) -> Result<Call, BenchError> {
    let user: UserId = "bench".parse()?;
    let caller =
        Caller { key: user.clone(), id: user.clone(), name: "bench".to_owned(), role: Role::Viewer, expires_at: None };
    Ok(Call {
        request,
        caller,
        sender: Sender { user, host: None, client: None },
        body: serde_json::to_vec(body)?.into(),
        idempotency_key: None,
        traceparent: None,
        dry_run: false,
        stale: false,
        at: Some(AsOf::Position(Position::new(position))),
    })
}
