//! `otherix audit verify`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::id::NodeId;
use otherix_schemas::log::{LogView, LogWitnesses};
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::violations::Violations;
use otherix_tlog::VerifierKey;
use otherix_tlog::entry_proof::ENTRY_PROOF_MAX;
use serde_json::json;

use super::compare::{Compared, Comparison};
use super::folder::ExportFolder;
use super::sequence::Fault;
use super::status::nodes;
use super::verify::{Known, Origin, Report, kept, verify};
use super::verify_proof::{VerifiedProof, verify_proof};
use super::{export, file, log, mirror, parse_key, replay};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::duration;
use crate::failure::Failure;
use crate::offline;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::text::clean;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The folder of an export, or a file with a proof
    #[arg(value_name = "DIR|FILE", required_unless_present = "live", conflicts_with = "live")]
    path: Option<PathBuf>,

    /// Verify what the running control plane has: exports it to a temporary folder, verifies that, and compares the
    /// stream, and the networks, VMs and nodes that it shows, with it
    #[arg(long)]
    live: bool,

    /// The public key of the log, as `otherix audit key` printed it; required, but with --live
    #[arg(long, value_name = "VKEY", required_unless_present = "live")]
    key: Option<String>,

    /// A checkpoint of the log that somebody has kept, such as that of an earlier export; can be repeated
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,

    /// The least number of events that the log must have
    #[arg(long, value_name = "NUMBER")]
    min_size: Option<u64>,

    /// The greatest age of the newest event (30m, 12h, 7d)
    #[arg(long, value_name = "DURATION")]
    max_age: Option<String>,

    /// Compare the log with what the nodes keep of it, as the control plane tells it
    #[arg(long, requires = "live")]
    witnesses: bool,

    /// Accept an export of some positions (`export --from --to`): nothing shows then that others exist
    #[arg(long, conflicts_with = "live")]
    part: bool,

    /// A file with events that a new epoch gave up, as `otherixd restore` wrote it; can be repeated
    #[arg(long, value_name = "FILE")]
    given_up: Vec<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub(super) const HELP: &str = "\
Hashes every event again, and compares all of them with the signed checkpoint: any event that was changed, removed, \
inserted, moved or encoded again is found, and the first position that is wrong is named (exit code 1; a file that is \
no proof: 2). Needs neither a control plane nor credentials, except with --live. Prints what is not proven: a key \
alone does not show that the log was cut off, or written anew by whoever has the key; a checkpoint that was kept \
elsewhere does.

Examples:
  otherix audit verify export-2 --key \"$(cat log.vkey)\" --checkpoint export-1/checkpoint --max-age 1h
  otherix audit verify event-42.tlog-proof --key \"$(cat log.vkey)\"
  otherix audit verify --live --key \"$(cat log.vkey)\" --witnesses";

/// Units of --max-age.
const UNITS: [duration::Unit; 4] = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Ten years.
const AGE_MAX: Duration = Duration::from_secs(3653 * 86_400);

