use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use otherix_commands::config::ClusterConfig;
use otherix_commands::store::SqliteStore;
use otherix_commands::writer::{Cause, Writer};
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::ClusterId;
use otherix_schemas::user::UserStatus;
use otherix_testkit::{TempDir, tempdir};
use serde_json::json;
use uuid::Uuid;

use super::*;

/// A state folder, and the identity in it.
struct Fixture {
    folder: TempDir,
    identity: Identity,
}

/// The users and the credentials after a start.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Name, role, status and key of each user.
    users: Vec<(String, &'static str, &'static str, UserKey)>,
    key: Option<UserKey>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempdir().unwrap();
        let identity = Identity::load_or_create(folder.path(), 1).unwrap();
        Self { folder, identity }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the writer on the journal, carries out commands, and makes sure of the first administrator.
    async fn start(&self, before: &[UserCommand]) -> Result<Outcome, BoxError> {
        let runtime = SystemRuntime::shared();
        let store = SqliteStore::open(&self.path("journal.db"), ClusterId::new(Uuid::now_v7())).await?;
        let (writer, handle, _stored) =
            Writer::open(Arc::new(store), ClusterConfig::default(), Arc::clone(&runtime)).await?;
        let callers = writer.callers();
        let running = tokio::spawn(writer.run());
        for command in before {
            let (command, actor) = (Command::User(command.clone()), SYSTEM.parse()?);
            let correlation_id = CorrelationId::new(Uuid::now_v7());
            let request =
                CommandRequest { command, actor, caller: None, correlation_id, cause: Cause::default(), key: None };
            handle.execute(request).await?;
        }
        let former = FormerUsers::load(self.folder.path())?;
        let first_admin = FirstAdmin {
            state: self.folder.path(),
            identity: &self.identity,
            former: &former,
            callers: callers.clone(),
            writer: &handle,
            runtime: runtime.as_ref(),
        };
        let ensured = first_admin.ensure().await;
        drop(handle);
        running.await??;
        ensured?;
        let now = runtime.now()?;
        let users = callers.borrow().users().iter().map(|(id, user)| user.view(*id, now)).collect::<Vec<_>>();
        let users = users.into_iter().map(|it| (it.name.to_string(), it.role.as_str(), it.status.as_str(), it.key));
        let creds = Some(self.path(CREDENTIALS)).filter(|path| path.exists()).map(|path| Creds::load(&path).unwrap());
        let key = creds.map(|creds| user_key(creds.public_key()).unwrap());
        assert!(!self.partial().0.exists(), "the key is in one file only");
        Ok(Outcome { users: users.collect(), key })
    }

    fn partial(&self) -> PartialFile {
        PartialFile::of(&self.path(CREDENTIALS))
    }

    /// What the first start of an earlier version left: credentials without an event.
    fn former_admin(&self) -> UserKey {
        let pair = KeyPair::generate(KeyKind::User).unwrap();
        let shared = KeyPair::generate(KeyKind::User).unwrap();
        let record = json!({ "admin": pair.public_key().as_str(), "node": shared.public_key().as_str() });
        fs::write(self.path("identity/first-users.json"), record.to_string()).unwrap();
        user_key(pair.public_key()).unwrap()
    }
}

fn only(key: &UserKey) -> Vec<(String, &'static str, &'static str, UserKey)> {
    vec![("admin".to_owned(), "admin", UserStatus::Active.as_str(), key.clone())]
}

fn user(name: &str, number: u8) -> UserCommand {
    let (name, key) = (name.parse().unwrap(), UserKey::from_bytes([number; 32]));
    let user = NewUser { name, role: UserRole::Admin, key, expires_at: None };
    UserCommand::Create { user_id: UserUuid::new(Uuid::now_v7()), user }
}

