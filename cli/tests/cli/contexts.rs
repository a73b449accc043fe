//! Contexts: their files are those of the `nats` tool, and every command can be pointed at one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use otherix_identity::creds::Creds;
use otherix_identity::jwt::{self, Claims, User};
use otherix_identity::{KeyKind, KeyPair};
use otherix_testkit::{TempDir, tempdir};
use serde_json::{Value, json};

use crate::fake::{ProgramOutput, private_file, program};
use crate::tls::TestCa;

/// A home directory with credentials.
struct Home {
    folder: TempDir,
    key: String,
}

impl Home {
    fn new() -> Self {
        let folder = tempdir().expect("a directory");
        let key = |kind| KeyPair::generate(kind).expect("a key");
        let (account, user) = (key(KeyKind::Account), key(KeyKind::User));
        let public = user.public_key().as_str().to_owned();
        let claims = Claims::new(user.public_key(), "ann", 1, User::scoped(account.public_key()));
        let creds = Creds::new(jwt::encode(claims, &account).expect("a JWT"), user).expect("credentials");
        private_file(&folder.path().join("ann.creds"), &creds.render());
        TestCa::new().write(folder.path(), "ca.pem");
        Self { folder, key: public }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = program(arguments);
        command.env("HOME", self.folder.path()).current_dir(self.folder.path());
        command
    }

    #[track_caller]
    fn run(&self, arguments: &str) -> ProgramOutput {
        self.command(arguments).output().expect("the program starts").into()
    }

    #[track_caller]
    fn ok(&self, arguments: &str) -> String {
        let run = self.run(arguments);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments}");
        run.stdout
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

const ADD: &str = "context add prod --server nats://127.0.0.1:1 --credentials ann.creds --ca ca.pem";

#[test]
fn a_context_is_a_file_of_the_nats_tool() {
    let home = Home::new();
    assert_eq!(home.ok(&format!("{ADD} --description Production")), "context prod added\n");
    let path = home.path(".config/nats/context/prod.json");
    assert_eq!(mode(&path), 0o600);
    let file: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    let expected = json!({
        "description": "Production", "url": "nats://127.0.0.1:1", "creds": home.path("ann.creds"),
        "ca": home.path("ca.pem"), "jetstream_domain": "events", "inbox_prefix": format!("_INBOX_{}", home.key),
    });
    assert_eq!(file, expected);
    home.ok(&ADD.replace("--ca ca.pem", "--replace --use"));
    let shown = home.ok("context show -o json");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["name"], &shown["in_use"], &shown["ca"]), (&json!("prod"), &json!(true), &Value::Null));
}

#[test]
fn contexts_are_listed_used_and_removed() {
    let home = Home::new();
    assert_eq!(home.ok("context list"), "NAME  IN USE  SERVER  CREDENTIALS  CA\n");
    assert_eq!(home.run("context show").code, 3);
    home.ok(ADD);
    // Made by the `nats` tool, without credentials.
    private_file(&home.path(".config/nats/context/demo.json"), "{\"url\": \"nats://demo:4222\", \"nkey\": \"\"}");
    assert_eq!(home.ok("context use prod"), "context prod is in use\n");
    let (creds, ca) = (home.path("ann.creds"), home.path("ca.pem"));
    let list: Value = serde_json::from_str(&home.ok("context list -o json")).expect("JSON");
    let prod = json!({ "name": "prod", "in_use": true, "description": "", "server": "nats://127.0.0.1:1",
        "credentials": creds, "ca": ca });
    let demo = json!({ "name": "demo", "in_use": false, "description": "", "server": "nats://demo:4222",
        "credentials": null, "ca": null });
    assert_eq!(list, json!({ "data": [demo, prod] }));
    assert_eq!(home.ok("context list -o name"), "demo\nprod\n");
    assert!(home.ok("context list").contains("\nprod  yes     nats://127.0.0.1:1  "));
    assert_eq!(home.ok("context remove prod"), "context prod removed\n");
    assert_eq!((home.run("context show").code, home.run("context remove prod").code), (3, 3));
    assert!(creds.exists(), "the credentials stay");
    let missing = home.run("--context prod network list");
    assert_eq!(missing.code, 3);
    assert!(missing.stderr.starts_with("error: context `prod` does not exist\nhint: "), "{}", missing.stderr);
}

#[test]
fn a_context_is_where_commands_connect() {
    let home = Home::new();
    home.ok(&format!("{ADD} --use"));
    home.ok(&ADD.replace("prod", "other").replace("127.0.0.1:1", "127.0.0.1:2"));
    let reached = |command: &mut Command| {
        let run: ProgramOutput = command.output().expect("the program starts").into();
        assert_eq!(run.code, 7, "{}", run.stderr);
        run.stderr.split('`').nth(1).expect("a URL").to_owned()
    };
    let prod = "nats://127.0.0.1:1";
    let other = "nats://127.0.0.1:2";
    assert_eq!(reached(&mut home.command("network list")), prod);
    assert_eq!(reached(&mut home.command("--context other network list")), other);
    assert_eq!(reached(home.command("network list").env("OTHERIX_CONTEXT", "other")), other);
    assert_eq!(reached(home.command("--context prod network list").env("OTHERIX_CONTEXT", "other")), prod);
    assert_eq!(reached(home.command("network list").env("OTHERIX_CONTEXT", "")), prod);
    let third = "nats://127.0.0.1:3";
    assert_eq!(reached(&mut home.command(&format!("--context other --server {third} network list"))), third);
    // Credentials of the context in use are not sent to another server.
    let run = home.run(&format!("--server {third} network list"));
    assert_eq!(run.code, 6);
    assert!(run.stderr.starts_with("error: no credentials: "), "{}", run.stderr);
    let with_credentials = format!("--server {third} --credentials ann.creds network list");
    assert_eq!(reached(&mut home.command(&with_credentials)), third);
}

