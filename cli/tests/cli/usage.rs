//! Errors found before anything is sent, help, version, completion and man pages. No test here has a server.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fake::{ProgramOutput, private_file, program};

#[track_caller]
fn run(arguments: &str) -> ProgramOutput {
    program(arguments).output().expect("the program starts").into()
}

#[test]
fn reports_every_violation_with_its_flag() {
    let arguments = "network create a/b --bridge-name otb7 --egress nat --mtu -1 --vlan 4095 --gateway x";
    let hint = "hint: see `otherix network create --help` for the values that each flag accepts\n";
    let lines = "error: the request is invalid
  --bridge-name: must not begin with `otb`, which is reserved
  --egress: `nat` needs a managed bridge
  --gateway: must be an IPv4 address, not `x`
  --gateway: needs a subnet
  --mtu: must be 68 to 9216, not -1
  NAME: must not contain `/`
  --subnet: is required for egress `nat`
  --vlan: must be 1 to 4094, not 4095
";
    run(arguments).assert_output(2, "", &format!("{lines}{hint}"));
    let json = run(&format!("{arguments} -o json"));
    assert_eq!(json.code, 2);
    let error = json.error();
    assert_eq!(error["code"], "validation_failed");
    assert_eq!(error["details"]["fields"]["bridge_name"], json!(["must not begin with `otb`, which is reserved"]));
    assert_eq!(error["details"]["fields"].as_object().expect("fields").len(), 7);
}

#[test]
fn overlay_accepts_only_a_subnet() {
    let run = run("network create o --type overlay --bridge-name br --managed");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("  --managed: is not for an overlay\n"), "{}", run.stderr);
    assert!(run.stderr.contains("  --subnet: is required for an overlay\n"), "{}", run.stderr);
}

#[test]
fn validates_the_flags_of_list() {
    run("network list --limit 201 --type vlan").assert_output(
        2,
        "",
        "error: the request is invalid\n  --limit: must be 1 to 200, not 201\n  \
         --type: must be `bridge` or `overlay`, not `vlan`\n",
    );
}

#[test]
fn reports_usage_errors() {
    let cases = [
        ("network create n --bridge-name b --mtu 99999999999999999999", "--mtu"),
        ("network create n --bridge-name b --vlan x", "--vlan"),
        ("completion tcsh", "bash, zsh, fish"),
        ("network create n --bridge-name b --wait --wait-timeout 60", "unit"),
        ("network create n --bridge-name b --wait-timeout 60s", "--wait"),
        ("network create", "NAME"),
        ("network get a -o xml", "xml"),
        ("network paint", "paint"),
        ("--server http://x network list", "--server"),
        ("--server nats://u:p@127.0.0.1 network list", "--server"),
    ];
    for (arguments, part) in cases {
        let text = run(arguments);
        assert_eq!((text.code, text.stdout.as_str()), (2, ""), "{arguments}: {}", text.stderr);
        assert!(text.stderr.starts_with("error: ") && text.stderr.contains("\nhint: "), "{}", text.stderr);
        assert!(text.stderr.contains(part), "{}", text.stderr);
        let json = run(&format!("{} -o json", arguments.replace(" -o xml", " --bad")));
        assert_eq!(json.code, 2, "{}", json.stderr);
        assert_eq!(json.error()["code"], "validation_failed", "{arguments}");
    }
}

#[test]
fn missing_command_shows_the_commands() {
    for arguments in ["", "network", "net"] {
        let run = run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""));
        assert!(run.stderr.contains("Examples:"), "{}", run.stderr);
    }
}

#[test]
fn help_has_examples_and_is_written_to_stdout() {
    let of = |resource: &str, verbs: &[&str]| verbs.iter().map(|verb| format!("{resource} {verb}")).collect::<Vec<_>>();
    let verbs = ["", "create", "list", "get", "delete"];
    let commands = [of("network", &verbs), of("net", &verbs), of("vm", &verbs), of("node", &["", "list", "get"])];
    let contexts = of("context", &["", "add", "list", "use", "show", "remove"]);
    let others = of("", &["", "create", "delete", "version", "completion", "man"]);
    for command in commands.concat().into_iter().chain(contexts).chain(others) {
        let run = run(&format!("{command} --help"));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        assert!(run.stdout.contains("Examples:\n  otherix"), "{command}: {}", run.stdout);
        assert!(run.stdout.contains("--server"), "{command}");
    }
}

