//! `otherix completion`: shell scripts generated from the command line's definition.

use clap::{Command, ValueEnum};
use clap_complete::Shell as Generator;

/// The supported shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  otherix completion bash > /etc/bash_completion.d/otherix
  otherix completion zsh > \"${fpath[1]}/_otherix\"
  otherix completion fish > ~/.config/fish/completions/otherix.fish";

/// The completion script for `command`.
pub(crate) fn script(shell: Shell, command: Command) -> String {
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut without_aliases(command), "otherix", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Replaces aliases by separate commands: not every shell's script completes the flags of an alias.
fn without_aliases(command: Command) -> Command {
    let mut copies = Vec::new();
    let command = command.mut_subcommands(|subcommand| {
        // Names must be static; the process ends once the script is printed.
        let aliases: Vec<&'static str> =
            subcommand.get_visible_aliases().map(|alias| &*alias.to_owned().leak()).collect();
        let subcommand = subcommand.visible_alias(None);
        copies.extend(aliases.into_iter().map(|alias| subcommand.clone().name(alias)));
        subcommand
    });
    command.subcommands(copies)
}
