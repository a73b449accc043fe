//! Unified diffs of short texts, line by line.

use std::io::{self, IsTerminal};

/// Lines around a change that are shown.
const CONTEXT: usize = 3;

/// Longest text whose lines are compared one by one. Of a longer one all lines are shown.
const LINES_MAX: usize = 2000;

/// A line of a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// Returns the unified diff of two texts, one line each without the line feed; none if they are equal.
pub(crate) fn unified(names: (&str, &str), old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    if old == new {
        return Vec::new();
    }
    let mut lines = vec![format!("--- {}", names.0), format!("+++ {}", names.1)];
    for hunk in hunks(&compare(&old, &new)) {
        lines.extend(hunk);
    }
    lines
}

/// Returns the lines with colours, if stdout is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
pub(crate) fn coloured(lines: &[String]) -> String {
    let is_coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    lines.iter().map(|line| if is_coloured { colour(line) } else { format!("{line}\n") }).collect()
}

fn colour(line: &str) -> String {
    let code = match line.as_bytes().first() {
        _ if line.starts_with("--- ") || line.starts_with("+++ ") => "1",
        Some(b'-') => "31",
        Some(b'+') => "32",
        Some(b'@') => "36",
        Some(_) | None => return format!("{line}\n"),
    };
    format!("\x1b[{code}m{line}\x1b[0m\n")
}

/// The longest common subsequence, and what is beside it.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    if old.len() > LINES_MAX || new.len() > LINES_MAX {
        let all = old.iter().map(|line| Line::Old(line)).chain(new.iter().map(|line| Line::New(line)));
        return all.collect();
    }
    // `lengths[i][j]` is that of the suffixes from `i` and `j` on, in one row after the other.
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    let at = |lengths: &[u32], i: usize, j: usize| lengths.get(i * width + j).copied().unwrap_or_default();
    for (i, before) in old.iter().enumerate().rev() {
        for (j, after) in new.iter().enumerate().rev() {
            let length = if before == after {
                at(&lengths, i + 1, j + 1) + 1
            } else {
                at(&lengths, i + 1, j).max(at(&lengths, i, j + 1))
            };
            if let Some(cell) = lengths.get_mut(i * width + j) {
                *cell = length;
            }
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    loop {
        match (old.get(i), new.get(j)) {
            (Some(before), Some(after)) if before == after => {
                lines.push(Line::Same(before));
                (i, j) = (i + 1, j + 1);
            }
            (Some(before), after) if after.is_none() || at(&lengths, i + 1, j) >= at(&lengths, i, j + 1) => {
                lines.push(Line::Old(before));
                i += 1;
            }
            (_, Some(after)) => {
                lines.push(Line::New(after));
                j += 1;
            }
            (_, None) => return lines,
        }
    }
}

/// The changed lines with some around them, each hunk with its heading.
fn hunks(lines: &[Line<'_>]) -> Vec<Vec<String>> {
    let is_changed = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| is_changed(line)) {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(lines.len()));
        match ranges.last_mut() {
            Some(last) if from <= last.end => last.end = to,
            _ => ranges.push(from..to),
        }
    }
    let of = |range: &std::ops::Range<usize>| lines.get(range.clone()).unwrap_or_default();
    let count = |lines: &[Line<'_>], old: bool| {
        let is_counted = |line: &&Line<'_>| match line {
            Line::Same(_) => true,
            Line::Old(_) => old,
            Line::New(_) => !old,
        };
        lines.iter().filter(is_counted).count()
    };
    let hunks = ranges.iter().map(|range| {
        let (before, hunk) = (of(&(0..range.start)), of(range));
        let side = |old: bool| {
            let length = count(hunk, old);
            // A range without lines is named by the line before it.
            let first = count(before, old) + usize::from(length > 0);
            if length == 1 { first.to_string() } else { format!("{first},{length}") }
        };
        let heading = format!("@@ -{} +{} @@", side(true), side(false));
        let texts = hunk.iter().map(|line| match line {
            Line::Same(text) => format!(" {text}"),
            Line::Old(text) => format!("-{text}"),
            Line::New(text) => format!("+{text}"),
        });
        [heading].into_iter().chain(texts).collect()
    });
    hunks.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// What `diff -u` says, without its first two lines, which have times.
    fn tool(old: &str, new: &str) -> Vec<String> {
        let folder = otherix_testkit::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        fs::write(&a, old).unwrap();
        fs::write(&b, new).unwrap();
        let output = Command::new("diff").arg("-u").args([&a, &b]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().skip(2).map(str::to_owned).collect()
    }

    #[test]
    fn a_diff_is_that_of_the_tool() {
        let text = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let numbers: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let (mut changed, mut longer) = (numbers.clone(), numbers.clone());
        (changed[3], changed[30]) = ("three", "thirty");
        longer.insert(20, "new");
        for (old, new) in [
            (text(&["a", "b", "c"]), text(&["a", "x", "c"])),
            (String::new(), text(&["a", "b"])),
            (text(&["a"]), String::new()),
            (text(&numbers), text(&changed)),
            (text(&numbers), text(&longer)),
            (text(&longer), text(&numbers)),
        ] {
            let lines = unified(("a", "b"), &old, &new);
            assert_eq!(lines[..2], ["--- a", "+++ b"]);
            assert_eq!(lines[2..], tool(&old, &new));
        }
        assert_eq!(unified(("a", "b"), "x\n", "x\n"), [""; 0]);
    }
}
