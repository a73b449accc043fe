//! `otherix user …`: what is sent, what is printed, and what is on disk, whatever goes wrong in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use otherix_identity::jwt::{self, Claims, User};
use otherix_identity::{Creds, KeyKind, KeyPair};
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_testkit::{TempDir, tempdir};
use serde_json::{Value, json};

use crate::fake::{FakeControlPlane, FakeReply, ID, ProgramOutput, ReceivedRequest, private_file};

const TIME: &str = "2026-01-02T03:04:05.000006Z";
const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

fn view(name: &str, role: &str, key: &str) -> Value {
    json!({
        "id": ID, "name": name, "role": role, "key": key, "status": "active", "expires_at": null, "revoked_at": null,
        "generation": 7, "created_at": TIME, "updated_at": TIME, "deleted_at": null,
    })
}

/// A JWT for a public key, signed by an account.
fn signed(key: &str) -> String {
    let account = KeyPair::generate(KeyKind::Account).expect("a key");
    let body = User::scoped(account.public_key());
    let claims = Claims::new(&key.parse().expect("a public key"), "alice", 5, body);
    jwt::encode(claims, &account).expect("signed")
}

fn credential(key: &str) -> Value {
    json!({"id": ID, "name": "alice", "role": "viewer", "key": key, "expires_at": null, "jwt": signed(key)})
}

/// A control plane that registers users, and whose answers `change` may replace.
pub(crate) fn control_plane(
    change: impl Fn(&ReceivedRequest) -> Option<FakeReply> + Send + 'static,
) -> FakeControlPlane {
    let mut key = KEY.to_owned();
    FakeControlPlane::start(move |received, _| {
        if let Some(registered) = received.body["key"].as_str() {
            key = registered.to_owned();
        }
        if let Some(reply) = change(received) {
            return reply;
        }
        FakeReply::Data(match received.verb.as_str() {
            "user.create" => view(received.body["name"].as_str().expect("a name"), "viewer", &key),
            "user.credential" => credential(&key),
            _ => view("alice", "viewer", &key),
        })
    })
}

/// Runs the program in a folder.
pub(crate) fn run_in(folder: &TempDir, fake: &FakeControlPlane, arguments: &str) -> ProgramOutput {
    let mut command: Command = fake.command(arguments);
    command.current_dir(folder.path()).output().expect("the program starts").into()
}

fn files(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// The private key in a file.
fn seed(path: &PathBuf) -> String {
    let text = fs::read_to_string(path).expect("text");
    text.lines().find(|line| line.starts_with("SU")).expect("a seed").to_owned()
}

#[test]
fn create_writes_credentials_and_sends_the_public_key_only() {
    let (folder, fake) = (tempdir().expect("a folder"), control_plane(|_| None));
    let run = run_in(&folder, &fake, "user create alice --role viewer --expires 90d");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    let path = folder.path().join("alice.creds");
    assert_eq!((files(&folder), mode(&path)), (vec!["alice.creds".to_owned()], 0o600));
    let credentials = Creds::load(&path).expect("credentials");
    let received = fake.received();
    assert_eq!(
        received.iter().map(|request| request.verb.as_str()).collect::<Vec<_>>(),
        ["user.create", "user.credential"]
    );
    assert_eq!(received[0].body["key"], credentials.public_key().as_str());
    assert_eq!(received[1].body, json!({"id": ID}));
    assert!(received[0].body["expires_at"].as_str().expect("a time").ends_with('Z'));
    assert_eq!((received[0].key.is_some(), received[1].key.is_some()), (true, false), "a look-up has no key");
    assert!(!format!("{received:?}{}", run.stdout).contains(&seed(&path)), "the private key is nowhere else");
    let expected = format!(
        "user alice created\nid:          {ID}\nrole:        viewer\nstatus:      active\nkey:         {}\n\
         expires:     never\ncreated:     {TIME}\nchanged:     {TIME}\ncredentials: alice.creds\n",
        credentials.public_key()
    );
    assert_eq!(run.stdout, expected);
    let json = run_in(&folder, &fake, "user create bob --role viewer --out b.creds -o json");
    let printed: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&printed["name"], &printed["credentials_file"]), (&json!("bob"), &json!("b.creds")));
}

#[test]
fn no_file_is_overwritten_and_nothing_is_sent() {
    let (folder, fake) = (tempdir().expect("a folder"), control_plane(|_| None));
    for existing in ["alice.creds", "alice.creds.partial"] {
        let path = folder.path().join(existing);
        private_file(&path, "precious");
        for command in ["user create alice --role viewer", "user rotate alice"] {
            let run = run_in(&folder, &fake, command);
            assert_eq!(run.code, 2, "{}", run.stderr);
            assert!(run.stderr.contains(&format!("file `{existing}` exists")), "{}", run.stderr);
        }
        assert_eq!(fs::read_to_string(&path).expect("text"), "precious");
        fs::remove_file(&path).expect("removed");
    }
    assert!(fake.received().iter().all(|request| request.verb == "user.find"), "{:?}", fake.received());
}

