//! Who may make requests follows what is durable: nobody is admitted by an event that was not stored, and nobody is
//! still admitted after one that was.

use otherix_commands::store::memory::Fault;
use otherix_commands::store::replay;
use otherix_schemas::command::Command;
use otherix_schemas::id::UserUuid;
use otherix_schemas::user::{CallerError, NewExpiry, NewUser, UserCommand, UserRole};
use otherix_schemas::value::{UserId, UserKey};
use uuid::Uuid;

use super::support::{JournalFolder, RunningWriter, create, memory_store, request, with_key};
use otherix_commands::writer::{CommandRequest, Refusal};

fn id(number: u8) -> UserUuid {
    UserUuid::new(Uuid::from_u128(number.into()))
}

fn key(number: u8) -> UserKey {
    UserKey::from_bytes([number; 32])
}

fn create_user(number: u8, role: UserRole) -> CommandRequest {
    let name = format!("user-{number}").parse().unwrap();
    let user = NewUser { name, role, key: key(number), expires_at: None };
    request(Command::User(UserCommand::Create { user_id: id(number), user }))
}

fn revoke(number: u8) -> CommandRequest {
    request(Command::User(UserCommand::Revoke { user_id: id(number) }))
}

#[tokio::test]
async fn callers_are_those_whose_events_are_stored() {
    let writer = RunningWriter::start(memory_store()).await;
    let callers = writer.callers.clone();
    let find = |number: u8| callers.borrow().find(&UserId::from(&key(number)), None).map(|caller| caller.name);
    writer.journal.faults().hold();
    writer.journal.faults().inject(Fault::NotStored);
    let refused = writer.begin(create_user(1, UserRole::Admin));
    writer.journal.faults().wait_appends(1).await;
    assert_eq!(find(1), Err(CallerError::Unknown((&key(1)).into())), "it is decided, and not durable");
    writer.journal.faults().release();
    refused.await.unwrap().unwrap_err();
    assert_eq!(find(1), Err(CallerError::Unknown((&key(1)).into())), "it was not stored");

    writer.execute(create_user(1, UserRole::Admin)).await.unwrap();
    assert_eq!(find(1), Ok("user-1".to_owned()), "known once the command is answered");
    writer.execute(create_user(2, UserRole::Viewer)).await.unwrap();
    writer.execute(revoke(2)).await.unwrap();
    assert_eq!(find(2), Err(CallerError::Revoked((&key(2)).into())));
    let rotate = UserCommand::Rotate { user_id: id(2), key: key(3), expiry: NewExpiry::Unchanged };
    writer.execute(request(Command::User(rotate))).await.unwrap();
    assert_eq!(find(3), Ok("user-2".to_owned()));
    assert_eq!(find(2), Err(CallerError::Revoked((&key(2)).into())));

    let (announced, journal) = (callers.borrow().clone(), writer.stop().await);
    assert_eq!(&announced, replay(journal.as_ref()).await.unwrap().state.callers());
}

#[tokio::test]
async fn commands_that_are_decided_after_the_revocation_of_their_caller_are_refused() {
    let writer = RunningWriter::start(memory_store()).await;
    for number in 1..=3 {
        writer.execute(create_user(number, UserRole::Admin)).await.unwrap();
    }
    let by = |caller: u8, number: u8| {
        let caller = writer.callers.borrow().find(&UserId::from(&key(caller)), None).unwrap();
        CommandRequest { caller: Some(caller), ..create_user(number, UserRole::Admin) }
    };
    let [early, late, demoted, own] = [by(2, 11), by(2, 12), by(3, 13), by(1, 14)];
    // What is admitted while a batch is stored waits, and is decided in order.
    writer.journal.faults().hold();
    let early = writer.begin(early);
    writer.journal.faults().wait_appends(1).await;
    let role = UserCommand::SetRole { user_id: id(3), role: UserRole::Viewer };
    let changes = [writer.begin(revoke(2)), writer.begin(request(Command::User(role)))];
    let [late, demoted, own] = [late, demoted, own].map(|request| writer.begin(request));
    writer.journal.faults().release();
    early.await.unwrap().unwrap();
    for change in changes {
        change.await.unwrap().unwrap();
    }
    assert!(matches!(late.await.unwrap(), Err(Refusal::Caller(CallerError::Revoked(_)))));
    assert!(matches!(demoted.await.unwrap(), Err(Refusal::RoleChanged)));
    own.await.unwrap().unwrap();
    let names: Vec<_> = writer.callers.borrow().users().values().map(|user| user.name.to_string()).collect();
    assert_eq!(names, ["user-1", "user-2", "user-3", "user-11", "user-14"]);
}

#[tokio::test]
async fn callers_are_the_same_after_a_restart() {
    let folder = JournalFolder::new();
    let writer = RunningWriter::start(folder.open().await).await;
    for number in 1..=3 {
        writer.execute(create_user(number, UserRole::Admin)).await.unwrap();
    }
    writer.execute(revoke(2)).await.unwrap();
    writer.execute(create("net")).await.unwrap();
    let before = writer.callers.borrow().clone();
    drop(writer.stop().await);
    let again = RunningWriter::start(folder.open().await).await;
    assert_eq!(*again.callers.borrow(), before);
    assert_eq!(before.users().len(), 3);
}

#[tokio::test]
async fn a_repeated_command_creates_one_user() {
    let writer = RunningWriter::start(memory_store()).await;
    let first = writer.begin(with_key(create_user(1, UserRole::Admin), "k", "body")).await.unwrap().unwrap();
    // The id is generated for each attempt.
    let mut again = create_user(2, UserRole::Admin);
    if let Command::User(UserCommand::Create { user, .. }) = &mut again.command {
        (user.name, user.key) = ("user-1".parse().unwrap(), key(1));
    }
    let second = writer.begin(with_key(again, "k", "body")).await.unwrap().unwrap();
    assert_eq!(first, second);
    assert_eq!(writer.callers.borrow().users().len(), 1);
}
