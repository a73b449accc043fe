//! `otherix explain`: everything that happened to a resource, with the time that its nodes took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Args, Subcommand};
use otherix_schemas::event::EventQuery;
use otherix_schemas::network::NetworkView;
use otherix_schemas::node::NodeView;
use otherix_schemas::position::Position;
use otherix_schemas::refusal::{ListRefusals, NamedResource, RefusalQuery, RefusalView, Refusals};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::vm::VmView;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::line::Lines;
use super::select::{self, Page};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::{clean, pad};
use crate::resource::{NameOrId, Resource};

/// Show everything that happened to a network, VM or node
#[derive(Debug, Subcommand)]
#[command(after_help = HELP)]
pub(crate) enum ExplainSubcommand {
    /// Show everything that happened to a network
    #[command(after_help = HELP)]
    Network(ExplainArgs),
    /// Show everything that happened to a VM and its NIC
    #[command(after_help = HELP)]
    Vm(ExplainArgs),
    /// Show everything that happened to a node
    #[command(after_help = HELP)]
    Node(ExplainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,

    /// Output format; json is an object with events, waits and refused commands
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl ExplainSubcommand {
    /// The resource by its name; `None` if it is given by its id.
    fn named(&self) -> Option<NamedResource> {
        let (resource, ExplainArgs { reference, .. }) = match self {
            Self::Network(args) => (NetworkView::COMMAND, args),
            Self::Vm(args) => (VmView::COMMAND, args),
            Self::Node(args) => (NodeView::COMMAND, args),
        };
        match NameOrId::new(reference) {
            NameOrId::Id(_) => None,
            NameOrId::Name(name) => Some(NamedResource { resource: resource.to_owned(), name: name.to_owned() }),
        }
    }
}

/// How long to wait for refused commands: the events are complete without them.
const REFUSALS_LIMIT: Duration = Duration::from_secs(3);

/// Columns of the time since the line before.
const SINCE_WIDTH: usize = 10;

const HELP: &str = "\
Shows decisions and outcomes in the order in which they were recorded, and for the first outcome of each node about a \
decision the time since then; the longest one is marked. Each line begins with the time since the one before. The name \
may be that of a resource that was deleted. Commands that were refused are shown as far as the control plane keeps \
them: the latest 1,000 of each caller. At most 200 are shown, of which every caller has its share. Nothing proves that \
they are all.

Examples:
  otherix explain network net-dev
  otherix explain node node-1 -o json";

/// What is printed as JSON.
#[derive(Serialize)]
struct Explanation<'a> {
    events: &'a [Value],
    /// Events that are no JSON objects with a position.
    unreadable: usize,
    waits: Vec<Wait>,
    /// Null if the control plane has not told them.
    refusals: Option<Refusals>,
}

/// The time between a decision and an outcome that is about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Wait {
    /// The position of the outcome.
    position: Position,
    /// The position of the decision.
    decision: Position,
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    micros: i64,
    longest: bool,
}

fn as_seconds<S: serde::Serializer>(micros: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    // An f64 holds microseconds exactly for 285 years.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    serializer.serialize_f64(*micros as f64 / 1e6)
}