/// The earliest time that is recent enough.
fn since(max_age: &str) -> Result<Timestamp, Failure> {
    let invalid = |text: &str| Failure::from(Violations::one("max_age", text));
    let age = duration::within(max_age, &UNITS, AGE_MAX)
        .map_err(|_| invalid("must be a whole number with a unit (s, m, h, d), such as 12h"))?;
    let micros = i64::try_from(age.as_micros()).map_err(|_| invalid("is too long"))?;
    let now = SystemRuntime.now().map_err(|error| invalid(&error.to_string()))?;
    Timestamp::from_unix_micros(now.unix_micros() - micros).map_err(|error| invalid(&error.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let content = otherix_runtime::files::open_regular(path)
        .and_then(|file| otherix_runtime::files::read_at_most(file, ENTRY_PROOF_MAX as u64));
    content.map_err(|error| {
        let path = path.display();
        file(&std::io::Error::new(error.kind(), format!("cannot read `{path}`: {error}")))
    })
}

/// Carries out the command.
pub(super) async fn run(global: &GlobalArgs, args: VerifyArgs, printer: &mut Printer) -> Result<(), Failure> {
    let VerifyArgs { path, live: _, key, checkpoints, min_size, max_age, witnesses, part, given_up, output } = args;
    let pinned = key.as_deref().map(parse_key).transpose()?;
    let newest_since = max_age.as_deref().map(since).transpose()?;
    let name = |path: &PathBuf| Ok::<_, Failure>((path.display().to_string(), read(path)?));
    let older = checkpoints.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let known = |key: VerifierKey| Known { key, older: older.clone(), min_size, newest_since, given_up, is_part: part };
    let report = match (path, pinned) {
        (Some(path), Some(key)) if path.is_file() => {
            let known = known(key);
            let proof = verify_proof(&read(&path)?, &known)?;
            return print_proof(&proof, &known.key, output, printer);
        }
        (Some(path), Some(key)) => {
            let folder = ExportFolder::open(&path).map_err(|error| file(&error))?;
            verify(&folder, &known(key))?
        }
        (_, pinned) => {
            let mut client = ControlPlaneClient::connect(global).await?;
            let view = log(&mut client).await?;
            let key = pinned.clone().map_or_else(|| parse_key(&view.key), Ok)?;
            let mut known = known(key);
            let mut unusable = Vec::new();
            if witnesses {
                let (usable, others) = kept_by_nodes(&view, &known.key)?;
                (known.older, unusable) = ([known.older, usable].concat(), others);
            }
            let mut report = verify_live(&mut client, &known, printer).await?;
            report.unproven.extend(unusable);
            if pinned.is_none() {
                report.unproven.push("whose key it is: the control plane itself has told it; pass --key".to_owned());
            }
            if witnesses {
                client.renew();
                let silent = nodes(&mut client).await?;
                let silent = silent.iter().filter(|node| !report.continued.contains(&witness_name(node.id)));
                let names: Vec<_> = silent.map(|node| node.name.to_string()).collect();
                if !names.is_empty() {
                    let text = format!("that these nodes have seen the same log: {}", names.join(", "));
                    report.unproven.push(text);
                }
            } else {
                report.unproven.push("that the nodes have seen the same log: that takes --witnesses".to_owned());
            }
            let copies = "that the columns of the journal agree with the events: no client sees them, and `otherixd \
                journal verify` on its machine compares them";
            report.unproven.push(copies.to_owned());
            report.unproven.push("what is shown of users and join tokens: it was not compared".to_owned());
            if let Some(stopped) = view.stopped {
                return Err(Fault::somewhere(format!("the log signs nothing any more: {stopped}")).into());
            }
            report
        }
    };
    print(&report, output, printer)
}

/// What a node's checkpoint is called.
fn witness_name(node: NodeId) -> String {
    format!("node {node}")
}

/// Checkpoints, by what they are called.
type Named = Vec<(String, Vec<u8>)>;

/// The checkpoints of nodes, as the control plane tells them, and what is wrong with those that cannot be used.
fn kept_by_nodes(view: &LogView, key: &VerifierKey) -> Result<(Named, Vec<String>), Fault> {
    let origin = Origin::parse(key.name())?;
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    for LogWitnesses { checkpoint, node_ids } in &view.witnesses {
        for name in node_ids.iter().copied().map(witness_name) {
            match kept(&name, checkpoint.as_bytes(), key, &origin) {
                Ok(_) => usable.push((name, checkpoint.clone().into_bytes())),
                Err(fault) => unusable.push(fault.text),
            }
        }
    }
    Ok((usable, unusable))
}

/// A folder that only this user may read, and that is removed at the end.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn create() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("otherix-audit-{}", uuid::Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _may_be_missing = std::fs::remove_dir_all(&self.0);
    }
}

async fn verify_live(client: &mut ControlPlaneClient, known: &Known, printer: &mut Printer) -> Result<Report, Failure> {
    let private = PrivateFolder::create().map_err(|error| file(&error))?;
    let folder = private.0.join("export");
    export::write(client, &folder, (None, None), printer).await?;
    let export = ExportFolder::open(&folder).map_err(|error| file(&error))?;
    let models = private.0.join("read-models.db");
    let replayed = replay::fold(&export, Some(known.clone()), None, &models).await?;
    client.renew();
    mirror::compare(client, export.events().map_err(|error| file(&error))?).await?;
    let mut models = ControlPlaneClient::offline(offline::open_file(&models)?.connection("the replay"));
    let position = replayed.position;
    let compared = Comparison { live: client, replayed: &mut models, position, printer }.run().await;
    client.look_at(None);
    let compared = Some(compared?);
    let report = replayed.report.ok_or_else(|| Fault::somewhere("nothing was verified"))?;
    Ok(Report { compared, ..report })
}

fn print_proof(proof: &VerifiedProof, key: &VerifierKey, output: Format, printer: &mut Printer) -> Result<(), Failure> {
    let VerifiedProof { index, size, event, unproven } = proof;
    match output {
        Format::Text => {
            printer.note(&format!("verified: the event is leaf {index} of {size} in the log {}", key.name()));
            unproven.iter().for_each(|line| printer.note(&format!("not proven: {}", clean(line))));
            printer.text(&format!("{}\n", clean(event)))
        }
        Format::Json => printer.data(&json!({
            "log": key.name().as_str(), "index": index, "size": size,
            "event": serde_json::from_str::<serde_json::Value>(event).ok(), "not_proven": unproven,
        })),
    }
}

fn print(report: &Report, output: Format, printer: &mut Printer) -> Result<(), Failure> {
    let Report { origin, events, first, last, size, newest, continued, unproven, compared } = report;
    if matches!(output, Format::Json) {
        return printer.data(&json!({
            "log": origin, "events": events, "first": first, "last": last, "size": size, "newest": newest,
            "continues": continued, "compared": compared, "not_proven": unproven,
        }));
    }
    let mut text = format!("verified: {events} events, positions {first} to {last}, of the log {origin}\n");
    text.push_str(&format!("  the signed checkpoint covers {size} events\n"));
    text.extend(newest.iter().map(|newest| format!("  the newest is of {newest}\n")));
    text.extend(continued.iter().map(|name| format!("  it continues the checkpoint `{}`\n", clean(name))));
    if let Some(Compared { position, networks, vms, nodes }) = compared {
        text.push_str(&format!(
            "  what it shows of {networks} networks, {vms} VMs and {nodes} nodes is what the events give, up to \
             position {position}\n"
        ));
    }
    text.push_str("not proven:\n");
    text.extend(unproven.iter().map(|line| format!("  {}\n", clean(line))));
    printer.text(&text)
}
