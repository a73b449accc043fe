//! `otherixd accounts print|push`: the accounts for an existing NATS, with what is revoked by now. The control plane
//! may be running, or may never have been started.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use otherix_commands::store::{EventStore, replay};
use otherix_identity::jwt;
use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::user::Callers;

use crate::args::StateFolder;
use crate::error::BoxError;
use crate::event_store;
use crate::nats::{
    AccountName, AccountPusher, FormerUsers, Identity, NatsError, OwnNatsSettings, Pushed, Revocations, Wanted,
    account_claims, account_key, label, note_given, operator_key, private_folder, push_all, revocations, unix_now,
    write_private,
};
use crate::own_nats_args::{PrintAccountsArgs, PushAccountsArgs};

fn print_line(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// Prints the accounts, or writes them into files.
pub(crate) async fn print(args: &PrintAccountsArgs) -> Result<(), BoxError> {
    let PrintAccountsArgs { state, nats_operator_key, out } = args;
    let operator = nats_operator_key.as_deref().map(operator_key).transpose()?;
    let (revoked, _) = registry(state).await?;
    let identity = identity(state)?;
    if let Some(folder) = out {
        private_folder(folder)?;
    }
    for name in AccountName::SHARED {
        let claims = account_claims(&identity, name, &revoked, unix_now()?)?;
        let key = claims.subject.clone();
        let token = match &operator {
            Some(operator) => jwt::encode(claims, operator)?,
            None => jwt::encode(claims, &account_key(&state.folder, name)?)?,
        };
        match out {
            Some(folder) => {
                let path = folder.join(format!("{}.jwt", label(name)));
                write_private(&path, format!("{token}\n").as_bytes())?;
                print_line(&format!("{key} {}", path.display()))?;
            }
            None => print_line(&format!("# {}\n{key}: {token}", label(name)))?,
        }
    }
    note_given(&state.folder, &identity)?;
    Ok(())
}

/// Pushes the accounts.
pub(crate) async fn push(args: &PushAccountsArgs) -> Result<(), BoxError> {
    let PushAccountsArgs { state, nats, nats_ca, nats_operator_key, nats_system_creds, dry_run } = args;
    let settings = OwnNatsSettings::new(&state.folder, nats, nats_ca.as_deref())?;
    let settings = settings.with_keys(None, Some(nats_system_creds))?;
    let operator = Arc::new(operator_key(nats_operator_key)?);
    let (revoked, callers) = registry(state).await?;
    let identity = Arc::new(identity(state)?);
    let system = settings.system().await?.ok_or(NatsError::NoOperator)?;
    let pusher = AccountPusher { identity, operator, system };
    let wanted = Wanted { revoked: &revoked, callers: &callers, is_dry_run: *dry_run };
    let mut lines = Vec::new();
    let pushed = push_all(&pusher, &wanted, |name, pushed| lines.push(line(name, pushed, *dry_run)));
    let servers = pushed.await;
    for line in lines {
        print_line(&line)?;
    }
    let (servers, _) = servers?;
    if !dry_run {
        note_given(&state.folder, &pusher.identity)?;
    }
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    print_line(&format!("{} servers: {}", names.len(), names.join(", ")))?;
    Ok(())
}

fn line(name: AccountName, pushed: &Pushed, is_dry_run: bool) -> String {
    let name = label(name);
    match pushed {
        Pushed::Same => format!("{name}: all servers have it"),
        Pushed::Changed { earlier, missing } => {
            let done = if is_dry_run { "to be pushed" } else { "pushed" };
            format!("{name}: {done} ({earlier} servers had an earlier one, {missing} none)")
        }
    }
}

/// The keys. Says if they are made.
fn identity(state: &StateFolder) -> Result<Identity, BoxError> {
    let is_new = !ACCOUNT_KEYS.iter().any(|name| state.identity().join(name).exists());
    let identity = Identity::load_or_create_accounts(&state.folder)?;
    if is_new {
        writeln!(std::io::stderr(), "made new keys in `{}`", state.identity().display())?;
    }
    Ok(identity)
}

/// The files of which at least one exists if the keys of the accounts do.
const ACCOUNT_KEYS: [&str; 2] = ["accounts.json", "operator.jwt"];

/// The files in the folder of the keys that only `otherixd run` makes.
const STARTED: [&str; 2] = ["operator.jwt", "decision-key.json"];

/// Without the journal, accounts would revoke nothing.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal `{}` is missing, and the control plane was started before (`{}` exists): restore it from a backup, \
    otherwise the accounts would lift all revocations", journal.display(), mark.display()
)]
struct NoJournal {
    journal: PathBuf,
    mark: PathBuf,
}

/// What is revoked, and who has to do with it. Nothing, if the control plane was never started.
async fn registry(state: &StateFolder) -> Result<(Revocations, Callers), BoxError> {
    private_folder(&state.folder)?;
    if !state.journal().exists() {
        let marks = STARTED.map(|name| state.identity().join(name));
        return match marks.into_iter().find(|mark| mark.exists()) {
            Some(mark) => Err(NoJournal { journal: state.journal(), mark }.into()),
            None => Ok(<_>::default()),
        };
    }
    let former = FormerUsers::read(&state.folder)?;
    let journal = event_store::open_read_only(state).await?;
    let loaded = replay(&journal).await?;
    journal.close().await;
    let callers = loaded.state.callers().clone();
    Ok((revocations(&callers, former.node(), SystemRuntime.now().ok()), callers))
}

#[cfg(test)]
mod tests {
    use otherix_testkit::tempdir;

    use super::*;

    /// Printed twice before the first start, and then without what the start has made.
    #[tokio::test]
    async fn a_lost_journal_lifts_no_revocation() {
        let folder = tempdir().unwrap();
        let state = StateFolder { folder: folder.path().to_owned() };
        for _ in 0..2 {
            assert_eq!(registry(&state).await.unwrap().0, Revocations::default());
            identity(&state).unwrap();
        }
        for mark in STARTED {
            let mark = state.identity().join(mark);
            write_private(&mark, b"").unwrap();
            let error = registry(&state).await.unwrap_err().to_string();
            assert!(error.contains("journal.db` is missing"), "{error}");
            std::fs::remove_file(mark).unwrap();
        }
    }
}