/// Carries out the command.
pub(crate) async fn run(global: &GlobalArgs, command: ExplainSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    let named = command.named();
    let (ids, output) = match command {
        ExplainSubcommand::Network(ExplainArgs { reference, output }) => {
            (select::id::<NetworkView>(&reference, None, &mut client).await.map(|id| vec![id]), output)
        }
        ExplainSubcommand::Vm(ExplainArgs { reference, output }) => {
            (select::vm_and_nics(&reference, None, &mut client).await, output)
        }
        ExplainSubcommand::Node(ExplainArgs { reference, output }) => {
            (select::id::<NodeView>(&reference, None, &mut client).await.map(|id| vec![id]), output)
        }
    };
    let (ids, never_existed) = match ids {
        Ok(ids) => (ids, None),
        // There may have been attempts to create it.
        Err(failure) if failure.exit == Exit::NotFound => (Vec::new(), Some(failure)),
        Err(failure) => return Err(failure),
    };
    let refusals = RefusalQuery { ids: ids.clone(), named };
    let (events, unreadable) = if ids.is_empty() { (Vec::new(), 0) } else { events_about(ids, &mut client).await? };
    client.renew_until(Instant::now() + REFUSALS_LIMIT);
    let refusals = match client.call::<ListRefusals>(&refusals).await {
        Ok(answer) => Some(answer.data),
        // The events are there all the same. A control plane of an earlier version does not know the request.
        Err(failure) => {
            printer.note(&format!("refused commands are not shown: {}", failure.body.error.message));
            None
        }
    };
    let has_none = refusals.as_ref().is_none_or(|refusals| refusals.refusals.is_empty());
    if let Some(failure) = never_existed.filter(|_| has_none) {
        return Err(failure);
    }
    let waits = waits(&events);
    if output == Format::Json {
        return printer.data(&Explanation { events: &events, unreadable, waits, refusals });
    }
    if unreadable > 0 {
        printer.note(&format!("{unreadable} events cannot be read, and are not shown"));
    }
    let mut lines = Lines::default();
    lines.names.learn(&events, &mut client).await;
    printer.text(&text(&mut lines, &events, &waits, &refusals.unwrap_or_default()))
}

/// All events that have one of the ids, and the number of those that cannot be read.
async fn events_about(ids: Vec<Uuid>, client: &mut ControlPlaneClient) -> Result<(Vec<Value>, usize), Failure> {
    let mut query = EventQuery { names: vec![ids], ..EventQuery::default() };
    let (mut events, mut unreadable) = (Vec::new(), 0);
    loop {
        let Page { events: page, is_last } = select::next_page(&mut query, None, client).await?;
        unreadable += read(&page, &mut events);
        if is_last {
            return Ok((events, unreadable));
        }
    }
}

/// Adds the events of a page, and returns how many of them cannot be read.
fn read(page: &[String], events: &mut Vec<Value>) -> usize {
    let before = events.len();
    let readable = page.iter().filter_map(|event| serde_json::from_str(event).ok());
    events.extend(readable.filter(|event| position(event).is_some()));
    page.len() - (events.len() - before)
}

/// Events and refused commands in the order of their times.
fn text(lines: &mut Lines, events: &[Value], waits: &[Wait], refusals: &Refusals) -> String {
    let waits: BTreeMap<Position, &Wait> = waits.iter().map(|wait| (wait.position, wait)).collect();
    let line = |event: &Value| {
        let wait = position(event).and_then(|position| waits.get(&position));
        let wait = wait.map(|Wait { micros, longest, .. }| {
            let mark = if *longest { ", the longest wait" } else { "" };
            format!(", after {}{mark}", duration(*micros))
        });
        (time(event), format!("{}{}", lines.line(event), clean(&wait.unwrap_or_default())))
    };
    let mut told: Vec<(Option<i64>, String)> = events.iter().map(line).collect();
    told.extend(refusals.refusals.iter().map(|refusal| (Some(refusal.time.unix_micros()), refused(refusal))));
    // Stable: events of one time stay in the order of their positions.
    told.sort_by_key(|(time, _)| *time);
    let mut before = None;
    let mut text = String::new();
    if refusals.is_truncated {
        text.push_str("not all refused commands are shown: of callers with many, older ones are left out\n");
    }
    for (time, line) in told {
        let since = time.zip(before).map(|(time, before)| format!("+{}", duration(time - before)));
        text.push_str(&format!("{}  {line}\n", pad(&since.unwrap_or_default(), SINCE_WIDTH)));
        before = time.or(before);
    }
    text
}

/// The line of a refused command, with the columns of an event's.
fn refused(refusal: &RefusalView) -> String {
    let RefusalView { time, count, last_time, actor_name, request, code, message, actor: _ } = refusal;
    let times = if *count > 1 { format!(", {count} times until {last_time}") } else { String::new() };
    let line = format!("{time}  -       refused: {request} by {actor_name}  {}: {message}{times}", code.as_str());
    clean(&line)
}

