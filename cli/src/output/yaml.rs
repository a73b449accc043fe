//! Writes YAML: scalars, and several documents in one stream.

use super::text::is_deceptive;

/// Words that some YAML readers take for a value other than a string (YAML 1.1, types `bool` and `null`).
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Joins documents into one stream.
pub(crate) fn documents(documents: impl Iterator<Item = String>) -> String {
    documents.collect::<Vec<_>>().join("---\n")
}

/// A string scalar, quoted unless every YAML reader takes the plain form for a string.
pub(crate) fn scalar(text: &str) -> String {
    let letter_first = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let word = WORDS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if letter_first && text.chars().all(harmless) && !word { text.to_owned() } else { quote(text) }
}

/// The double-quoted style (YAML 1.2.2, section 7.3.1) on one line. Invisible characters and those that readers refuse
/// are escaped.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Noncharacters, which are not printable in YAML (section 5.1).
            '\u{fffe}' | '\u{ffff}' => escape(c, &mut quoted),
            c if is_deceptive(c) => escape(c, &mut quoted),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn escape(c: char, to: &mut String) {
    let code = u32::from(c);
    to.push_str(&if code > 0xffff { format!("\\U{code:08x}") } else { format!("\\u{code:04x}") });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_ambiguous_scalars() {
        for plain in ["net-dev", "a", "br_0", "yess", "v1.2", "Null-a"] {
            assert_eq!(scalar(plain), plain);
        }
        for (text, quoted) in [
            ("yes", "\"yes\""),
            ("NULL", "\"NULL\""),
            ("1", "\"1\""),
            ("1e3", "\"1e3\""),
            (".inf", "\".inf\""),
            ("~", "\"~\""),
            ("-", "\"-\""),
            ("---", "\"---\""),
            ("a: b", "\"a: b\""),
            ("#x", "\"#x\""),
            ("a #b", "\"a #b\""),
            ("*a", "\"*a\""),
            ("a\"\\b", r#""a\"\\b""#),
            ("网络", "\"网络\""),
            ("a\u{202e}b\u{e0001}\u{ffff}", r#""a\u202eb\U000e0001\uffff""#),
        ] {
            assert_eq!(scalar(text), quoted);
        }
    }
}
