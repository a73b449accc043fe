//! Parses transcripts. A line is
//! - `2 network create …`: the expected exit code and a command line. Arguments are separated by spaces, except within
//!   double quotes; there, `\t`, `\n`, `\e` and `\9` are control characters (the last one is U+009B);
//! - `> text`: a part of stdout; several are found in this order;
//! - `= text`: a line of stdout; these lines are all of it;
//! - `! text`: a part of stderr; several are found in this order;
//! - `~ field …`: the invalid fields, as reported by the program and by the control plane;
//! - `# text`: a comment on the following lines.
//!
//! `{ü*255}` stands for 255 times `ü`, `{id:net-a}` for the id of the network or VM created last with this name, and
//! `{cursor}` for the last cursor of a list.

/// A command line and its expected results.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// File and line.
    pub(crate) location: String,
    pub(crate) code: i32,
    pub(crate) line: String,
    /// Parts of stdout, in order.
    pub(crate) stdout: Vec<String>,
    /// All lines of stdout, if given.
    pub(crate) whole: Option<Vec<String>>,
    /// Parts of stderr, in order.
    pub(crate) stderr: Vec<String>,
    /// The invalid fields, if given.
    pub(crate) fields: Option<Vec<String>>,
}

/// Parses the cases of a transcript.
#[track_caller]
pub(crate) fn read(name: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let location = format!("{name}:{}", number + 1);
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark.is_empty() || mark == "#" {
            continue;
        }
        if let Ok(code) = mark.parse() {
            cases.push(Case { location, code, line: rest.to_owned(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{location}: a command line must come first"));
        let rest = rest.to_owned();
        match mark {
            ">" => case.stdout.push(rest),
            "!" => case.stderr.push(rest),
            "=" => case.whole.get_or_insert_default().push(rest),
            "~" => case.fields = Some(rest.split_whitespace().map(str::to_owned).collect()),
            other => panic!("{location}: unknown mark `{other}`"),
        }
    }
    cases
}

/// Splits a command line into arguments, and replaces `{…}` by the value that `known` returns.
#[track_caller]
pub(crate) fn words(line: &str, known: impl Fn(&str) -> String) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            '\\' if quoted => word.get_or_insert_default().push(match rest.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('e') => '\u{1b}',
                Some('9') => '\u{9b}',
                other => panic!("`\\{other:?}` in `{line}`"),
            }),
            '{' => {
                let inside: String = rest.by_ref().take_while(|&c| c != '}').collect();
                word.get_or_insert_default().push_str(&replaced(&inside, &known));
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    assert!(!quoted, "unterminated quote: {line}");
    words.extend(word);
    words
}

/// Replaces `{…}` in a text.
#[track_caller]
pub(crate) fn filled(text: &str, known: impl Fn(&str) -> String) -> String {
    // A brace in JSON output has no `}` on its line, or nothing inside.
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        filled.push_str(before);
        match behind.split_once('}').filter(|(inside, _)| !inside.is_empty()) {
            Some((inside, after)) => {
                filled.push_str(&replaced(inside, &known));
                rest = after;
            }
            None => {
                filled.push('{');
                rest = behind;
            }
        }
    }
    filled + rest
}

fn replaced(inside: &str, known: &impl Fn(&str) -> String) -> String {
    match inside.split_once('*').map(|(text, times)| (text, times.parse())) {
        Some((text, Ok(times))) => text.repeat(times),
        Some((_, Err(_))) | None => known(inside),
    }
}
