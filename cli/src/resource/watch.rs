//! `--watch`: queries again whenever an event was recorded, and prints what has changed. Continues through outages of
//! the control plane until it is interrupted, or nobody reads its output any more.
//!
//! Cancel-safety: changes nothing; may be dropped at any await.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Resource;
use crate::client::ControlPlaneClient;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::output::Printer;
use crate::output::table::Rows;

/// Of the time that a query took, how many times as long the next one waits: however large a list is and however many
/// events there are, the control plane has most of its time for others.
const PAUSE: u32 = 4;

/// Longest wait, also after a query that was not answered.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Queries at once and after events. `show` prints a result that may equal the one before.
pub(super) async fn run<T>(
    client: &mut ControlPlaneClient,
    printer: &mut Printer,
    mut query: impl AsyncFnMut(&mut ControlPlaneClient) -> Result<T, Failure>,
    mut show: impl FnMut(T, &mut Printer) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    // Before the first query, so that no change is between the two.
    let mut feed = LiveFeed::events(client).await?;
    let mut is_reachable = true;
    loop {
        client.renew();
        let begin = Instant::now();
        match query(client).await {
            Ok(result) => {
                if !std::mem::replace(&mut is_reachable, true) && !printer.is_json() {
                    printer.note("the control plane answers again");
                }
                if show(result, printer)?.is_break() {
                    return Ok(());
                }
            }
            Err(failure) if failure.exit == Exit::Unreachable => {
                if std::mem::replace(&mut is_reachable, false) && !printer.is_json() {
                    printer.note(&format!("{}; still waiting", failure.body.error.message));
                }
            }
            Err(failure) => return Err(failure),
        }
        sleep((begin.elapsed() * PAUSE).min(PAUSE_MAX)).await;
        client.renew();
        feed.resubscribe_if_lost(client).await;
        feed.changed(None).await;
    }
}

/// A changed resource of a list in JSON.
#[derive(Serialize)]
struct Change<'a> {
    change: &'static str,
    resource: &'a Value,
}

/// The resources of a list as they were printed last.
pub(super) struct WatchedList {
    json: bool,
    show_ids: bool,
    shown: BTreeMap<Uuid, Shown>,
    rows: Option<Rows>,
}

struct Shown {
    row: Vec<String>,
    view: Value,
}

impl WatchedList {
    pub(super) fn new(json: bool, show_ids: bool) -> Self {
        Self { json, show_ids, shown: BTreeMap::new(), rows: None }
    }

    /// The lines about the resources that were added, changed or removed since the last time.
    pub(super) fn changes<R: Resource>(&mut self, views: &[R]) -> String {
        let mut changed = Vec::new();
        let mut before = std::mem::take(&mut self.shown);
        for view in views {
            let id = view.id();
            let row = self.show_ids.then(|| id.to_string()).into_iter().chain(view.row()).collect();
            let now = Shown { row, view: serde_json::to_value(view).unwrap_or_default() };
            match before.remove(&id) {
                None => changed.push(("added", now.row.clone(), now.view.clone())),
                Some(last) if self.differs(&last, &now) => {
                    changed.push(("changed", now.row.clone(), now.view.clone()));
                }
                Some(_) => {}
            }
            self.shown.insert(id, now);
        }
        for (_, Shown { mut row, view }) in before {
            row.push("removed".to_owned());
            changed.push(("removed", row, view));
        }
        if self.json {
            let line = |(change, _, view): &(&'static str, Vec<String>, Value)| {
                let line = serde_json::to_string(&Change { change, resource: view });
                line.unwrap_or_default() + "\n"
            };
            return changed.iter().map(line).collect();
        }
        let rows: Vec<Vec<String>> = changed.into_iter().map(|(_, row, _)| row).collect();
        let heading = || self.show_ids.then_some("ID").into_iter().chain(R::COLUMNS.iter().copied());
        match &mut self.rows {
            Some(printed) => printed.more(&rows),
            None => {
                let (first, text) = Rows::new(&heading().collect::<Vec<_>>(), &rows);
                self.rows = Some(first);
                text
            }
        }
    }

    /// In a table, only what it shows counts.
    fn differs(&self, last: &Shown, now: &Shown) -> bool {
        if self.json { last.view != now.view } else { last.row != now.row }
    }
}
