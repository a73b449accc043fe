//! Generated files that are checked in: compares them, and writes them with `OTHERIX_GENERATE=1` (`make generate`,
//! which runs the tests with `generated` in their names).

use std::{fs, path::Path};

/// Compares the checked-in file at `path` with `contents`.
///
/// A relative path is resolved from the package's folder, where tests run.
///
/// # Panics
/// If they differ, showing the first line that does.
#[track_caller]
pub fn assert_up_to_date(path: impl AsRef<Path>, contents: &str) {
    if let Err(difference) = check(path.as_ref(), contents, crate::generating()) {
        panic!("{difference}\nif the change is intended, run `make generate` and review the result");
    }
}

fn check(path: &Path, contents: &str, generate: bool) -> Result<(), String> {
    let present = fs::read_to_string(path);
    if present.as_deref().is_ok_and(|present| present == contents) {
        return Ok(());
    }
    if generate {
        let folder = path.parent().expect("a file has a folder");
        return fs::create_dir_all(folder)
            .and_then(|()| fs::write(path, contents))
            .map_err(|error| format!("cannot write `{}`: {error}", path.display()));
    }
    match present {
        Ok(present) => {
            let difference = first_difference(&present, contents);
            Err(format!("`{}` is out of date: {difference}", path.display()))
        }
        Err(error) => Err(format!("cannot read `{}`: {error}", path.display())),
    }
}

/// Describes the first difference of two texts: the line's number, and that line of each.
pub(crate) fn first_difference(present: &str, expected: &str) -> String {
    let mut present_lines = present.split('\n');
    let mut expected_lines = expected.split('\n');
    let mut number = 0;
    loop {
        number += 1;
        let (present, expected) = (present_lines.next(), expected_lines.next());
        if present.is_none() && expected.is_none() {
            return "no line differs".to_owned();
        }
        if present != expected {
            let present = present.unwrap_or("(the file ends)");
            let expected = expected.unwrap_or("(the file should end)");
            return format!("line {number}\n    is:        {present}\n    should be: {expected}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_first_differing_line() {
        let folder = crate::tempdir().unwrap();
        let path = folder.path().join("subjects.json");
        fs::write(&path, "a\nb\n").unwrap();

        let report = check(&path, "a\nc\n", false).unwrap_err();

        assert!(report.contains("subjects.json"), "{report}");
        assert!(report.contains("line 2"), "{report}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
    }

    #[test]
    fn reports_missing_file() {
        let folder = crate::tempdir().unwrap();
        let path = folder.path().join("new/folder/file.json");

        check(&path, "x\n", false).unwrap_err();
        check(&path, "x\n", true).unwrap();
        check(&path, "x\n", false).unwrap();
    }

    #[test]
    fn detects_missing_final_newline() {
        assert!(first_difference("a", "a\n").contains("line 2"));
    }
}