#[test]
fn version_needs_no_connection() {
    let version = env!("CARGO_PKG_VERSION");
    run("version").assert_output(0, &format!("otherix {version}\n"), "");
    run("--version").assert_output(0, &format!("otherix {version}\n"), "");
    let json: Value = serde_json::from_str(&run("version -o json").stdout).expect("JSON");
    assert_eq!(json, json!({ "version": version }));
}

#[test]
fn requires_credentials() {
    run("network list").assert_output(
        6,
        "",
        "error: no credentials: file `/nonexistent/.config/otherix/credentials.creds` does not exist\n\
         hint: pass `--credentials FILE`, set `OTHERIX_CREDENTIALS`, or use a context (`otherix context`); for a lab, \
         `otherix-lab env` prints the setting\n",
    );
    let json = run("network list --credentials /nonexistent/c.json -o json");
    assert_eq!((json.code, json.error()["code"].as_str()), (6, Some("unauthenticated")));
}

#[test]
fn does_not_quote_a_malformed_credentials_file() {
    let directory = otherix_testkit::tempdir().expect("a directory");
    let file = directory.path().join("c.json");
    private_file(&file, r#"{"user": "u", "password": ["geheim"]}"#);
    let run = run(&format!("network list --credentials {}", file.display()));
    assert_eq!(run.code, 6);
    assert!(run.stderr.contains("is not a credentials file: line 1"), "{}", run.stderr);
    assert!(!run.stderr.contains("geheim"), "{}", run.stderr);
}

#[test]
fn refuses_credentials_that_are_shared_or_no_file_and_never_waits() {
    let directory = otherix_testkit::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let refusal = |file: &Path| {
        let run = run(&format!("network list --credentials {}", file.display()));
        assert_eq!((run.code, run.stdout.as_str()), (6, ""), "{}", run.stderr);
        run.stderr.lines().next().expect("an error").to_owned()
    };
    let made = std::process::Command::new("mkfifo").arg(path("fifo")).status().expect("mkfifo runs");
    assert!(made.success());
    let unreadable = |file: &Path, why: &str| {
        assert_eq!(refusal(file), format!("error: cannot read the credentials file `{}`: {why}", file.display()));
    };
    unreadable(&path("fifo"), "it is a FIFO, not a regular file");
    unreadable(Path::new("/dev/zero"), "it is a device, not a regular file");
    unreadable(directory.path(), "it is a directory, not a regular file");
    let file = path("c.json");
    private_file(&file, r#"{"user": "u", "password": ""}"#);
    assert_eq!(refusal(&file), format!("error: the credentials file `{}` has an empty password", file.display()));
    private_file(&file, r#"{"user": "u", "password": "geheim"}"#);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("its mode is set");
    let expected = format!(
        "error: other users have access to the credentials file `{0}` (mode 0644): run `chmod 600 {0}`",
        file.display()
    );
    assert_eq!(refusal(&file), expected);

    for (file, why) in [
        (path("fifo"), "a FIFO, not a regular file; pipe its content to `-f -`"),
        (PathBuf::from("/dev/zero"), "a device, not a regular file"),
    ] {
        let run = run(&format!("create -f {}", file.display()));
        assert_eq!(run.code, 2);
        assert!(run.stderr.contains(&format!("{}: cannot be read: it is {why}\n", file.display())), "{}", run.stderr);
    }
}

#[test]
fn rejects_arguments_that_are_not_utf8() {
    let strange = OsStr::from_bytes(b"net-\xff");
    for line in ["network create", "network get", "network list --cursor", "network delete --force", "--server"] {
        let run: ProgramOutput = program(line).arg(strange).output().expect("the program starts").into();
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{line}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: invalid UTF-8 "), "{line}: {}", run.stderr);
        let json: ProgramOutput =
            program(line).arg(strange).args(["-o", "json"]).output().expect("the program starts").into();
        assert_eq!((json.code, json.error()["code"].as_str()), (2, Some("validation_failed")));
    }
}

/// Runs the program in a shell, which can close the standard streams.
fn shell(script: &str) -> ProgramOutput {
    let mut shell = Command::new("bash");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_otherix")]).stdin(Stdio::null()).env("HOME", "/nonexistent");
    shell.env_remove("OTHERIX_NATS_URL").env_remove("OTHERIX_CREDENTIALS");
    shell.output().expect("bash runs").into()
}

#[test]
fn handles_closed_and_full_streams() {
    shell("\"$0\" version <&- 2>&-").assert_output(0, &run("version").stdout, "");
    shell("\"$0\" version >&- 2>&-").assert_output(0, "", "");
    shell("\"$0\" network paint >&- 2>&- <&-").assert_output(2, "", "");
    let full = shell("\"$0\" version >/dev/full");
    assert_eq!(full.code, 1);
    assert!(full.stderr.starts_with("error: cannot write to stdout: "), "{}", full.stderr);
    shell("\"$0\" network paint 2>/dev/full").assert_output(2, "", "");
    shell("set -o pipefail; for n in {1..20}; do \"$0\" completion bash | head -1 >/dev/null || exit; done")
        .assert_output(0, "", "");
}

#[test]
fn output_has_no_colour() {
    for (key, value) in [("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1"), ("FORCE_COLOR", "1")] {
        for line in ["--help", "network create --help", "network paint", "network list --limit 0"] {
            let coloured: ProgramOutput = program(line)
                .env(key, value)
                .env("TERM", "xterm-256color")
                .output()
                .expect("the program starts")
                .into();
            let ProgramOutput { code, stdout, stderr } = run(line);
            coloured.assert_output(code, &stdout, &stderr);
            assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'));
        }
    }
}

/// What bash completes for these words.
fn completed(words: &str) -> Vec<String> {
    let script = format!(
        "source <(\"$0\" completion bash) && COMP_WORDS=({words}) && COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) &&
         _otherix otherix \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\" &&
         echo \"${{COMPREPLY[*]}}\""
    );
    let run = shell(&script);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{words}");
    run.stdout.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn completes_commands_flags_and_values() {
    let cases = [
        ("otherix net", "net"),
        ("otherix netw", "network"),
        ("otherix network l", "list"),
        ("otherix net cr", "create"),
        ("otherix net create --bri", "--bridge-name"),
        ("otherix network list --type ''", "bridge overlay"),
        ("otherix net create --egress ''", "none nat"),
        ("otherix vm c", "create"),
        ("otherix vm create --im", "--image-url"),
        ("otherix vm create --arch ''", "amd64 arm64"),
        ("otherix node ''", "get list"),
        ("otherix node list -o ''", "json name table"),
        ("otherix completion z", "zsh"),
    ];
    for (words, expected) in cases {
        let completed = completed(words);
        assert!(expected.split(' ').all(|word| completed.iter().any(|other| other == word)), "{words}: {completed:?}");
    }
    // These shells are not on every machine, so only the content of their scripts is checked.
    let zsh = run("completion zsh").stdout;
    let fish = run("completion fish").stdout;
    for word in ["network", "net", "create", "list", "get", "delete", "bridge-name", "wait-timeout", "overlay", "arm64"]
    {
        assert!(zsh.contains(word) && fish.contains(word), "{word}");
    }
    assert!(fish.contains("__fish_otherix_using_subcommand net;"), "the alias is followed");
}

#[test]
fn writes_a_man_page_for_every_command() {
    let directory = otherix_testkit::tempdir().expect("a directory");
    let deep = directory.path().join("share/man1");
    let run = run(&format!("man {}", deep.display()));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let pages: Vec<_> = run.stdout.lines().map(Path::new).collect();
    for name in ["", "-network", "-network-create", "-network-delete", "-vm", "-vm-create", "-node-get", "-node-delete"]
    {
        let name = format!("otherix{name}");
        let page = deep.join(format!("{name}.1"));
        assert!(pages.contains(&page.as_path()), "{pages:?}");
        let text = std::fs::read_to_string(&page).expect("a page");
        assert!(text.contains(".TH") && text.contains("Examples:"), "{text}");
    }
    let blocked = self::run(&format!("man {}/x", deep.join("otherix.1").display()));
    assert_eq!(blocked.code, 1);
    assert!(blocked.stderr.starts_with("error: cannot write man pages to `"), "{}", blocked.stderr);
}
