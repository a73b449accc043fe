//! Case folders: current state, desired state, expected result. Reads them and reports every case that fails; does not
//! interpret the files. `OTHERIX_GENERATE=1` rewrites `expected.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::generated::first_difference;

/// One case: a folder with `current.json`, `desired.json` and `expected.json`.
#[derive(Debug)]
pub struct Case {
    folder: PathBuf,
}

impl Case {
    /// The folder's name.
    ///
    /// # Panics
    /// If the name is not UTF-8.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        name.expect("a case's folder has a UTF-8 name")
    }

    /// The folder, for additional files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads `current.json`.
    ///
    /// # Panics
    /// If it cannot be read as a `T`.
    #[track_caller]
    #[must_use]
    pub fn current<T: DeserializeOwned>(&self) -> T {
        self.read("current.json")
    }

    /// Reads `desired.json`.
    ///
    /// # Panics
    /// If it cannot be read as a `T`.
    #[track_caller]
    #[must_use]
    pub fn desired<T: DeserializeOwned>(&self) -> T {
        self.read("desired.json")
    }

    #[track_caller]
    fn read<T: DeserializeOwned>(&self, file: &str) -> T {
        let path = self.folder.join(file);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => panic!("cannot read `{}`: {error}", path.display()),
        };
        match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => panic!("cannot parse `{}`: {error}", path.display()),
        }
    }

    fn compare(&self, outcome: &Value, generate: bool) -> Result<(), String> {
        let path = self.folder.join("expected.json");
        let outcome = pretty(outcome);
        if generate {
            return fs::write(&path, outcome).map_err(|error| format!("{}: {error}", path.display()));
        }
        let expected = fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let expected = pretty(&expected);
        if expected == outcome {
            return Ok(());
        }
        let difference = first_difference(&outcome, &expected);
        Err(format!("{}: {difference}\nthe whole outcome:\n{outcome}", self.name()))
    }
}

/// Runs `outcome` on every case folder below `folder` and compares what it returns with the case's `expected.json`, as
/// JSON: the layout of the file does not matter.
///
/// # Panics
/// If any case fails, reporting all that do; also if there is no case at all.
#[track_caller]
pub fn for_each_case<T: Serialize>(folder: impl AsRef<Path>, outcome: impl FnMut(&Case) -> T) {
    if let Err(report) = check(folder.as_ref(), outcome, crate::generating()) {
        panic!("{report}\nif this is intended, run the test with OTHERIX_GENERATE=1 and review the changes");
    }
}

fn check<T: Serialize>(folder: &Path, mut outcome: impl FnMut(&Case) -> T, generate: bool) -> Result<(), String> {
    let cases = cases(folder).map_err(|error| format!("cannot list `{}`: {error}", folder.display()))?;
    if cases.is_empty() {
        return Err(format!("there are no cases in `{}`", folder.display()));
    }
    let mut failed = Vec::new();
    for case in &cases {
        let outcome = serde_json::to_value(outcome(case)).expect("an outcome can be written as JSON");
        failed.extend(case.compare(&outcome, generate).err());
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("{} of {} cases fail\n\n{}", failed.len(), cases.len(), failed.join("\n\n")))
}

/// The folders below `folder`, in the order of their names.
fn cases(folder: &Path) -> std::io::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            cases.push(Case { folder: entry.path() });
        }
    }
    cases.sort_by(|one, other| one.folder.cmp(&other.folder));
    Ok(cases)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(folder: &Path, name: &str, expected: &str) {
        let case = folder.join(name);
        fs::create_dir(&case).unwrap();
        fs::write(case.join("current.json"), "1").unwrap();
        fs::write(case.join("desired.json"), "2").unwrap();
        fs::write(case.join("expected.json"), expected).unwrap();
    }

    fn sum(case: &Case) -> u64 {
        case.current::<u64>() + case.desired::<u64>()
    }

    #[test]
    fn reports_exactly_the_failing_cases() {
        let folder = crate::tempdir().unwrap();
        case(folder.path(), "adds-up", " 3 ");
        case(folder.path(), "too-much", "4");
        case(folder.path(), "too-little", "2");

        let report = check(folder.path(), sum, false).unwrap_err();

        assert!(report.contains("2 of 3"), "{report}");
        assert!(report.contains("too-much") && report.contains("too-little"), "{report}");
        assert!(!report.contains("adds-up"), "{report}");
    }

    #[test]
    fn regenerates_expected_results() {
        let folder = crate::tempdir().unwrap();
        case(folder.path(), "changed", "4");

        check(folder.path(), sum, true).unwrap();

        check(folder.path(), sum, false).unwrap();
    }

    #[test]
    fn fails_without_cases() {
        let folder = crate::tempdir().unwrap();
        check(folder.path(), sum, false).unwrap_err();
    }
}