#[tokio::test]
async fn the_first_start_creates_one_admin_and_later_ones_none() {
    let fixture = Fixture::new();
    let first = fixture.start(&[]).await.unwrap();
    let key = first.key.clone().unwrap();
    assert_eq!(first.users, only(&key));
    let file = fixture.path(CREDENTIALS);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let creds = Creds::load(&file).unwrap();
    assert_eq!(creds.role(), Some("admin"));
    assert_eq!(fixture.start(&[]).await.unwrap(), first);
    // Handed out, and removed from this machine.
    fs::remove_file(file).unwrap();
    assert_eq!(fixture.start(&[]).await.unwrap(), Outcome { key: None, ..first });
}

#[tokio::test]
async fn an_interrupted_start_is_completed_with_the_same_key() {
    // The key is written, and there is no event.
    let fixture = Fixture::new();
    FormerUsers::load(fixture.folder.path()).unwrap();
    let pair = fixture.partial().load_or_create().unwrap();
    let key = user_key(pair.public_key()).unwrap();
    let done = fixture.start(&[]).await.unwrap();
    assert_eq!(done, Outcome { users: only(&key), key: Some(key.clone()) });

    // There is the event, and no credentials.
    let seed = format!("{}\n", pair.seed().as_str());
    let creds = fs::read(fixture.path(CREDENTIALS)).unwrap();
    fs::remove_file(fixture.path(CREDENTIALS)).unwrap();
    write_private(&fixture.partial().0, seed.as_bytes()).unwrap();
    assert_eq!(fixture.start(&[]).await.unwrap(), done);
    assert_eq!(fs::read(fixture.path(CREDENTIALS)).unwrap(), creds, "the same state has the same credentials");

    // The credentials are written, and the first file is not removed.
    write_private(&fixture.partial().0, seed.as_bytes()).unwrap();
    assert_eq!(fixture.start(&[]).await.unwrap(), done);
}

#[tokio::test]
async fn a_journal_without_users_has_the_admin_whose_credentials_exist() {
    let fixture = Fixture::new();
    let first = fixture.start(&[]).await.unwrap();
    fs::remove_file(fixture.path("journal.db")).unwrap();
    assert_eq!(fixture.start(&[]).await.unwrap(), first);
    // A key that no event has registered is of no use once there are users.
    fs::remove_file(fixture.path(CREDENTIALS)).unwrap();
    fixture.partial().load_or_create().unwrap();
    assert_eq!(fixture.start(&[]).await.unwrap(), Outcome { key: None, ..first });
    // Credentials of another control plane are not registered.
    let other = Fixture::new();
    other.start(&[]).await.unwrap();
    fs::remove_file(fixture.path("journal.db")).unwrap();
    fs::copy(other.path(CREDENTIALS), fixture.path(CREDENTIALS)).unwrap();
    let error = fixture.start(&[]).await.unwrap_err().to_string();
    assert!(error.contains("from another control plane"), "{error}");
}

#[tokio::test]
async fn the_admin_of_an_earlier_version_becomes_a_user_once() {
    let fixture = Fixture::new();
    let key = fixture.former_admin();
    let done = Outcome { users: only(&key), key: None };
    assert_eq!(fixture.start(&[]).await.unwrap(), done);
    let record = fs::read_to_string(fixture.path("identity/first-users.json")).unwrap();
    assert!(!record.contains("admin"), "{record}");
    assert_eq!(fixture.start(&[]).await.unwrap(), done);

    // It has created users meanwhile, one of whom has its name.
    let fixture = Fixture::new();
    let key = fixture.former_admin();
    let record = fs::read(fixture.path("identity/first-users.json")).unwrap();
    let mut users = fixture.start(&[user("Admin", 1), user("ann", 2)]).await.unwrap().users;
    assert_eq!(users.pop(), Some(("admin-2".to_owned(), "admin", "active", key)));
    assert_eq!(users.len(), 2);
    // Interrupted before the file was written.
    fs::write(fixture.path("identity/first-users.json"), record).unwrap();
    assert_eq!(fixture.start(&[]).await.unwrap().users.len(), 3);
}
