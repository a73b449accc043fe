//! Contexts: `otherix context …`. A context is where a control plane is, and as whom to connect.

pub(crate) mod file;
pub(crate) mod store;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use otherix_schemas::error::ErrorCode;
use otherix_transport::{Credentials, TrustedCa};
use serde::Serialize;

use crate::access::{self, DEFAULT_SERVER};
use crate::client::GlobalArgs;
use crate::completion::CONTEXT_NAME;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::format::{Format, PlainListFormat};
use crate::output::table::{fields, optional, table};
use crate::output::text::clean;
use crate::output::{Printer, table};
use file::{ContextFile, NewContext};
use store::ContextStore;

/// Manage contexts: addresses of control planes with credentials
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum ContextSubcommand {
    /// Add a context, from --server, --credentials and --ca
    #[command(after_help = ADD_HELP)]
    Add(AddArgs),
    /// List contexts
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Use a context in further commands
    #[command(after_help = USE_EXAMPLES)]
    Use(NameArgs),
    /// Show a context; the one in use if none is named
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Remove a context; the credentials stay
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove(NameArgs),
}

const EXAMPLES: &str = "\
Examples:
  otherix context add prod --server nats://192.0.2.1:4222 --credentials ann.creds --ca ca.pem --use
  otherix context list
  otherix --context lab network list";

const ADD_HELP: &str = "\
Contexts are files of the `nats` tool, in `~/.config/nats/context` (or `$XDG_CONFIG_HOME/nats/context`), so that `nats \
--context NAME` connects to the same control plane. Paths are stored as absolute paths.

Examples:
  otherix context add prod --server nats://192.0.2.1:4222 --credentials ann.creds --ca ca.pem --use
  otherix context add prod --server nats://192.0.2.9:4222 --credentials ann.creds --ca ca.pem --replace";

const LIST_EXAMPLES: &str = "\
Examples:
  otherix context list
  otherix context list -o name";

const USE_EXAMPLES: &str = "\
The context applies to commands without --context, --server and --credentials. `nats context select` and this command \
do not affect each other.

Examples:
  otherix context use prod";

const SHOW_EXAMPLES: &str = "\
Examples:
  otherix context show
  otherix context show prod -o json";

const REMOVE_EXAMPLES: &str = "\
Examples:
  otherix context remove prod";

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The name of the context
    #[arg(value_name = "NAME")]
    name: String,
    /// A description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Use the context in further commands
    #[arg(long = "use")]
    select: bool,
    /// Replace a context of this name
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = PlainListFormat::Table)]
    output: PlainListFormat,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    #[arg(value_name = "NAME", help = CONTEXT_NAME)]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[arg(value_name = "NAME", help = CONTEXT_NAME)]
    name: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// A context in JSON.
#[derive(Serialize)]
struct ContextView {
    name: String,
    in_use: bool,
    description: String,
    server: String,
    credentials: Option<PathBuf>,
    ca: Option<PathBuf>,
}

#[derive(Serialize)]
struct ContextList {
    data: Vec<ContextView>,
}

/// Carries out a command.
pub(crate) fn run(global: &GlobalArgs, command: ContextSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    let store = ContextStore::open()?;
    match command {
        ContextSubcommand::Add(args) => add(&store, global, &args, printer),
        ContextSubcommand::List(ListArgs { output }) => list(&store, output, printer),
        ContextSubcommand::Use(NameArgs { name }) => {
            store.select(&name)?;
            printer.text(&format!("context {} is in use\n", clean(&name)))
        }
        ContextSubcommand::Show(args) => show(&store, args, printer),
        ContextSubcommand::Remove(NameArgs { name }) => {
            store.remove(&name)?;
            printer.text(&format!("context {} removed\n", clean(&name)))
        }
    }
}

