//! `docs/cli.md`: the help of every command. A test generates it and checks that it is up to date.

use clap::{Command, CommandFactory};
use otherix_testkit::generated;

use crate::command::Cli;

/// The width of the help in the reference, in columns.
const WIDTH: usize = 100;

#[test]
fn generated_reference_is_up_to_date() {
    let mut root = Cli::command().term_width(WIDTH);
    root.build();
    let mut text = "# The command line\n\nGenerated from the program's help by `make generate`.\n".to_owned();
    append(&mut root, &mut text);
    generated::assert_up_to_date("../docs/cli.md", &text);
}

fn append(command: &mut Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or("otherix").to_owned();
    let help = command.render_long_help().to_string();
    let help: String = help.trim_end().lines().map(|line| format!("{}\n", line.trim_end())).collect();
    text.push_str(&format!("\n## `{name}`\n\n```text\n{help}```\n"));
    for subcommand in command.get_subcommands_mut() {
        append(subcommand, text);
    }
}
