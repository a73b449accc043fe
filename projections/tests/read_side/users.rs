//! Users, and the owners of VMs, in the read models.

use otherix_projections::query::Page;
use otherix_projections::user;
use otherix_projections::vm;
use otherix_schemas::cloudevent::Actor;
use otherix_schemas::command::Command;
use otherix_schemas::id::{UserUuid, VmId};
use otherix_schemas::position::Position;
use otherix_schemas::timestamp::Timestamp;
use otherix_schemas::user::{NewExpiry, NewUser, UserCommand, UserRole, UserStatus, UserView};
use otherix_schemas::value::UserKey;
use otherix_schemas::vm::VmOwner;
use otherix_testkit::tempdir;
use uuid::Uuid;

use super::support::{ReadSide, WriteSide, create_vm, join, rebuilt_rows};

fn id(number: u128) -> UserUuid {
    UserUuid::new(Uuid::from_u128(number))
}

fn create(number: u8, name: &str, role: UserRole, expires_at: Option<Timestamp>) -> Command {
    let (name, key) = (name.parse().unwrap(), UserKey::from_bytes([number; 32]));
    let user = NewUser { name, role, key, expires_at };
    Command::User(UserCommand::Create { user_id: id(number.into()), user })
}

async fn get(read: &ReadSide, write: &WriteSide, number: u128, now: Timestamp) -> Option<UserView> {
    read.reach(write.head()).await;
    user::query::by_id(&read.db(), Some(now), id(number)).unwrap()
}

#[tokio::test]
async fn a_user_is_shown_as_the_events_say() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    let [now, expiry, later]: [Timestamp; 3] =
        ["2026-01-01T00:00:00Z", "2199-01-01T00:00:00Z", "2199-01-01T00:00:01Z"].map(|time| time.parse().unwrap());
    let created = write.execute(create(1, "ann", UserRole::Admin, None)).await;
    write.execute(create(2, "Straße", UserRole::Viewer, Some(expiry))).await;
    let ann = get(&read, &write, 1, now).await.unwrap();
    assert_eq!((ann.role, ann.status, ann.generation), (UserRole::Admin, UserStatus::Active, created));
    let viewer = |status| (UserRole::Viewer, status, Some(expiry));
    for (now, status) in [(now, UserStatus::Active), (expiry, UserStatus::Expired), (later, UserStatus::Expired)] {
        let view = get(&read, &write, 2, now).await.unwrap();
        assert_eq!((view.role, view.status, view.expires_at), viewer(status));
    }
    let by_name = user::query::by_name(&read.db(), Some(now), &"STRASSE".parse().unwrap()).unwrap().unwrap();
    assert_eq!(by_name.id, id(2));

    let set_role = UserCommand::SetRole { user_id: id(2), role: UserRole::Operator };
    let changed = write.execute(Command::User(set_role)).await;
    let view = get(&read, &write, 2, now).await.unwrap();
    assert_eq!((view.role, view.generation), (UserRole::Operator, changed));
    write.execute(Command::User(UserCommand::Revoke { user_id: id(2) })).await;
    let view = get(&read, &write, 2, later).await.unwrap();
    assert_eq!((view.status, view.revoked_at), (UserStatus::Revoked, Some(view.updated_at)));
    let key = UserKey::from_bytes([9; 32]);
    let rotate = UserCommand::Rotate { user_id: id(2), key: key.clone(), expiry: NewExpiry::Never };
    write.execute(Command::User(rotate)).await;
    let view = get(&read, &write, 2, later).await.unwrap();
    assert_eq!((view.status, view.revoked_at, view.expires_at, view.key), (UserStatus::Active, None, None, key));

    let page = |limit, after| user::query::list(&read.db(), Some(now), Page { limit, after }).unwrap();
    let first = page(1, Position::ZERO);
    assert_eq!((first.views.len(), first.next()), (1, Some(created)));
    assert_eq!(page(1, created).views[0].id, id(2));
    assert_eq!(rebuilt_rows(&write).await, read.rows());
    write.execute(Command::User(UserCommand::Delete { user_id: id(2) })).await;
    assert_eq!(get(&read, &write, 2, now).await, None);
    // Its name is free again.
    write.execute(create(3, "STRASSE", UserRole::Viewer, None)).await;
    assert!(get(&read, &write, 3, now).await.is_some());
    assert_eq!(rebuilt_rows(&write).await, read.rows());
}

#[tokio::test]
async fn a_vm_shows_who_created_it() {
    let (write, folder) = (WriteSide::start().await, tempdir().unwrap());
    let read = ReadSide::start(&write, folder.path()).await;
    write.execute(join(1)).await;
    // The owner of this command is `admin`.
    let named = Actor { id: "admin".parse().unwrap(), name: Some("ann".to_owned()) };
    for (number, actor) in [(1, named.clone()), (2, Actor { name: None, ..named })] {
        write.execute_as(actor, create_vm(number, &format!("vm-{number}"), None)).await;
    }
    read.reach(write.head()).await;
    for (number, name) in [(1, Some("ann".to_owned())), (2, None)] {
        let view = vm::query::by_id(&read.db(), VmId::new(Uuid::from_u128(number))).unwrap().unwrap();
        assert_eq!(view.owner, Some(VmOwner { id: "admin".parse().unwrap(), name }));
    }
}
