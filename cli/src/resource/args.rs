//! Arguments that the verbs of all resources share.

use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use otherix_schemas::request::AsOf;
use otherix_schemas::violations::Violations;

use crate::duration;
use crate::moment;
use crate::output::format::Format;

/// `--wait` and its time limit.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait until the nodes are ready, or have confirmed the removal
    #[arg(long)]
    pub(crate) wait: bool,

    /// How long to wait, with a unit: ms, s, m or h; at most 24h
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse, requires = "wait")]
    pub(crate) wait_timeout: Duration,
}

/// `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs<F: ValueEnum + Clone + Send + Sync + 'static> {
    /// Page size, 1 to 200 [default: 20 in a table, else all pages]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) limit: Option<String>,

    /// Where the page begins: the `next cursor` of the previous page
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: F,

    /// Show the ids in the table
    #[arg(long)]
    pub(crate) show_ids: bool,

    /// Print all, and then every change as soon as it is recorded, until interrupted. A row that ends with `removed` is
    /// of a resource that does not exist any more. In JSON, one object per line: `change` (added, changed, removed)
    /// and `resource`
    #[arg(long, conflicts_with_all = ["limit", "cursor", "stale"])]
    pub(crate) watch: bool,

    /// Answer at once, even if the data does not include the latest changes yet
    #[arg(long)]
    pub(crate) stale: bool,
}

/// When a command looks at the state.
#[derive(Debug, Default, Args)]
pub(crate) struct AtArgs {
    /// Show what it was after the event at a position, or at an RFC 3339 time or a time ago (30s, 10m, 1h, 7d)
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["stale", "watch"])]
    pub(crate) at: Option<String>,
}

impl AtArgs {
    /// Validates them.
    pub(crate) fn parse(self, violations: &mut Violations) -> Option<AsOf> {
        self.at.and_then(|at| violations.check("at", moment::as_of(&at)))
    }
}

/// `list` of a resource whose history is kept.
#[derive(Debug, Args)]
pub(crate) struct ListAtArgs<F: ValueEnum + Clone + Send + Sync + 'static> {
    #[command(flatten)]
    pub(crate) list: ListArgs<F>,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}

/// `get` of a resource whose history is kept.
#[derive(Debug, Args)]
pub(crate) struct GetAtArgs<F: ValueEnum + Clone + Send + Sync + 'static> {
    #[command(flatten)]
    pub(crate) get: GetArgs<F>,

    #[command(flatten)]
    pub(crate) at: AtArgs,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs<F: ValueEnum + Clone + Send + Sync + 'static> {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    pub(crate) reference: String,

    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: F,

    /// Answer at once, even if the data does not include the latest changes yet
    #[arg(long)]
    pub(crate) stale: bool,

    /// Print it again whenever it has changed, until interrupted, or until it does not exist any more (exit code 3). In
    /// JSON, one view per line
    #[arg(long, conflicts_with = "stale")]
    pub(crate) watch: bool,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    pub(crate) reference: String,

    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) force: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `delete` of a resource that nodes have to remove.
#[derive(Debug, Args)]
pub(crate) struct DeleteAndWaitArgs {
    #[command(flatten)]
    pub(crate) delete: DeleteArgs,

    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Parses any string and offers `values` to shell completion. Validation is left to the rules of the request, so that
/// all violations are reported together.
pub(crate) fn completes_to(values: &'static [&'static str]) -> impl TypedValueParser<Value = String> {
    CompletedParser { values }
}

#[derive(Clone)]
struct CompletedParser {
    values: &'static [&'static str],
}

impl TypedValueParser for CompletedParser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values.iter().map(|&value| PossibleValue::new(value))))
    }
}
