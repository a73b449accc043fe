//! `otherixd journal adopt` and `otherixd restore`: print the plan, and execute it unless it is a dry run.

use std::io::Write;

use otherix_commands::recovery::{adopt, restore};
use otherix_commands::relay::survey;
use otherix_commands::store::{EventStore, Replayed, replay};
use otherix_runtime::SystemRuntime;
use otherix_schemas::position::Position;
use otherix_schemas::value::Vni;

use crate::args::{AdoptArgs, RestoreArgs, StateFolder};
use crate::error::BoxError;
use crate::given_up::{GivenUp, Statement};
use crate::nats::write_private;
use crate::offline::StoppedControlPlane;

fn print(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// Appends the events that the stream has and the journal lacks.
pub(crate) async fn adopt(args: &AdoptArgs) -> Result<(), BoxError> {
    let mut control_plane = StoppedControlPlane::open(&args.offline, true).await?;
    let result = adopt_from(&mut control_plane, args.dry_run).await;
    control_plane.close().await;
    result
}

async fn adopt_from(control_plane: &mut StoppedControlPlane, dry_run: bool) -> Result<(), BoxError> {
    let Some((name, context)) = control_plane.streams.first() else {
        print("there is no stream to adopt events from")?;
        return Ok(());
    };
    let plan = adopt::plan(context, &control_plane.journal).await?;
    let adopt::AdoptPlan { head, until, events, epoch, foreign } = plan;
    if foreign > 0 {
        print(&format!(
            "{foreign} messages of the {name} are not events; they are ignored, and removed when the stream is rebuilt"
        ))?;
    }
    if events == 0 {
        print(&format!("the journal has every event of the {name}; its head is position {head}"))?;
        return Ok(());
    }
    print(&format!(
        "{events} events of the {name}, positions {} to {until}, epoch {epoch}, follow the journal's head at {head}",
        head.next()
    ))?;
    if dry_run {
        print("dry run: nothing was changed; without --dry-run they are appended to the journal byte for byte")?;
        return Ok(());
    }
    adopt::execute(context, &mut control_plane.journal).await?;
    let loaded = replay(&control_plane.journal).await?;
    print(&format!(
        "adopted: the journal's head is position {}, digest {:?}; these requests' idempotency keys are not recovered",
        loaded.state.position(),
        loaded.digest
    ))?;
    Ok(())
}

/// Begins a new epoch after the journal's head.
pub(crate) async fn restore(args: &RestoreArgs) -> Result<(), BoxError> {
    let mut control_plane = StoppedControlPlane::open(&args.offline, false).await?;
    let result = begin_epoch_after(&mut control_plane, args).await;
    control_plane.close().await;
    result
}

async fn begin_epoch_after(control_plane: &mut StoppedControlPlane, args: &RestoreArgs) -> Result<(), BoxError> {
    let loaded = replay(&control_plane.journal).await?;
    let last_epoch = control_plane.journal.gaps().await?.last().map(|gap| gap.next);
    let above = args.above.map(Position::new);
    let mut evidence = restore::Evidence { streams: Vec::new(), last_epoch, above };
    for (_, context) in &control_plane.streams {
        evidence.streams.push(survey(context, &control_plane.journal).await?);
    }
    let Some(plan) = restore::plan(&loaded, &evidence)? else {
        print(&format!(
            "epoch {} has already begun at position {}: nothing to do",
            loaded.epoch,
            loaded.state.position()
        ))?;
        return Ok(());
    };
    print_plan(&plan, &loaded)?;
    let state = &args.offline.state;
    let given_up = match plan.given_up {
        Some((first, _)) => GivenUp::read(control_plane, first, loaded.epoch).await?,
        None => GivenUp::default(),
    };
    let Statement { lines, checkpoint } = given_up.prove(control_plane, state, loaded.epoch, args.unproven).await?;
    lines.iter().try_for_each(|line| print(line))?;
    if control_plane.streams.is_empty() {
        let last = plan.kept;
        print(&format!("not proven: that nothing was recorded after position {last}: there is no stream that has it"))?;
    }
    if args.dry_run {
        print("dry run: nothing was changed; without --dry-run the new epoch begins")?;
        return Ok(());
    }
    let first = plan.given_up.map_or(plan.kept.next(), |(first, _)| first);
    let name = format!("given-up-epoch-{}-from-{first}", loaded.epoch);
    let mut given_up_file = String::new();
    if given_up.len() > 0 {
        let file = state.folder.join(format!("{name}.jsonl"));
        given_up.write(&file)?;
        print(&format!("the {} events given up are saved in `{}`", given_up.len(), file.display()))?;
        given_up_file = format!(" --given-up {name}.jsonl");
    }
    if let Some(checkpoint) = checkpoint {
        let file = state.folder.join(format!("{name}.checkpoint"));
        write_private(&file, checkpoint.as_bytes())?;
        print(&format!(
            "the checkpoint that proves it is saved in `{}`; auditors verify it with an export:",
            file.display()
        ))?;
        print(&format!("  otherix audit verify DIR --key KEY --checkpoint {name}.checkpoint{given_up_file}"))?;
    }
    begin(control_plane, &loaded, &plan, state).await
}

fn print_plan(plan: &restore::RestorePlan, loaded: &Replayed) -> std::io::Result<()> {
    let restore::RestorePlan {
        epoch,
        first,
        kept,
        given_up,
        highest_vni,
        highest_mesh_address,
        mesh_addresses_left_out,
    } = plan;
    print(&format!(
        "epoch {epoch} begins at position {first}; the journal's head is position {kept} (epoch {})",
        loaded.epoch
    ))?;
    if let Some((from, to)) = given_up {
        print(&format!("given up: the acknowledged events of the stream from position {from} to {to}"))?;
    }
    if let Some(vni) = highest_vni.map(Vni::get) {
        print(&format!("VNIs up to {vni} are not assigned again"))?;
    }
    let known = highest_mesh_address.map(|address| format!("up to {address} or ")).unwrap_or_default();
    if highest_mesh_address.is_some() || *mesh_addresses_left_out > 0 {
        print(&format!("mesh addresses {known}among the {mesh_addresses_left_out} after that are not assigned again"))?;
    }
    print("nodes that receive the new epoch hold back deletions until they are released")
}

async fn begin(
    control_plane: &mut StoppedControlPlane,
    loaded: &Replayed,
    plan: &restore::RestorePlan,
    state: &StateFolder,
) -> Result<(), BoxError> {
    // They may contain events that are given up. They are deleted before the epoch begins, because that could not be
    // detected later.
    state.remove_read_models()?;
    let actor = "otherixd".parse()?;
    let runtime = SystemRuntime::shared();
    restore::execute(&mut control_plane.journal, loaded, plan, actor, runtime.as_ref()).await?;
    print(&format!("epoch {} has begun; the next start of otherixd rebuilds the stream", plan.epoch))?;
    Ok(())
}