#[test]
fn a_refused_user_leaves_no_key() {
    for code in [ErrorCode::Conflict, ErrorCode::PermissionDenied, ErrorCode::ValidationFailed, ErrorCode::NotFound] {
        let refusal = ErrorBody::new(code, "no");
        let fake = control_plane(move |request| {
            ["user.create", "user.rotate"].contains(&request.verb.as_str()).then(|| FakeReply::Error(refusal.clone()))
        });
        for command in ["user create alice --role viewer", "user rotate alice"] {
            let folder = tempdir().expect("a folder");
            let run = run_in(&folder, &fake, command);
            assert!([2, 3, 4, 6].contains(&run.code), "{}", run.stderr);
            assert_eq!(files(&folder), [""; 0], "{code:?}");
        }
    }
}

#[test]
fn an_interrupted_creation_keeps_the_key_and_can_be_completed() {
    type Interruption = fn(&ReceivedRequest) -> Option<FakeReply>;
    let interruptions: [Interruption; 2] = [
        |request| (request.verb == "user.create").then_some(FakeReply::None),
        |request| {
            let refusal = ErrorBody::new(ErrorCode::Internal, "cannot sign the credential");
            (request.verb == "user.credential").then_some(FakeReply::Error(refusal))
        },
    ];
    for interruption in interruptions {
        let folder = tempdir().expect("a folder");
        let run = run_in(&folder, &control_plane(interruption), "user create alice --role viewer");
        assert_ne!(run.code, 0);
        let partial = folder.path().join("alice.creds.partial");
        assert_eq!((files(&folder), mode(&partial)), (vec!["alice.creds.partial".to_owned()], 0o600));
        assert!(run.stderr.contains("otherix user credential alice --update alice.creds.partial"), "{}", run.stderr);
        let pair = KeyPair::from_seed(&seed(&partial)).expect("a seed");
        let registered = pair.public_key().to_string();
        let fake = control_plane(move |request| {
            (request.verb == "user.credential").then(|| FakeReply::Data(credential(&registered)))
        });
        let run = run_in(&folder, &fake, "user credential alice --update alice.creds.partial");
        run.assert_output(0, "credentials of user alice written to alice.creds.partial\n", "");
        assert_eq!(Creds::load(&partial).expect("credentials").public_key(), pair.public_key());
    }
}

#[test]
fn credential_prints_the_jwt_or_replaces_it_in_a_private_file_of_that_key() {
    let (folder, fake) = (tempdir().expect("a folder"), control_plane(|_| None));
    let run = run_in(&folder, &fake, "user credential");
    assert_eq!((run.code, run.stdout.starts_with("eyJ"), fake.received()[0].body.clone()), (0, true, json!({})));
    let other = KeyPair::generate(KeyKind::User).expect("a key").seed().to_string();
    let path = folder.path().join("other.creds");
    private_file(&path, &other);
    let run = run_in(&folder, &fake, "user credential alice --update other.creds");
    assert_eq!(run.code, 4, "{}", run.stderr);
    assert_eq!(fs::read_to_string(&path).expect("text"), other);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its mode is set");
    let run = run_in(&folder, &fake, "user credential alice --update other.creds");
    assert!(run.code == 6 && run.stderr.contains("hint: run `chmod 600 other.creds`"), "{}", run.stderr);
    private_file(&path, "no key");
    assert_eq!(run_in(&folder, &fake, "user credential alice --update other.creds").code, 2);
}

/// A JWT of an account for a key, issued at this time.
pub(crate) fn issued(account: &KeyPair, key: &KeyPair, role: &str, issued_at: u64) -> String {
    let body = User { tags: vec![format!("role:{role}")], ..User::scoped(account.public_key()) };
    jwt::encode(Claims::new(key.public_key(), "alice", issued_at, body), account).expect("signed")
}

