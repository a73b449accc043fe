//! `otherix edit`: opens a manifest in an editor, and applies what is saved.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};
use otherix_schemas::change::Applied;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::network::{ApplyNetwork, NetworkApplyRequest, NetworkView};
use uuid::Uuid;

use super::kind::{KindEntry, TypedTarget, write};
use super::source::Folders;
use super::{ManifestKind, load};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::resource::NameOrId;
use crate::resource::change::{changed_text, explained};

/// Edit the manifest of a resource
#[derive(Debug, Subcommand)]
#[command(after_help = HELP)]
pub(crate) enum EditSubcommand {
    /// Edit a network
    #[command(after_help = HELP)]
    Network(EditArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The name (not case-sensitive) or UUID
    #[arg(value_name = "NAME|UUID")]
    reference: String,
}

const HELP: &str = "\
Opens the manifest in $VISUAL, $EDITOR or vi, and applies what is saved, unless it was not changed. It is refused if \
somebody else has changed the network meanwhile. What cannot be applied is kept in a file.

Example:
  EDITOR=nano otherix edit network net-app";

/// Carries out the command.
pub(crate) async fn run(
    global: &GlobalArgs,
    command: EditSubcommand,
    kinds: &'static [KindEntry],
    printer: &mut Printer,
) -> Result<(), Failure> {
    let EditSubcommand::Network(EditArgs { reference }) = command;
    let mut client = ControlPlaneClient::connect(global).await?;
    let view: NetworkView = NameOrId::new(&reference).look_up_live(&mut client).await?;
    let text = write(&view);
    let path = std::env::temp_dir().join(format!("otherix-edit-{}.yaml", Uuid::new_v4()));
    create(&path, &text).map_err(|error| io(&path, "create", &error))?;
    let edited = open(&path).and_then(|()| std::fs::read_to_string(&path).map_err(|error| io(&path, "read", &error)));
    match edited {
        Ok(edited) if edited == text => {
            remove(&path);
            return printer.text(&format!("network {} unchanged\n", crate::output::text::clean(view.name.as_str())));
        }
        Ok(_) => {}
        Err(failure) => {
            remove(&path);
            return Err(failure);
        }
    }
    let applied = apply(&path, &view, kinds, &mut client).await;
    let kept = |failure: Failure| {
        failure
            .hint(format!("what you have written is kept: correct it, and run `otherix apply -f {}`", path.display()))
    };
    let applied = applied.map_err(kept)?;
    remove(&path);
    printer.text(&changed_text(&applied, false))
}

async fn apply(
    path: &Path,
    view: &NetworkView,
    kinds: &'static [KindEntry],
    client: &mut ControlPlaneClient,
) -> Result<Applied<NetworkView>, Failure> {
    let manifests = load(&[PathBuf::from(path)], Folders::Refused, kinds)?;
    let target = match manifests.as_slice() {
        [manifest] => (&*manifest.target as &dyn std::any::Any).downcast_ref::<TypedTarget<NetworkView>>(),
        _ => None,
    };
    let Some(target) = target else {
        let message = format!("the file must have one document, of kind `{}`", NetworkView::KIND);
        return Err(Failure::new(Exit::Usage, ErrorCode::ValidationFailed, message));
    };
    client.renew();
    let request = NetworkApplyRequest { draft: target.definition.clone(), if_generation: Some(view.generation) };
    let answer = client.call::<ApplyNetwork>(&request).await;
    answer.map(|answer| answer.data).map_err(explained::<NetworkView>)
}

/// Creates a file that nobody else reads.
fn create(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Runs the editor, and waits until it ends.
fn open(path: &Path) -> Result<(), Failure> {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(std::env::var_os);
    let editor = named.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "vi".into());
    // As for other programs, it may have arguments.
    let status = Command::new("sh").args(["-c", "exec $0 \"$1\""]).arg(&editor).arg(path).status();
    let failed = |what: String| {
        let message = format!("the editor `{}` {what}: nothing was changed", editor.display());
        Failure::new(Exit::Unexpected, ErrorCode::Internal, message).hint("set `EDITOR` to the one that you use")
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(format!("ended with {status}"))),
        Err(error) => Err(failed(format!("cannot be started: {error}"))),
    }
}

/// The file is of no use any more; that it stays is no reason to fail.
fn remove(path: &Path) {
    let _unreported = std::fs::remove_file(path);
}

fn io(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unexpected, ErrorCode::Internal, format!("cannot {what} `{}`: {error}", path.display()))
}
