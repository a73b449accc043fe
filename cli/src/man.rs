//! `otherix man`: manual pages, made from the command line's own description. Writes into the folder it is told, nowhere else.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use otherix_schemas::error::ErrorCode;

use crate::args::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;

/// Writes one page for each command, and prints where.
pub(crate) fn write(folder: &Path, printer: &mut Printer) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let message = format!("cannot write man pages into `{}`: {error}", folder.display());
        Failure::new(Exit::Unexpected, ErrorCode::Internal, message)
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut root = Cli::command();
    root.build();
    let mut written = String::new();
    pages(&root, folder, &mut written).map_err(failed)?;
    printer.text(&written)
}

fn pages(command: &Command, folder: &Path, written: &mut String) -> io::Result<()> {
    let source = concat!("otherix ", env!("CARGO_PKG_VERSION"));
    let file = Man::new(command.clone()).source(source).generate_to(folder)?;
    written.push_str(&format!("{}\n", clean(&file.to_string_lossy())));
    command.get_subcommands().try_for_each(|subcommand| pages(subcommand, folder, written))
}