fn add(store: &ContextStore, global: &GlobalArgs, args: &AddArgs, printer: &mut Printer) -> Result<(), Failure> {
    let AddArgs { name, description, select, replace } = args;
    store::check_name(name)?;
    let invalid = |text: &str| Failure::new(Exit::Usage, ErrorCode::ValidationFailed, text);
    let file = global.credentials.as_ref().ok_or_else(|| invalid("a context needs credentials"));
    let file = absolute(file.map_err(|failure| failure.hint("pass a `.creds` file with `--credentials FILE`"))?)?;
    let credentials = Credentials::load(&file).map_err(|error| Failure::credentials(&error))?;
    if matches!(credentials, Credentials::Password(_)) {
        return Err(invalid("a context needs a `.creds` file, with a key instead of a password"));
    }
    let ca = global.ca.as_deref().map(absolute).transpose()?;
    if let Some(ca) = &ca {
        TrustedCa::load(ca).map_err(|error| Failure::ca(&error))?;
    }
    let server = global.server.as_deref().unwrap_or(DEFAULT_SERVER);
    access::check_server(server)?;
    if store.exists(name) && !replace {
        let text = format!("context `{name}` already exists");
        return Err(Failure::new(Exit::Conflict, ErrorCode::Conflict, text).hint("pass `--replace` to replace it"));
    }
    let context = NewContext {
        server,
        credentials_file: &file,
        credentials: &credentials,
        ca: ca.as_deref(),
        description: description.as_deref(),
    };
    store.save(name, &ContextFile::new(&context))?;
    printer.text(&format!("context {} added\n", clean(name)))?;
    if *select {
        store.select(name)?;
        printer.text(&format!("context {} is in use\n", clean(name)))?;
    }
    Ok(())
}

fn absolute(path: impl AsRef<Path>) -> Result<PathBuf, Failure> {
    let path = path.as_ref();
    std::path::absolute(path).map_err(|error| {
        let text = format!("cannot find `{}`: {error}", path.display());
        Failure::new(Exit::Unexpected, ErrorCode::Internal, text)
    })
}

fn view(store: &ContextStore, name: &str, selected: Option<&str>) -> Result<ContextView, Failure> {
    let file = store.load(name)?;
    Ok(ContextView {
        name: name.to_owned(),
        in_use: selected == Some(name),
        description: file.description().to_owned(),
        server: file.url().to_owned(),
        credentials: file.credentials(),
        ca: file.ca(),
    })
}

/// Lists the contexts. One that cannot be read is reported, and does not hide the others.
fn list(store: &ContextStore, output: PlainListFormat, printer: &mut Printer) -> Result<(), Failure> {
    let names = store.names()?;
    if output == PlainListFormat::Name {
        return printer.text(&names.iter().map(|name| format!("{}\n", clean(name))).collect::<String>());
    }
    let selected = store.selected()?;
    let mut data = Vec::new();
    for name in &names {
        match view(store, name, selected.as_deref()) {
            Ok(view) => data.push(view),
            Err(failure) if !printer.is_json() => printer.note(&format!("warning: {}", failure.body.error.message)),
            Err(_) => {}
        }
    }
    if output == PlainListFormat::Json {
        return printer.data(&ContextList { data });
    }
    let row = |view: &ContextView| {
        let path = |path: &Option<PathBuf>| optional(path.as_ref().map(|path| path.display().to_string()));
        vec![
            view.name.clone(),
            table::yes_no(view.in_use),
            view.server.clone(),
            path(&view.credentials),
            path(&view.ca),
        ]
    };
    let rows: Vec<Vec<String>> = data.iter().map(row).collect();
    printer.text(&table(&["NAME", "IN USE", "SERVER", "CREDENTIALS", "CA"], &rows))
}

fn show(store: &ContextStore, args: ShowArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ShowArgs { name, output } = args;
    let selected = store.selected()?;
    let none = || {
        Failure::new(Exit::NotFound, ErrorCode::NotFound, "no context is in use")
            .hint("`otherix context use NAME` puts one in use")
    };
    let name = name.or_else(|| selected.clone()).ok_or_else(none)?;
    let view = view(store, &name, selected.as_deref())?;
    if output == Format::Json {
        return printer.data(&view);
    }
    let path = |path: &Option<PathBuf>| optional(path.as_ref().map(|path| path.display().to_string()));
    printer.text(&fields(&[
        ("name", view.name.clone()),
        ("in use", table::yes_no(view.in_use)),
        ("description", view.description.clone()),
        ("server", view.server.clone()),
        ("credentials", path(&view.credentials)),
        ("ca", path(&view.ca)),
        ("file", store.path(&name).display().to_string()),
    ]))
}
