use std::fs;
use std::os::unix::fs::PermissionsExt;

use otherix_identity::jwt::Account;
use otherix_schemas::permission::Role;
use otherix_testkit::tempdir;

use super::*;

/// The files of the folder with their contents.
fn contents(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn keys_are_private_and_kept() {
    let state = tempdir().unwrap();
    let folder = state.path().join("identity");
    let first = Identity::load_or_create(state.path(), 5).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files = contents(&folder);
    assert_eq!(files.len(), 3 + AccountName::ALL.len() + Scope::all().count(), "{:?}", files.keys());
    for name in files.keys() {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    let again = Identity::load_or_create(state.path(), 6).unwrap();
    assert_eq!((contents(&folder), again.operator_jwt().unwrap()), (files.clone(), first.operator_jwt().unwrap()));
    // The operator's own key is taken offline.
    fs::remove_file(folder.join("operator.nk")).unwrap();
    let offline = Identity::load_or_create(state.path(), 7).unwrap();
    assert!(!folder.join("operator.nk").exists());
    let token = offline.account_jwt(AccountName::Clients, &Revocations::default(), 8).unwrap();
    assert!(jwt::decode::<Account>(&token).is_ok());
    assert!(!format!("{first:?}").contains(files["operator-signing.nk"].trim().get(5..).unwrap()));
}

#[test]
fn an_interrupted_first_start_is_completed() {
    let state = tempdir().unwrap();
    let folder = state.path().join("identity");
    Identity::load_or_create(state.path(), 5).unwrap();
    let complete = contents(&folder);
    // Whichever files it had made.
    for missing in complete.keys().filter(|name| *name != "operator.jwt") {
        fs::remove_file(folder.join("operator.jwt")).unwrap();
        let before = contents(&folder);
        fs::remove_file(folder.join(missing)).unwrap();
        Identity::load_or_create(state.path(), 5).unwrap();
        let after = contents(&folder);
        assert_eq!(after.keys().collect::<Vec<_>>(), complete.keys().collect::<Vec<_>>());
        for (name, content) in before.iter().filter(|(name, _)| *name != missing) {
            assert_eq!(after[name], *content, "{name} was replaced when {missing} was missing");
        }
    }
}

/// The keys of the accounts are the same for an embedded server and for an existing NATS, whichever is used first.
#[test]
fn accounts_are_made_once_for_either_nats() {
    for own_first in [true, false] {
        let state = tempdir().unwrap();
        let own = || Identity::load_or_create_accounts(state.path()).unwrap();
        let embedded = || Identity::load_or_create(state.path(), 5).unwrap();
        let accounts = |identity: &Identity| AccountName::SHARED.map(|name| identity.account(name).unwrap().clone());
        let first = if own_first { accounts(&own()) } else { accounts(&embedded()) };
        let folder = state.path().join("identity");
        assert_eq!(folder.join("operator.jwt").exists(), !own_first);
        assert!(own().account(AccountName::System).is_err() && own().operator_jwt().is_err());
        assert_eq!(accounts(&own()), first);
        assert_eq!(accounts(&embedded()), first);
        let key = account_key(state.path(), AccountName::Events).unwrap();
        assert_eq!(key.public_key(), first.get(1).unwrap());
        // A key that was lost is not made anew: all credentials would be lost with it.
        let lost = folder.join("account-nodes.nk");
        let seed = fs::read(&lost).unwrap();
        fs::remove_file(&lost).unwrap();
        fs::remove_file(folder.join("operator.jwt")).unwrap();
        let missing = Identity::load_or_create_accounts(state.path()).unwrap_err();
        assert!(matches!(missing, NatsError::MissingKey(_)), "{missing}");
        assert!(matches!(Identity::load_or_create(state.path(), 5), Err(NatsError::MissingKey(_))));
        // Nor is another one taken for it.
        write_private(&lost, KeyPair::generate(KeyKind::Account).unwrap().seed().as_bytes()).unwrap();
        let mixed = Identity::load_or_create_accounts(state.path()).unwrap_err();
        assert!(matches!(mixed, NatsError::MixedKeys(_)), "{mixed}");
        write_private(&lost, &seed).unwrap();
        assert_eq!(accounts(&embedded()), first);
    }
}

#[test]
fn an_interrupted_first_use_of_an_existing_nats_is_completed() {
    let state = tempdir().unwrap();
    let folder = state.path().join("identity");
    Identity::load_or_create_accounts(state.path()).unwrap();
    let complete = contents(&folder);
    for missing in complete.keys().filter(|name| *name != ACCOUNTS) {
        fs::remove_file(folder.join(ACCOUNTS)).unwrap();
        let before = contents(&folder);
        fs::remove_file(folder.join(missing)).unwrap();
        Identity::load_or_create_accounts(state.path()).unwrap();
        let after = contents(&folder);
        assert_eq!(after.keys().collect::<Vec<_>>(), complete.keys().collect::<Vec<_>>());
        for (name, content) in before.iter().filter(|(name, _)| *name != missing) {
            assert_eq!(after[name], *content, "{name} was replaced when {missing} was missing");
        }
    }
}

#[test]
fn a_damaged_folder_is_refused() {
    let state = tempdir().unwrap();
    let folder = state.path().join("identity");
    Identity::load_or_create(state.path(), 5).unwrap();
    let load = || Identity::load_or_create(state.path(), 5).map(drop);
    let with = |name: &str, change: &dyn Fn(&Path)| {
        let path = folder.join(name);
        let content = fs::read(&path).unwrap();
        change(&path);
        let error = load().unwrap_err();
        write_private(&path, &content).unwrap();
        load().unwrap();
        error
    };
    let missing = with("account-clients.nk", &|path| fs::remove_file(path).unwrap());
    assert!(matches!(missing, NatsError::MissingKey(_)), "{missing}");
    let shared =
        with("signing-admin.nk", &|path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap());
    assert!(shared.to_string().contains("chmod 600"), "{shared}");
    let damaged = with("signing-admin.nk", &|path| fs::write(path, "SA").unwrap());
    assert!(matches!(damaged, NatsError::Key { .. }), "{damaged}");
    let user = KeyPair::generate(KeyKind::User).unwrap().seed();
    let other_kind = with("signing-admin.nk", &|path| fs::write(path, user.as_bytes()).unwrap());
    assert!(matches!(other_kind, NatsError::Key { .. }), "{other_kind}");
    let other = KeyPair::generate(KeyKind::Operator).unwrap().seed();
    let mixed = with("operator-signing.nk", &|path| fs::write(path, other.as_bytes()).unwrap());
    assert!(matches!(mixed, NatsError::MixedKeys(_)), "{mixed}");
}

#[test]
fn users_have_the_rights_of_their_signing_key_only() {
    let state = tempdir().unwrap();
    let identity = Identity::load_or_create(state.path(), 5).unwrap();
    for scope in Scope::all() {
        let creds = identity.new_user("ann", scope, 5).unwrap();
        let User { permissions, issuer_account, .. } = &creds.claims().body;
        assert_eq!((permissions, issuer_account.as_ref()), (&None, Some(identity.account(scope.account()).unwrap())));
        assert_eq!(creds.role(), Some(scope.name()));
        assert!(identity.has_signed(&creds, scope));
        let others = Scope::all().filter(|other| *other != scope);
        assert!(others.into_iter().all(|other| !identity.has_signed(&creds, other)));
    }
    let folder = tempdir().unwrap();
    let foreign = Identity::load_or_create(folder.path(), 5).unwrap();
    let creds = foreign.new_user("ann", Scope::Role(Role::Admin), 5).unwrap();
    assert!(!identity.has_signed(&creds, Scope::Role(Role::Admin)));
}
