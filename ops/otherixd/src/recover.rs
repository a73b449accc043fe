//! `otherixd journal adopt` and `otherixd restore`: say what would be done, and do it unless it is a dry run.

use std::io::Write;
use std::path::Path;

use otherix_commands::clock;
use otherix_commands::store::{EventStore, Replayed, load};
use otherix_commands::recovery::{adopt, restore};
use otherix_commands::relay::{Reader, survey};
use otherix_schemas::id::{CorrelationId, EventId};
use otherix_schemas::position::{Epoch, Position};
use otherix_schemas::value::{UserId, Vni};
use uuid::Uuid;

use crate::args::{AdoptArgs, RestoreArgs, State};
use crate::at_rest::AtRest;
use crate::nats::write_private;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// Takes over from the stream what the journal lacks.
pub(crate) async fn adopt(args: &AdoptArgs) -> Result<(), Failure> {
    let mut control_plane = AtRest::take(&args.at_rest, true).await?;
    let done = adopt_from(&mut control_plane, args.dry_run).await;
    control_plane.release().await;
    done
}

async fn adopt_from(control_plane: &mut AtRest, dry_run: bool) -> Result<(), Failure> {
    let Some((name, context)) = control_plane.streams.first() else {
        say("there is no stream: nothing can be taken over")?;
        return Ok(());
    };
    let plan = adopt::plan(context, &control_plane.journal).await?;
    let adopt::Plan { behind, until, events, epoch, foreign } = plan;
    if foreign > 0 {
        say(&format!(
            "{foreign} messages of the {name} are no events; they are left, and go when the stream is made anew"
        ))?;
    }
    if events == 0 {
        say(&format!("the journal lacks nothing that the {name} has: it stands at position {behind}"))?;
        return Ok(());
    }
    say(&format!(
        "{events} events of the {name}, positions {} to {until}, epoch {epoch}, follow the journal's last at position {behind}",
        behind.next()
    ))?;
    if dry_run {
        say("nothing was changed; without --dry-run the journal takes them over byte for byte")?;
        return Ok(());
    }
    adopt::carry_out(context, &mut control_plane.journal).await?;
    let loaded = load(&control_plane.journal).await?;
    say(&format!(
        "taken over: the journal stands at position {}, digest {:?}. Idempotency keys of these requests are not known",
        loaded.state.position(),
        loaded.digest
    ))?;
    Ok(())
}

/// Begins a new epoch behind the journal.
pub(crate) async fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let mut control_plane = AtRest::take(&args.at_rest, false).await?;
    let done = restore_behind(&mut control_plane, args).await;
    control_plane.release().await;
    done
}

async fn restore_behind(control_plane: &mut AtRest, args: &RestoreArgs) -> Result<(), Failure> {
    let loaded = load(&control_plane.journal).await?;
    let last_epoch = control_plane.journal.gaps().await?.last().map(|gap| gap.next);
    let above = args.above.map(Position::new);
    let mut seen = restore::Seen { streams: Vec::new(), last_epoch, above };
    for (_, context) in &control_plane.streams {
        seen.streams.push(survey(context, &control_plane.journal).await?);
    }
    let Some(plan) = restore::plan(&loaded, &seen)? else {
        say(&format!(
            "epoch {} has begun at position {}: there is nothing to do",
            loaded.epoch,
            loaded.state.position()
        ))?;
        return Ok(());
    };
    explain(&plan, &loaded)?;
    if args.dry_run {
        say("nothing was changed; without --dry-run the new epoch begins")?;
        return Ok(());
    }
    let state = &args.at_rest.state;
    if let Some((first, _)) = plan.given_up {
        let file = state.folder.join(format!("given-up-epoch-{}-from-{first}.jsonl", loaded.epoch));
        let kept = export(control_plane, first, loaded.epoch, &file).await?;
        say(&format!("the {kept} events that are given up are kept in `{}`", file.display()))?;
    }
    begin(control_plane, &loaded, &plan, state).await
}

fn explain(plan: &restore::Plan, loaded: &Replayed) -> std::io::Result<()> {
    let restore::Plan { epoch, first, kept, given_up, highest_vni, highest_mesh_address, mesh_addresses_left_out } =
        plan;
    say(&format!(
        "epoch {epoch} is to begin at position {first}, behind the journal's last event at position {kept} (epoch {})",
        loaded.epoch
    ))?;
    if let Some((from, to)) = given_up {
        say(&format!("given up: what the stream has from position {from} to {to}, although it was acknowledged"))?;
    }
    if let Some(vni) = highest_vni.map(Vni::get) {
        say(&format!("no VNI up to {vni} is given (again)"))?;
    }
    let known = highest_mesh_address.map(|address| format!("up to {address} or ")).unwrap_or_default();
    if highest_mesh_address.is_some() || *mesh_addresses_left_out > 0 {
        say(&format!("no address of the mesh {known}among the {mesh_addresses_left_out} behind is given (again)"))?;
    }
    say("nodes see the new epoch, and hold back deletions until they are released")
}

async fn begin(
    control_plane: &mut AtRest,
    loaded: &Replayed,
    plan: &restore::Plan,
    state: &State,
) -> Result<(), Failure> {
    // They may account for what is given up. Before the epoch begins: afterwards nobody could tell.
    state.remove_read_models()?;
    let actor = UserId::parse("otherixd")?;
    let draw = (clock::now()?, EventId::new(Uuid::now_v7()), CorrelationId::new(Uuid::now_v7()));
    restore::carry_out(&mut control_plane.journal, loaded, plan, actor, draw).await?;
    say(&format!("epoch {} has begun; the next start of otherixd makes the stream anew", plan.epoch))?;
    Ok(())
}

/// Writes the events that are given up into a file, a line each, byte for byte.
async fn export(control_plane: &AtRest, first: Position, epoch: Epoch, file: &Path) -> Result<usize, Failure> {
    let mut lines = Vec::new();
    let mut events = 0;
    let Some((_, context)) = control_plane.streams.first() else { return Ok(0) };
    let mut reader = Reader::open(context, first).await?;
    while let Some(found) = reader.next().await? {
        if found.claims(control_plane.journal.identity().cluster, epoch) {
            lines.extend_from_slice(&found.message.payload);
            lines.push(b'\n');
            events += 1;
        }
    }
    write_private(file, &lines)?;
    Ok(events)
}
