//! `otherix completion`: scripts for shells, made from the command line's own description.

use clap::CommandFactory;
use clap_complete::Shell as Known;

use crate::args::{Cli, Shell};

/// The script that completes `otherix` in this shell.
pub(crate) fn script(shell: Shell) -> String {
    let known = match shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(known, &mut explicit(Cli::command()), "otherix", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The command line as a shell must know it. The values of some flags are checked by the rules, so that all that is wrong is
/// told together; clap learns them only here. Not every shell follows an alias to its flags, so `net` is a command of its own.
fn explicit(command: clap::Command) -> clap::Command {
    let kinds = |arg: clap::Arg| arg.value_parser(["bridge", "overlay"]);
    let mut command = command.mut_subcommand("network", |network| {
        network
            .visible_alias(None)
            .mut_subcommand("create", |create| {
                create.mut_arg("kind", kinds).mut_arg("egress", |egress| egress.value_parser(["none", "nat"]))
            })
            .mut_subcommand("list", |list| list.mut_arg("kind", kinds))
    });
    command = command.mut_subcommand("vm", |vm| {
        vm.mut_subcommand("create", |create| create.mut_arg("arch", |arch| arch.value_parser(["amd64", "arm64"])))
    });
    let short = command.find_subcommand("network").cloned().map(|network| network.name("net"));
    if let Some(short) = short {
        command = command.subcommand(short);
    }
    command
}
