//! `otherixd backup --into FOLDER`: backups named after the time, of which old ones are deleted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otherix_runtime::{Runtime, SystemRuntime};
use otherix_schemas::timestamp::Timestamp;

use super::work_folder::WorkFolder;
use super::{BackupError, remove_file, write_file};
use crate::args::StateFolder;
use crate::error::BoxError;

const PREFIX: &str = "otherix-";
const SUFFIX: &str = ".tar";

/// All backups that are not older are kept.
const KEEP_ALL: Duration = Duration::from_secs(48 * 3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Writes a backup to the folder, and deletes what is superfluous: before, because the disk may be full of it, and
/// afterwards. Backups that interrupted processes have left behind are removed.
pub(super) async fn backup(folder: &Path, state: &StateFolder, keep_days: u32) -> Result<(), BoxError> {
    let now = SystemRuntime.now()?;
    remove_interrupted(folder)?;
    thin_out(folder, now, keep_days)?;
    write_file(&folder.join(name(now)), state, false).await?;
    thin_out(folder, now, keep_days)?;
    Ok(())
}

/// The name of a backup, such as `otherix-20261130T094524Z.tar`.
fn name(time: Timestamp) -> String {
    let second = time.to_string().chars().take("2026-11-30T09:45:24".len()).collect::<String>();
    format!("{PREFIX}{}Z{SUFFIX}", second.replace(['-', ':'], ""))
}

/// The time in the name of a backup; `None` for other files.
fn time(file: &str) -> Option<Timestamp> {
    let digits = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let part = |range| digits.get(range).unwrap_or_default();
    let (date, clock) = ([part(0..4), part(4..6), part(6..8)], [part(9..11), part(11..13), part(13..15)]);
    let time: Timestamp = format!("{}T{}Z", date.join("-"), clock.join(":")).parse().ok()?;
    (name(time) == file).then_some(time)
}

/// Deletes backups that are not kept.
fn thin_out(folder: &Path, now: Timestamp, keep_days: u32) -> Result<(), BackupError> {
    let times: BTreeSet<Timestamp> = files(folder)?.iter().filter_map(|file| time(file)).collect();
    for time in superfluous(&times, now, keep_days) {
        let file = folder.join(name(time));
        remove_file(&file)?;
        tracing::info!(file = %file.display(), "deleted an old backup");
    }
    Ok(())
}

/// The backups that are neither of the last 48 hours, nor the last one of one of the last days, in UTC. The newest one
/// is always kept, and so are those of the future.
fn superfluous(times: &BTreeSet<Timestamp>, now: Timestamp, keep_days: u32) -> Vec<Timestamp> {
    let day = |time: Timestamp| time.unix_micros().div_euclid(micros(DAY));
    let is_last_of_day = |time: Timestamp| times.range(time..).nth(1).is_none_or(|next| day(*next) != day(time));
    let is_kept = |time: Timestamp| {
        let age = now.unix_micros() - time.unix_micros();
        age <= micros(KEEP_ALL)
            || times.last() == Some(&time)
            || (is_last_of_day(time) && age <= micros(DAY).saturating_mul(keep_days.into()))
    };
    times.iter().copied().filter(|time| !is_kept(*time)).collect()
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Removes the work folders of backups that were interrupted.
fn remove_interrupted(folder: &Path) -> Result<(), BackupError> {
    let interrupted = files(folder)?;
    for name in interrupted.iter().filter(|name| name.strip_suffix(".part").is_some_and(|name| time(name).is_some())) {
        match WorkFolder::create(&folder.join(name)) {
            // Another process is writing it.
            Err(BackupError::InUse(_)) => {}
            found => {
                found?.remove()?;
                tracing::warn!(name, "removed what an interrupted backup had left behind");
            }
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<String>, BackupError> {
    let failed = |source| BackupError::file("read", folder, source);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>().map_err(failed)?;
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn names_tell_the_time() {
        let noon = at("2026-11-30T12:00:01Z");
        assert_eq!(name(noon), "otherix-20261130T120001Z.tar");
        assert_eq!(time("otherix-20261130T120001Z.tar"), Some(noon));
        for other in [
            "otherix-20261130T120001Z.tar.part",
            "otherix-2026113AT120001Z.tar",
            "otherix-20261130T126001Z.tar",
            "otherix-20261130 120001Z.tar",
            "otherix-20261130T120001Z1.tar",
            "otherix-.tar",
            "otherix-\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}.tar",
            "before-upgrade.tar",
        ] {
            assert_eq!(time(other), None, "{other}");
        }
    }

    #[test]
    fn two_days_of_backups_are_kept_and_one_of_each_day_before() {
        let now = at("2026-11-30T12:30:00Z");
        let hour = |hours: i64| Timestamp::from_unix_micros(now.unix_micros() - hours * 3_600_000_000).unwrap();
        let all: BTreeSet<_> = (0..24 * 30).map(hour).collect();
        let deleted = superfluous(&all, now, 14);
        let kept: Vec<_> = all.iter().copied().filter(|time| !deleted.contains(time)).collect();
        // 49 of 48 hours; of the 13 or 14 days before, the last one of each.
        let (recent, older): (Vec<_>, Vec<_>) = kept.iter().partition(|time| **time >= hour(48));
        assert_eq!(recent.len(), 49);
        let last: Vec<String> = older.iter().map(Timestamp::to_string).collect();
        assert!(last.iter().all(|time| time.contains("T23:30")), "{last:?}");
        assert_eq!((older.len(), last[0].get(..10)), (12, Some("2026-11-16")));
        // Thinned out again and again, as every hour, the same remain.
        assert_eq!(superfluous(&kept.into_iter().collect(), now, 14), []);
    }

    #[test]
    fn the_newest_is_kept_however_old_it_is() {
        let times = BTreeSet::from([at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z")]);
        assert_eq!(superfluous(&times, at("2026-11-30T00:00:00Z"), 14), [at("2026-01-01T00:00:00Z")]);
        // The clock was ahead once.
        let future = BTreeSet::from([at("2027-01-01T00:00:00Z"), at("2027-01-01T00:00:01Z")]);
        assert_eq!(superfluous(&future, at("2026-11-30T00:00:00Z"), 14), []);
    }
}
