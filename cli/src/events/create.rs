//! `otherix events consumer create`.

use std::time::Duration;

use clap::Args;
use otherix_schemas::consumer::{ConsumerDraft, CreateConsumer};
use otherix_schemas::violations::Violations;

use super::{fields, read};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;
use crate::{access, duration, number};

#[derive(Debug, Args)]
pub(crate) struct CreateConsumerArgs {
    /// The name, unique among your consumers: 1 to 32 of a-z, 0-9, `_` and `-`
    #[arg(value_name = "NAME")]
    name: String,

    /// The event to begin with: all, new, a position, or an RFC 3339 time [default: all]
    #[arg(long, value_name = "START")]
    from: Option<String>,

    /// The type of the events to deliver, such as vm.created; can be repeated [default: all events]
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// The subject of the events to deliver, which may have wildcards, such as otherix.evt.v1.vm.>; can be repeated
    #[arg(long = "subject", value_name = "SUBJECT")]
    subjects: Vec<String>,

    /// Time after which an event that was not acknowledged is delivered again, with a unit: s, m or h; 1s to 1h
    /// [default: 30s]
    #[arg(long, value_name = "DURATION")]
    ack_wait: Option<String>,

    /// Maximum number of events that are delivered and not acknowledged, 1 to 1000 [default: 1000]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_ack_pending: Option<String>,

    /// Time without a reader after which the consumer is removed, with a unit: h or d; 1h to 366d [default: 30d]
    #[arg(long, value_name = "DURATION")]
    inactive: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
A durable consumer remembers what its reader has acknowledged, also while no reader runs: every event from --from on \
is delivered until it is acknowledged. Only the user that creates it can read it; each user can have four. Prints a \
command that reads it with the `nats` tool. The same command again changes nothing. Requires the permission \
audit:read, because the stream has events about users, too. A consumer ends with the user's key or role.

Examples:
  otherix events consumer create audit
  otherix events consumer create billing --from new --type vm.created --type vm.deleted
  otherix events consumer create replay --from 2026-11-01T00:00:00Z --subject 'otherix.evt.v1.network.>' --inactive 2d";

/// Seconds of a duration with a unit.
fn seconds(field: &str, text: Option<&str>, violations: &mut Violations) -> Option<i64> {
    let text = text?;
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let parsed = match days {
        Some(days) => Ok(Duration::from_secs(u64::from(days) * 86_400)),
        None => duration::parse(text).map_err(|_| "must be a whole number with a unit, such as 30s, 2h or 7d"),
    };
    violations.check(field, parsed).and_then(|duration| i64::try_from(duration.as_secs()).ok())
}

impl CreateConsumerArgs {
    fn draft(self) -> Result<ConsumerDraft, Violations> {
        let Self { name, from, types, subjects, ack_wait, max_ack_pending, inactive, output: _ } = self;
        let mut violations = Violations::default();
        let v = &mut violations;
        let draft = ConsumerDraft {
            name,
            from,
            types,
            subjects,
            ack_wait_seconds: seconds("ack_wait", ack_wait.as_deref(), v),
            max_ack_pending: number::parse("max_ack_pending", max_ack_pending.as_deref(), v),
            inactive_seconds: seconds("inactive", inactive.as_deref(), v),
        };
        violations.combine(draft.check())?;
        Ok(draft)
    }
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: CreateConsumerArgs, printer: &mut Printer) -> Result<(), Failure> {
    let draft = args.draft().map_err(|violations| usage_hint(violations.into()))?;
    let access = access::resolve(global)?;
    let mut client = ControlPlaneClient::connect(global).await?;
    let created = client.call::<CreateConsumer>(&draft).await.map_err(usage_hint)?.data;
    let command = read::command(&access, &created);
    if printer.is_json() {
        return printer.data(&read::WithCommand { consumer: &created, read_command: command });
    }
    let name = clean(created.name.as_str());
    printer.text(&format!("consumer {name} created\n{}read it:\n  {}\n", fields::details(&created), clean(&command)))
}

fn usage_hint(failure: Failure) -> Failure {
    if failure.exit == Exit::Usage {
        failure.hint("see `otherix events consumer create --help` for the values that each flag accepts")
    } else {
        failure
    }
}
