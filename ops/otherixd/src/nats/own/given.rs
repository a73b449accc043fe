//! What the accounts were when they were printed or pushed last: a version of otherix with other permissions needs them
//! on the servers, too. The file says nothing about what the servers have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use otherix_identity::jwt::Account;
use otherix_runtime::files;

use super::super::accounts::{self, AccountName, Revocations};
use super::super::error::NatsError;
use super::super::files::write_private;
use super::super::identity::Identity;
use super::push::normal;

/// Accounts without revocations, by their names.
type Given = BTreeMap<String, Account>;

fn path(state: &Path) -> PathBuf {
    state.join("identity/accounts-given.json")
}

fn present(identity: &Identity) -> Result<Given, NatsError> {
    let account = |name: AccountName| {
        let account = normal(accounts::account(identity, name, &Revocations::default())?);
        Ok((name.as_str().to_owned(), account))
    };
    AccountName::SHARED.into_iter().map(account).collect()
}

/// Notes that the accounts were printed or pushed as they are now.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn note_given(state: &Path, identity: &Identity) -> Result<(), NatsError> {
    let mut text = serde_json::to_vec(&present(identity)?)?;
    text.push(b'\n');
    write_private(&path(state), &text)
}

/// Whether the accounts were others when they were printed or pushed last. If that is not known, they were not.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn have_changed(state: &Path, identity: &Identity) -> Result<bool, NatsError> {
    let path = path(state);
    let text = files::read(&path).map_err(|source| NatsError::File { attempt: "read", path, source })?;
    let given = text.and_then(|text| serde_json::from_slice::<Given>(&text).ok());
    Ok(given.is_some_and(|given| present(identity).is_ok_and(|present| present != given)))
}

#[cfg(test)]
mod tests {
    use otherix_testkit::tempdir;

    use super::*;

    #[test]
    fn other_permissions_are_noticed() {
        let folder = tempdir().unwrap();
        let identity = Identity::load_or_create_accounts(folder.path()).unwrap();
        let have_changed = || have_changed(folder.path(), &identity).unwrap();
        assert!(!have_changed(), "nothing is known");
        note_given(folder.path(), &identity).unwrap();
        assert!(!have_changed());
        // As another version wrote it.
        let text = std::fs::read_to_string(path(folder.path())).unwrap();
        assert!(text.contains("network.list"));
        write_private(&path(folder.path()), text.replace("network.list", "network.enumerate").as_bytes()).unwrap();
        assert!(have_changed());
    }
}