/// The waits among these events: from each decision to the first outcome of each node about it. Later outcomes are
/// repairs and failures, which have times of their own.
fn waits(events: &[Value]) -> Vec<Wait> {
    let times: BTreeMap<Position, i64> =
        events.iter().filter_map(|event| Some((position(event)?, time(event)?))).collect();
    let mut seen = BTreeSet::new();
    let mut wait = |event: &Value| {
        let position = position(event)?;
        let results = event.get("data")?.get("results")?.as_array()?;
        let generations = results.iter().filter_map(|result| result.get("generation")?.as_u64());
        let decision = generations.map(Position::new).filter(|generation| times.contains_key(generation)).max()?;
        let node = event.get("subject")?.as_str()?;
        if !seen.insert((node.to_owned(), decision)) {
            return None;
        }
        let micros = times.get(&position)? - times.get(&decision)?;
        Some(Wait { position, decision, micros, longest: false })
    };
    let mut waits: Vec<Wait> = events.iter().filter_map(&mut wait).collect();
    if let Some(longest) = waits.iter_mut().max_by_key(|wait| wait.micros) {
        longest.longest = true;
    }
    waits
}

fn position(event: &Value) -> Option<Position> {
    Position::from_sequence(event.get("sequence")?.as_str()?).ok()
}

/// Microseconds since 1970.
fn time(event: &Value) -> Option<i64> {
    event.get("time")?.as_str()?.parse().ok().map(Timestamp::unix_micros)
}

/// A duration for people, with three digits or so.
fn duration(micros: i64) -> String {
    let (ms, s) = (micros / 1_000, micros / 1_000_000);
    match s {
        ..=0 => format!("{ms}.{} ms", micros % 1_000 / 100),
        1..60 => format!("{s}.{} s", micros % 1_000_000 / 100_000),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600.. => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_wait_is_that_between_a_decision_and_an_outcome_of_it() {
        let event = |position: u64, micros: i64, node: u64, generations: &[u64]| {
            let time = Timestamp::from_unix_micros(micros).unwrap();
            let results: Vec<_> = generations.iter().map(|generation| json!({ "generation": generation })).collect();
            let data = if results.is_empty() { json!({}) } else { json!({ "results": results }) };
            json!({
                "sequence": Position::new(position).to_sequence(), "time": time, "data": data,
                "subject": format!("node/{node}"),
            })
        };
        let events = [
            event(5, 1_000, 0, &[]),
            event(6, 3_000, 1, &[5]),
            // About a decision on something else, too.
            event(7, 9_500, 2, &[5, 4]),
            // A repair.
            event(8, 98_000, 1, &[5]),
            event(9, 99_000, 0, &[]),
            event(10, 99_700, 1, &[9]),
            event(11, 99_900, 1, &[2]),
        ];
        let found: Vec<_> = waits(&events)
            .iter()
            .map(|wait| (wait.position.get(), wait.decision.get(), wait.micros, wait.longest))
            .collect();
        assert_eq!(found, [(6, 5, 2_000, false), (7, 5, 8_500, true), (10, 9, 700, false)]);
    }

    #[test]
    fn events_that_cannot_be_read_are_counted() {
        let right = json!({ "sequence": Position::new(7).to_sequence(), "data": {} }).to_string();
        let page = ["", "{", "[]", "{}", r#"{"sequence":"7"}"#, &right, r#"{"sequence":7}"#].map(str::to_owned);
        let mut events = vec![json!(1)];
        assert_eq!(read(&page, &mut events), 6);
        assert_eq!(events.last().and_then(position), Some(Position::new(7)));
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        for (micros, text) in [
            (0, "0.0 ms"),
            (1_250, "1.2 ms"),
            (999_999, "999.9 ms"),
            (2_500_000, "2.5 s"),
            (61_000_000, "1 min 1 s"),
            (7_260_000_000, "2 h 1 min"),
        ] {
            assert_eq!(duration(micros), text);
        }
    }
}
