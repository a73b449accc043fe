//! `otherix events list` and `otherix events tail`.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use clap::Args;
use otherix_schemas::event::{EventQuery, ListEvents};
use otherix_schemas::position::Position;
use otherix_schemas::violations::Violations;
use serde_json::Value;

use super::line::Lines;
use super::select::{self, Page, SelectArgs};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::LiveFeed;
use crate::moment::Moment;
use crate::number;
use crate::output::Printer;
use crate::output::format::Format;

/// What `list` shows without `--since`.
const DEFAULT_SINCE: &str = "24h";

#[derive(Debug, Args)]
pub(crate) struct ListEventsArgs {
    /// Begin with events this long ago (30s, 10m, 1h, 7d), at an RFC 3339 time, at a position, or with `all` [default:
    /// 24h]
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,

    /// End before events this long ago, before an RFC 3339 time, or with a position
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,

    #[command(flatten)]
    select: SelectArgs,

    /// Only the newest of them, at most this many
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    limit: Option<String>,

    /// Output format; json prints one event per line, as it is stored
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct TailEventsArgs {
    /// Begin with events this long ago (30s, 10m, 1h, 7d), at an RFC 3339 time, at a position, or with `all` [default:
    /// new events]
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,

    /// End with the newest event at the start of the command
    #[arg(long, requires = "since")]
    until_now: bool,

    #[command(flatten)]
    select: SelectArgs,

    /// Output format; json prints one event per line, as it is stored
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const LIST_HELP: &str = "\
Events in the order in which they were recorded: time (UTC), position, type, resource, who caused it, details, and the \
event that caused it: its position, or its id if it is not among those that were printed. All conditions must hold. \
Events about users, join tokens and keys of nodes are only shown to roles with the permission audit:read. A name may \
be that of a resource that was deleted.

Examples:
  otherix events list --since 1h
  otherix events list --since all --network net-dev
  otherix events list --type vm --actor ann --limit 20
  otherix events list --since 2026-11-01T00:00:00Z --until 2026-11-02T00:00:00Z -o json";

pub(super) const TAIL_HELP: &str = "\
Prints events as soon as they are recorded, until it is interrupted. Continues through outages of the control plane; \
no event is left out or printed twice.

Examples:
  otherix events tail
  otherix events tail --since 10m --node node-1
  otherix events tail --since 1042 --until-now -o json";

/// Prints events.
struct EventPrinter<'a> {
    printer: &'a mut Printer,
    format: Format,
    lines: Lines,
}

impl EventPrinter<'_> {
    /// Prints events; ends the command if nobody reads its output any more.
    async fn print(&mut self, events: &[String], client: &mut ControlPlaneClient) -> Result<ControlFlow<()>, Failure> {
        let text: String = match self.format {
            Format::Json => events.iter().map(|event| format!("{event}\n")).collect(),
            Format::Text => {
                let events: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
                self.lines.names.learn(&events, client).await;
                events.iter().map(|event| self.lines.line(event) + "\n").collect()
            }
        };
        if text.is_empty() { Ok(ControlFlow::Continue(())) } else { self.printer.stream(&text) }
    }
}

/// Carries out `list`.
pub(super) async fn list(global: &GlobalArgs, args: ListEventsArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ListEventsArgs { since, until, select, limit, output } = args;
    let mut violations = Violations::default();
    let v = &mut violations;
    let since = v.check("since", Moment::parse(since.as_deref().unwrap_or(DEFAULT_SINCE)));
    let until = until.and_then(|until| {
        let moment = Moment::parse(&until).and_then(|moment| match moment {
            Moment::Position(Position::ZERO) => Err("no event has the position 0".to_owned()),
            other @ (Moment::Position(_) | Moment::Time(_)) => Ok(other),
        });
        v.check("until", moment)
    });
    let limit = number::parse("limit", limit.as_deref(), v);
    let limit = limit.and_then(|limit| {
        let positive = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        v.check("limit", positive.ok_or("must be at least 1"))
    });
    if !violations.is_empty() {
        return Err(violations.into());
    }
    let mut client = ControlPlaneClient::connect(global).await?;
    let mut query = select.resolve(&mut client).await?;
    since.into_iter().for_each(|since| select::begin(&mut query, since));
    let last = match until {
        Some(Moment::Time(time)) => {
            query.until = Some(time);
            None
        }
        Some(Moment::Position(position)) => Some(position),
        None => None,
    };
    let mut to = EventPrinter { printer, format: output, lines: Lines::default() };
    let mut newest = VecDeque::new();
    loop {
        let Page { events, is_last } = select::next_page(&mut query, last, &mut client).await?;
        if let Some(limit) = limit {
            newest.extend(events);
            newest.drain(..newest.len().saturating_sub(limit));
        } else if to.print(&events, &mut client).await?.is_break() {
            return Ok(());
        }
        if is_last {
            return to.print(newest.make_contiguous(), &mut client).await.map(|_| ());
        }
    }
}

/// Carries out `tail`.
pub(super) async fn tail(global: &GlobalArgs, args: TailEventsArgs, printer: &mut Printer) -> Result<(), Failure> {
    let TailEventsArgs { since, until_now, select, output } = args;
    let since = since.map(|since| Moment::parse(&since)).transpose();
    let since = since.map_err(|rule| Failure::from(Violations::one("since", rule)))?;
    let mut client = ControlPlaneClient::connect(global).await?;
    // Before the first query, so that no event is between the two.
    let mut feed = LiveFeed::events(&mut client).await?;
    let mut query = select.resolve(&mut client).await?;
    let head = head(&mut client).await?;
    match since {
        Some(since) => select::begin(&mut query, since),
        None => query.after = head,
    }
    let last = until_now.then_some(head);
    let mut to = EventPrinter { printer, format: output, lines: Lines::default() };
    let mut is_reachable = true;
    loop {
        match select::next_page(&mut query, last, &mut client).await {
            Ok(Page { events, is_last }) => {
                if !std::mem::replace(&mut is_reachable, true) {
                    to.note("the control plane answers again");
                }
                if to.print(&events, &mut client).await?.is_break() || (is_last && until_now) {
                    return Ok(());
                }
                if !is_last {
                    continue;
                }
            }
            Err(failure) if failure.exit == Exit::Unreachable && !until_now => {
                if std::mem::replace(&mut is_reachable, false) {
                    to.note(&format!("{}; still waiting", failure.body.error.message));
                }
            }
            Err(failure) => return Err(failure),
        }
        client.renew();
        feed.resubscribe_if_lost(&mut client).await;
        feed.changed(None).await;
    }
}

impl EventPrinter<'_> {
    /// Prints a line for people; programs see events only.
    fn note(&mut self, text: &str) {
        if self.format == Format::Text {
            self.printer.note(text);
        }
    }
}

/// The position of the last event.
async fn head(client: &mut ControlPlaneClient) -> Result<Position, Failure> {
    // Reads nothing: no position is after it.
    let query = EventQuery { after: Position::new(u64::MAX), ..EventQuery::default() };
    client.renew();
    Ok(client.call::<ListEvents>(&query).await?.meta.position)
}