#[test]
fn a_jwt_is_written_into_its_credentials_without_the_control_plane() {
    let (folder, fake) = (tempdir().expect("a folder"), control_plane(|_| None));
    let (account, key) = (KeyPair::generate(KeyKind::Account).expect("a key"), KeyPair::generate(KeyKind::User));
    let (other_account, key) = (KeyPair::generate(KeyKind::Account).expect("a key"), key.expect("a key"));
    let other_key = KeyPair::generate(KeyKind::User).expect("a key");
    let path = folder.path().join("alice.creds");
    let before = Creds::new(issued(&account, &key, "viewer", 5), key.clone()).expect("credentials");
    private_file(&path, before.render().as_str());
    let update = |token: &str| {
        fs::write(folder.path().join("alice.jwt"), format!("{token}\n")).expect("written");
        run_in(&folder, &fake, "user credential --update alice.creds --jwt alice.jwt")
    };
    for (token, code, text) in [
        (issued(&account, &other_key, "admin", 6), 4, "is not for the key in the file"),
        (issued(&other_account, &key, "admin", 6), 4, "by another control plane"),
        (issued(&account, &key, "admin", 4), 4, "is older than the one in the file"),
        (issued(&account, &key, "admin", 6).replace('.', "x."), 2, "the JWT cannot be used"),
        ("no".to_owned(), 2, "has no JWT"),
    ] {
        let run = update(&token);
        assert!(run.code == code && run.stderr.contains(text), "{}", run.stderr);
        assert_eq!(Creds::load(&path).expect("credentials").jwt(), before.jwt());
    }
    let run = update(&issued(&account, &key, "operator", 6));
    run.assert_output(0, "credentials of user alice written to alice.creds\n", "");
    let after = Creds::load(&path).expect("credentials");
    assert_eq!((after.role(), after.key().seed(), mode(&path)), (Some("operator"), key.seed(), 0o600));
    let json = run_in(&folder, &fake, "user credential --update alice.creds --jwt alice.jwt -o json");
    let printed: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&printed["role"], &printed["credentials_file"]), (&json!("operator"), &json!("alice.creds")));
    // A file that has the key only.
    private_file(&path, &key.seed());
    assert_eq!(update(&issued(&account, &key, "operator", 6)).code, 0);
    assert_eq!(run_in(&folder, &fake, "user credential --jwt alice.jwt").code, 2);
    assert_eq!(run_in(&folder, &fake, "user credential alice --update alice.creds --jwt alice.jwt").code, 2);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("its mode is set");
    assert_eq!(update(&issued(&account, &key, "operator", 6)).code, 6);
    assert_eq!(fake.received().len(), 0);
}

#[test]
fn set_role_writes_the_jwt_for_the_new_role() {
    let folder = tempdir().expect("a folder");
    let fake = control_plane(|_| None);
    let run = run_in(&folder, &fake, "user set-role alice operator --out alice.jwt");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let written = fs::read_to_string(folder.path().join("alice.jwt")).expect("text");
    assert!(written.starts_with("eyJ") && written.ends_with('\n'), "{written}");
    let again = run_in(&folder, &fake, "user set-role alice viewer --out alice.jwt");
    assert!(again.code == 2 && again.stderr.contains("is not overwritten"), "{}", again.stderr);
    assert_eq!(fake.received().iter().filter(|request| request.verb == "user.set-role").count(), 1);
    // As after a change of the own role.
    let refusing = control_plane(|request| {
        let refusal = ErrorBody::new(ErrorCode::Unauthenticated, "revoked");
        (request.verb == "user.credential").then_some(FakeReply::Error(refusal))
    });
    let run = run_in(&folder, &refusing, "user set-role alice operator --out other.jwt");
    assert!(run.code == 6 && run.stderr.contains("hint: user alice has role operator; an admin"), "{}", run.stderr);
    assert!(!folder.path().join("other.jwt").exists());
}

#[test]
fn invalid_users_are_refused_before_anything_is_written() {
    let (folder, fake) = (tempdir().expect("a folder"), control_plane(|_| None));
    let run = run_in(&folder, &fake, "user create a/b --role node --expires tomorrow");
    run.assert_output(
        2,
        "",
        "error: the request is invalid\n  \
         --expires: must be a whole number with a unit (m, h, d), such as 90d, or `never`\n  \
         NAME: must not contain `/`\n  \
         --role: must be `admin`, `operator`, `developer` or `viewer`, not `node`\n\
         hint: see `otherix user create --help` for the values that each flag accepts\n",
    );
    assert_eq!(run_in(&folder, &fake, "user set-role alice node").code, 2);
    assert_eq!(run_in(&folder, &fake, "user rotate alice --expires 1y").code, 2);
    assert_eq!((files(&folder), fake.received().len()), (vec![], 0));
}