#[test]
fn the_owner_of_a_control_plane_needs_no_settings() {
    let home = Home::new();
    let state = home.path("state");
    fs::create_dir(&state).expect("made");
    let context = json!({ "url": "nats://127.0.0.1:4", "creds": home.path("ann.creds"), "ca": null });
    private_file(&state.join("context.json"), &context.to_string());
    let run = |arguments: &str| -> ProgramOutput {
        let mut command = home.command(arguments);
        command.env("OTHERIX_STATE", &state).output().expect("the program starts").into()
    };
    let here = run("network list");
    assert_eq!(here.code, 7, "{}", here.stderr);
    assert!(here.stderr.starts_with("error: cannot reach NATS at `nats://127.0.0.1:4`"), "{}", here.stderr);
    assert_eq!(run("--server nats://127.0.0.1:1 network list").code, 6, "not another server's");
    home.ok(&format!("{ADD} --use"));
    assert!(run("network list").stderr.contains("nats://127.0.0.1:1"), "the context in use comes first");
}

#[test]
fn files_that_others_can_read_are_refused() {
    let home = Home::new();
    home.ok(&format!("{ADD} --use"));
    let path = home.path(".config/nats/context/prod.json");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    for arguments in ["network list", "context show", "context use prod", "--context prod node list"] {
        let run = home.run(arguments);
        assert_eq!(run.code, 6, "{}", run.stderr);
        let text = format!("(mode 0644): run `chmod 600 {}`\n", path.display());
        assert!(run.stderr.contains(&text), "{arguments}: {}", run.stderr);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    fs::set_permissions(home.path("ann.creds"), fs::Permissions::from_mode(0o640)).expect("set");
    let text = format!("(mode 0640): run `chmod 600 {}`\n", home.path("ann.creds").display());
    for arguments in ["network list", &ADD.replace("prod", "next")] {
        let run = home.run(arguments);
        assert_eq!(run.code, 6, "{}", run.stderr);
        assert!(run.stderr.contains(&text), "{arguments}: {}", run.stderr);
    }
}

#[test]
fn a_context_must_be_usable() {
    let home = Home::new();
    for (arguments, code, text) in [
        ("context add x --server nats://a", 2, "a context needs credentials"),
        ("context add x --server http://a --credentials ann.creds", 2, "the request is invalid"),
        ("context add a/b --credentials ann.creds", 2, "`a/b` is not a valid context name"),
        ("context add ../b --credentials ann.creds", 2, "`../b` is not a valid context name"),
        ("context add x --credentials ann.creds --ca ann.creds", 6, "has no valid certificate in PEM format"),
        ("context use x", 3, "context `x` does not exist"),
        ("--context ../../x network list", 2, "`../../x` is not a valid context name"),
    ] {
        let run = home.run(arguments);
        assert_eq!(run.code, code, "{arguments}: {}", run.stderr);
        assert!(run.stderr.contains(text), "{arguments}: {}", run.stderr);
    }
    home.ok(ADD);
    let again = home.run(ADD);
    assert_eq!(again.code, 4, "{}", again.stderr);
    let path = home.path(".config/nats/context/prod.json");
    for (content, text) in [
        ("nonsense with a secret", "is not a JSON object"),
        (r#"{"url": "nats://127.0.0.1:1", "user": "a", "password": "secret"}"#, "does not support its setting `user`"),
        (r#"{"tls_first": true}"#, "does not support its setting `tls_first`"),
    ] {
        private_file(&path, content);
        let run = home.run("--context prod network list");
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains(text) && !run.stderr.contains("secret"), "{}", run.stderr);
    }
}

#[test]
fn bash_completes_the_names() {
    let home = Home::new();
    home.ok(ADD);
    home.ok(&ADD.replace("prod", "pre"));
    home.ok(&ADD.replace("prod", "lab"));
    let script = home.ok("completion bash");
    let complete = |words: &[&str]| {
        let script = format!(
            "{script}\nCOMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1))\n_otherix_or_context otherix \"${{@: -1}}\" \
             \"${{@: -2:1}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        // It is longer than an argument may be.
        let file = home.folder.path().join("complete.bash");
        std::fs::write(&file, script).expect("a file");
        let output = Command::new("bash")
            .arg(&file)
            .arg("otherix")
            .args(words)
            .env("HOME", home.folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .expect("bash runs");
        String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["context", "use", ""]), ["lab", "pre", "prod"]);
    assert_eq!(complete(&["context", "show", "p"]), ["pre", "prod"]);
    assert_eq!(complete(&["network", "list", "--context", "l"]), ["lab"]);
    assert!(complete(&["context", ""]).contains(&"remove".to_owned()));
    assert!(complete(&["context", "add", "--"]).contains(&"--description".to_owned()));
}
