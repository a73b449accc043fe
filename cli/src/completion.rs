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
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script + BASH_CONTEXTS,
        Shell::Zsh => zsh_contexts(&script),
        Shell::Fish => script + FISH_CONTEXTS,
    }
}

/// Completes the names of contexts, which are files, and otherwise calls the generated function.
const BASH_CONTEXTS: &str = r#"
_otherix_or_context() {
    local word="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" before="" file
    (( COMP_CWORD > 1 )) && before="${COMP_WORDS[COMP_CWORD-2]}"
    if [[ "$word" != -* && ( "$previous" == --context || "$before $previous" == "context "@(use|show|remove) ) ]]; then
        COMPREPLY=()
        for file in "${XDG_CONFIG_HOME:-$HOME/.config}"/nats/context/*.json; do
            file="${file##*/}" file="${file%.json}"
            [[ "$file" != "*" && "$file" == "$word"* ]] && COMPREPLY+=("$(printf %q "$file")")
        done
        return 0
    fi
    _otherix "$@"
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _otherix_or_context -o nosort -o bashdefault -o default otherix
else
    complete -F _otherix_or_context -o bashdefault -o default otherix
fi
"#;

/// The same for fish.
const FISH_CONTEXTS: &str = r#"
function __otherix_contexts
    set -l folder $HOME/.config
    set -q XDG_CONFIG_HOME; and test -n "$XDG_CONFIG_HOME"; and set folder $XDG_CONFIG_HOME
    for file in $folder/nats/context/*.json
        basename $file .json
    end
end
complete -c otherix -l context -x -a "(__otherix_contexts)"
complete -c otherix -n "__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use show remove" \
    -f -a "(__otherix_contexts)"
"#;

/// The same for zsh, whose generated script names a function for each value.
fn zsh_contexts(script: &str) -> String {
    const FUNCTION: &str = r#"
(( $+functions[_otherix_contexts] )) ||
_otherix_contexts() {
    local -a names=(${XDG_CONFIG_HOME:-$HOME/.config}/nats/context/*.json(N:t:r))
    compadd -a names
}

"#;
    let is_context = |line: &str| line.contains("--context=") || line.contains(CONTEXT_NAME);
    let lines = script.lines().map(|line| {
        let line = if is_context(line) { line.replace(":_default'", ":_otherix_contexts'") } else { line.to_owned() };
        line + "\n"
    });
    let script: String = lines.collect();
    // The first lines must stay the first: zsh reads what the file completes there.
    match script.split_once("\n\n") {
        Some((head, rest)) => format!("{head}\n{FUNCTION}{rest}"),
        None => script,
    }
}

/// How arguments that are the name of an existing context are documented.
pub(crate) const CONTEXT_NAME: &str = "The name of an existing context";

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
