//! `otherix admin projection`: how far the read models are, and their rebuild.

use std::time::Duration;

use clap::{Args, Subcommand};
use otherix_schemas::error::ErrorCode;
use otherix_schemas::projection::{
    AllProjections, ProjectionErrorView, ProjectionStatus, ProjectionView, ProjectionsView, RebuildProjections,
    RebuildState, RebuildView,
};
use tokio::time::sleep;

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::table;
use crate::output::text::clean;

/// How often the progress of a rebuild is asked for.
const INTERVAL: Duration = Duration::from_millis(250);

/// Show and rebuild the read models, from which queries are answered
#[derive(Debug, Subcommand)]
#[command(after_help = HELP)]
pub(crate) enum ProjectionSubcommand {
    /// Show how far each read model is, and the last rebuild
    #[command(after_help = STATUS_HELP)]
    Status(OutputArgs),
    /// Build the read models, except `history`, again from the events, beside those in use, and replace these
    #[command(after_help = REBUILD_HELP)]
    Rebuild(OutputArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Examples:
  otherix admin projection status
  otherix admin projection rebuild";

const STATUS_HELP: &str = "\
LAG is how many events a read model is behind the last one. `history` is what --at is answered from. The last error \
since the control plane started is shown with the position after which it occurred, also if it is over; a read model \
that is `stopped` tries again.

Examples:
  otherix admin projection status
  otherix admin projection status -o json";

const REBUILD_HELP: &str = "\
Needs the permission cluster:manage. Commands and queries go on; queries wait some milliseconds when the old read \
models are replaced. Shows the progress until it is done; if the command is interrupted, the rebuild goes on. If the \
control plane ends or a rebuild fails, the old read models stay in use. A rebuild that is running already is followed \
and no other one begun. `history` is not rebuilt by it: while the control plane is stopped, its file history.db may \
be removed, and is then built again.

Examples:
  otherix admin projection rebuild
  otherix admin projection rebuild -o json";

/// Carries out a command.
pub(super) async fn run(
    global: &GlobalArgs,
    command: ProjectionSubcommand,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut client = ControlPlaneClient::connect(global).await?;
    match command {
        ProjectionSubcommand::Status(OutputArgs { output }) => {
            let view = client.call::<ProjectionStatus>(&AllProjections {}).await?.data;
            match output {
                Format::Json => printer.data(&view),
                Format::Text => printer.text(&status(&view)),
            }
        }
        ProjectionSubcommand::Rebuild(OutputArgs { output }) => {
            let begun = client.call::<RebuildProjections>(&AllProjections {}).await?.data;
            let RebuildView { state, position, duration_ms, error, .. } =
                &followed(begun, &mut client, printer).await?;
            if let (RebuildState::Failed, Some(error)) = (state, error) {
                let message = format!("the read models were not rebuilt; the old ones are in use: {error}");
                return Err(Failure::new(Exit::Unexpected, ErrorCode::Internal, message));
            }
            let seconds = Duration::from_millis(*duration_ms).as_secs_f64();
            match output {
                Format::Json => printer.data(&serde_json::json!({ "position": position, "duration_ms": duration_ms })),
                Format::Text => {
                    printer.text(&format!("read models rebuilt, up to position {position}, in {seconds:.1} s\n"))
                }
            }
        }
    }
}

/// Shows the progress of a rebuild until it is over.
async fn followed(
    mut rebuild: RebuildView,
    client: &mut ControlPlaneClient,
    printer: &mut Printer,
) -> Result<RebuildView, Failure> {
    let mut shown = None;
    while rebuild.state == RebuildState::Running {
        let RebuildView { position, head, .. } = rebuild;
        // Without a terminal, each is a line of its own.
        let percent = position.get().saturating_mul(100).checked_div(head.get());
        if shown != Some(percent) {
            printer.progress(position.get(), head.get(), &format!("{position} of {head} events"));
            shown = Some(percent);
        }
        sleep(INTERVAL).await;
        client.renew();
        let status = client.call::<ProjectionStatus>(&AllProjections {}).await;
        let status = status.map_err(|failure| {
            failure.hint("the old read models are in use if the control plane has ended: begin the rebuild again")
        })?;
        rebuild = status.data.rebuild.ok_or_else(|| {
            let message = "the control plane was started again during the rebuild; the old read models are in use";
            Failure::new(Exit::Unexpected, ErrorCode::Internal, message)
        })?;
    }
    printer.end_progress();
    Ok(rebuild)
}

fn status(view: &ProjectionsView) -> String {
    let ProjectionsView { head, projections, rebuild } = view;
    let row = |view: &ProjectionView| {
        let ProjectionView { name, state, position, lag, .. } = view;
        vec![name.clone(), state.as_str().to_owned(), position.to_string(), lag.to_string()]
    };
    let rows: Vec<_> = projections.iter().map(row).collect();
    let mut text = table::table(&["NAME", "STATE", "POSITION", "LAG"], &rows);
    let errors = projections.iter().filter_map(|view| Some((&view.name, view.last_error.as_ref()?)));
    for (name, ProjectionErrorView { message, position, time }) in errors {
        let time = table::optional(time.as_ref());
        text.push_str(&format!("last error of {name}, {time}, after position {position}: {}\n", clean(message)));
    }
    text.push_str(&format!("last event: {head}\n"));
    if let Some(RebuildView { state, position, duration_ms, error, .. }) = rebuild {
        let seconds = Duration::from_millis(*duration_ms).as_secs_f64();
        let how = match state {
            RebuildState::Running => format!("running for {seconds:.1} s"),
            RebuildState::Done => format!("done in {seconds:.1} s"),
            RebuildState::Failed => format!("failed after {seconds:.1} s"),
        };
        let error = error.as_ref().map(|error| format!(": {}", clean(error))).unwrap_or_default();
        text.push_str(&format!("last rebuild: {how}, position {position}{error}\n"));
    }
    text
}