#[test]
fn set_role_and_revoke_name_the_user_by_its_id() {
    let fake = control_plane(|_| None);
    let fields = format!(
        "id:      {ID}\nrole:    viewer\nstatus:  active\nkey:     {KEY}\nexpires: never\n\
         created: {TIME}\nchanged: {TIME}\n"
    );
    fake.run("user set-role ALICE operator").assert_output(0, &format!("user alice has role operator\n{fields}"), "");
    fake.run("user revoke alice").assert_output(0, &format!("user alice revoked\n{fields}"), "");
    fake.run("user delete alice --force").assert_output(0, "user alice deleted\n", "");
    let received = fake.received();
    let sent: Vec<_> = received.iter().map(|request| (request.verb.as_str(), request.body.clone())).collect();
    let find = |name: &str| ("user.find", json!({"name": name}));
    assert_eq!(
        sent,
        [
            find("ALICE"),
            ("user.set-role", json!({"id": ID, "role": "operator"})),
            find("alice"),
            ("user.revoke", json!({"id": ID})),
            find("alice"),
            ("user.delete", json!({"id": ID})),
        ]
    );
}

#[test]
fn whoami_shows_user_and_permissions() {
    let fake = FakeControlPlane::start(|_, _| {
        FakeReply::Data(json!({
            "id": ID, "name": "alice", "role": "developer", "key": KEY, "expires_at": TIME,
            "permissions": ["vm:read", "vm:create"], "permissions_for_own": ["vm:delete"],
        }))
    });
    let expected = format!(
        "name:        alice\nid:          {ID}\nrole:        developer\nkey:         {KEY}\nexpires:     {TIME}\n\
         permissions: vm:read vm:create\nfor its own: vm:delete\n"
    );
    fake.run("user whoami").assert_output(0, &expected, "");
}

#[test]
fn a_missing_permission_ends_with_code_6_and_names_it() {
    let body = ErrorBody::new(ErrorCode::PermissionDenied, "user `eve` lacks the permission `user:manage`");
    let fake = FakeControlPlane::start(move |_, _| FakeReply::Error(body.clone()));
    let run = fake.run(&format!("user revoke {ID}"));
    assert!(run.code == 6 && run.stderr.contains("`user:manage`"), "{}", run.stderr);
}

/// The private key is elsewhere: nothing secret is printed or written.
#[test]
fn a_public_key_that_was_made_elsewhere_is_registered_and_its_owner_gets_the_jwt() {
    let (folder, fake) = (tempdir().expect("a folder"), control_plane(|_| None));
    let pair = KeyPair::generate(KeyKind::User).expect("a key");
    let (key, seed) = (pair.public_key().to_string(), pair.seed());
    let owned = folder.path().join("owned.nk");
    private_file(&owned, &format!("{}\n", seed.as_str()));
    for (number, command) in ["user create alice --role viewer", "user rotate alice"].into_iter().enumerate() {
        let run = run_in(&folder, &fake, &format!("{command} --public-key {key} --expires 90d"));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{}", run.stdout);
        assert!(run.stdout.contains(&format!("key:     {key}\n")), "{}", run.stdout);
        assert_eq!(files(&folder), ["owned.nk"], "without --out, no file is written");
        let out = format!("{number}.jwt");
        let json = run_in(&folder, &fake, &format!("{command} --public-key {key} --out {out} -o json"));
        let printed: Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!((&printed["key"], &printed["credentials_file"]), (&json!(key), &Value::Null));
        let sent = fake.received();
        let registered: Vec<_> = sent.iter().filter(|request| request.body["key"] == json!(key)).collect();
        assert_eq!(registered.len(), 2 * (number + 1), "{sent:?}");

        // Its owner, who has the private key.
        let owner = owned.display();
        let combined = run_in(&folder, &fake, &format!("user credential --update {owner} --jwt {out}"));
        assert_eq!(combined.code, 0, "{}", combined.stderr);
        assert_eq!(Creds::load(&owned).expect("credentials").public_key().as_str(), key);
        let exists = run_in(&folder, &fake, &format!("{command} --public-key {key} --out {out}"));
        assert!(exists.code == 2 && exists.stderr.contains("is not overwritten"), "{}", exists.stderr);
        assert_eq!(
            fake.received().iter().filter(|request| request.body["key"] == json!(key)).count(),
            registered.len()
        );
        fs::remove_file(folder.path().join(out)).expect("removed");
        private_file(&owned, &format!("{}\n", seed.as_str()));
    }
    // A private key that is passed by mistake is sent nowhere, and not repeated.
    let secret = seed.as_str();
    let mistaken = run_in(&folder, &fake, &format!("user create bob --role viewer --public-key {secret}"));
    assert_eq!(mistaken.code, 2);
    assert!(mistaken.stderr.contains("public-key") && !mistaken.stderr.contains(secret), "{}", mistaken.stderr);
    assert!(!format!("{:?}", fake.received()).contains(secret));
}
