//! Reading transcripts. A line is
//! - `2 network create …`: a command line, and before it the exit code it must end with. Words are split at spaces unless in
//!   double quotes; in quotes `\t`, `\n`, `\e` and `\9` are control characters (the last one is U+009B);
//! - `> text`: a part of stdout; several come in this order;
//! - `= text`: a whole line of stdout; these lines are all there is;
//! - `! text`: a part of stderr; several come in this order;
//! - `~ field …`: all fields that break rules, in the program's and in the control plane's eyes;
//! - `# text`: what the following lines are about.
//!
//! `{ü*255}` stands for 255 times `ü`; `{id:net-a}` for the id of the network or VM that was created with this name last;
//! `{cursor}` for the cursor that a list ended with last.

/// A command line and what must come of it.
#[derive(Debug, Default)]
pub(crate) struct Case {
    /// Where it stands.
    pub(crate) place: String,
    /// The exit code.
    pub(crate) code: i32,
    /// The command line.
    pub(crate) line: String,
    /// Parts of stdout.
    pub(crate) stdout: Vec<String>,
    /// All lines of stdout.
    pub(crate) whole: Option<Vec<String>>,
    /// Parts of stderr.
    pub(crate) stderr: Vec<String>,
    /// The fields that break rules.
    pub(crate) fields: Option<Vec<String>>,
}

/// All cases of a transcript.
#[track_caller]
pub(crate) fn read(name: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark.is_empty() || mark == "#" {
            continue;
        }
        if let Ok(code) = mark.parse() {
            cases.push(Case { place, code, line: rest.to_owned(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{place}: a command comes first"));
        let rest = rest.to_owned();
        match mark {
            ">" => case.stdout.push(rest),
            "!" => case.stderr.push(rest),
            "=" => case.whole.get_or_insert_default().push(rest),
            "~" => case.fields = Some(rest.split_whitespace().map(str::to_owned).collect()),
            other => panic!("{place}: `{other}` is no mark"),
        }
    }
    cases
}

/// The words of a command line, with `{…}` replaced by what `known` says.
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
    assert!(!quoted, "a quote is not closed: {line}");
    words.extend(word);
    words
}

/// A text with `{…}` replaced.
#[track_caller]
pub(crate) fn filled(text: &str, known: impl Fn(&str) -> String) -> String {
    // A brace of JSON has no `}` on its line, or something else inside.
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
