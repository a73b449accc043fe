//! `otherix man`: man pages generated from the command line's definition. Writes only to the given directory.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use otherix_schemas::error::ErrorCode;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::text::clean;

pub(crate) const HELP: &str = "\
Creates the directory if necessary, replaces existing pages, and prints the paths of the files it wrote.

Examples:
  otherix man /usr/local/share/man/man1
  otherix man . && man ./otherix-network-create.1";

/// Writes a page for `command` and each of its subcommands, and prints their paths.
pub(crate) fn write(directory: &Path, mut command: Command, printer: &mut Printer) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let message = format!("cannot write man pages to `{}`: {error}", directory.display());
        Failure::new(Exit::Unexpected, ErrorCode::Internal, message)
    };
    fs::create_dir_all(directory).map_err(failed)?;
    command.build();
    let mut written = String::new();
    pages(&command, directory, &mut written).map_err(failed)?;
    printer.text(&written)
}

fn pages(command: &Command, directory: &Path, written: &mut String) -> io::Result<()> {
    let source = concat!("otherix ", env!("CARGO_PKG_VERSION"));
    let file = Man::new(command.clone()).source(source).generate_to(directory)?;
    written.push_str(&format!("{}\n", clean(&file.to_string_lossy())));
    command.get_subcommands().try_for_each(|subcommand| pages(subcommand, directory, written))
}
