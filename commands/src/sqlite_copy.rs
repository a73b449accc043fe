//! Copies a SQLite database that another process may be writing to: all of it as of one moment.
//!
//! The copy is read in one transaction, so it is consistent however long it takes. In write-ahead mode a reader delays
//! no commit; the write-ahead log grows meanwhile, as it cannot be started again from its beginning.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

/// Pages copied at once: 4 MiB of 4 KiB each. They are flushed before the next ones, as a disk that has a gigabyte to
/// write holds up everybody else's flushes.
const PAGES: std::ffi::c_int = 1024;

/// How long the first page is waited for while somebody has locked the database.
const BUSY: Duration = Duration::from_secs(5);

/// A database could not be copied. The copy is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cannot read the database `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: crate::store::BoxError,
    },
    #[error("cannot write the copy `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: crate::store::BoxError,
    },
}

/// Copies the database at `from` to the file `to`, which must not exist and gets mode 0600. Blocking. The copy is on
/// the disk when it returns, and has no write-ahead log. `pause` is called after each step, and may wait.
pub(crate) fn copy_database(from: &Path, to: &Path, pause: &mut dyn FnMut()) -> Result<(), CopyError> {
    let unread = |source: rusqlite::Error| CopyError::Read { path: from.to_owned(), source: source.into() };
    let unwritten = |source: rusqlite::Error| CopyError::Write { path: to.to_owned(), source: source.into() };
    let failed = |source: io::Error| CopyError::Write { path: to.to_owned(), source: source.into() };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags).map_err(unread)?;
    source.busy_timeout(BUSY).map_err(unread)?;
    // Without the transaction each step would read another moment, and the copy begin again after every commit.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(unread)?;

    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to).map_err(failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags).map_err(unwritten)?;
    // It is thrown away unless it is complete.
    copy.execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off").map_err(unwritten)?;
    let backup = Backup::new(&source, &mut copy).map_err(unread)?;
    loop {
        let step = backup.step(PAGES).map_err(unread)?;
        file.sync_data().map_err(failed)?;
        match step {
            StepResult::Done => break,
            StepResult::More => pause(),
            StepResult::Busy | StepResult::Locked | _ => return Err(unread(rusqlite::Error::InvalidQuery)),
        }
    }
    drop(backup);
    // Readers of the copy need no further files then, nor the right to write any.
    copy.execute_batch("PRAGMA synchronous = full; PRAGMA journal_mode = delete").map_err(unwritten)?;
    copy.close().map_err(|(_, error)| unwritten(error))?;
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn sum_and_count(connection: &Connection) -> (i64, i64) {
        let sql = "SELECT coalesce(sum(number), 0), count(*) FROM numbers";
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    /// Each commit adds two rows whose sum is zero, and pages enough for several steps.
    #[test]
    fn a_copy_beside_commits_is_of_one_moment() {
        let folder = otherix_testkit::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let writer = Connection::open(&from).unwrap();
        writer.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE numbers (number INTEGER, data BLOB)").unwrap();
        let add = |number: i64| {
            let sql = "BEGIN; INSERT INTO numbers VALUES (?1, zeroblob(9000)); INSERT INTO numbers VALUES (-?1, NULL)";
            for statement in sql.replace("?1", &number.to_string()).split("; ").chain(["COMMIT"]) {
                writer.execute_batch(statement).unwrap();
            }
        };
        (0..2_000).for_each(add);
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let copy = scope.spawn(|| {
                let copied = copy_database(&from, &to, &mut || {});
                is_done.store(true, Ordering::SeqCst);
                copied
            });
            let mut number = 2_000;
            while !is_done.load(Ordering::SeqCst) {
                add(number);
                number += 1;
            }
            assert!(number > 2_000, "nothing was written meanwhile");
            copy.join().unwrap().unwrap();
        });
        let copy = Connection::open_with_flags(&to, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let (sum, count) = sum_and_count(&copy);
        assert!(sum == 0 && count % 2 == 0 && count >= 4_000, "{sum} {count}");
        assert!(count < sum_and_count(&writer).1, "later commits are not in it");
        let mode: String = copy.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), fs::metadata(&to).unwrap().permissions().mode() & 0o777), ("delete", 0o600));
        assert!(
            matches!(copy_database(&from, &to, &mut || {}), Err(CopyError::Write { .. })),
            "nothing is overwritten"
        );
    }

    #[test]
    fn what_is_no_database_is_not_copied() {
        let folder = otherix_testkit::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
        assert!(matches!(copy_database(&from, &to, &mut || {}), Err(CopyError::Read { .. })));
        fs::write(&from, "this is no database, and never was one").unwrap();
        assert!(matches!(copy_database(&from, &to, &mut || {}), Err(CopyError::Read { .. })));
    }
}
