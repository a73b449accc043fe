//! Escapes text for a terminal and measures its width there.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Escapes everything that a terminal interprets or that is invisible: control characters, line separators, and the
/// characters that change the writing direction or join words.
pub(crate) fn clean(text: &str) -> String {
    escape(text, |c| c.escape_unicode().to_string())
}

/// The same for JSON text: ASCII control characters in strings are escaped already, and line feeds are formatting.
pub(crate) fn clean_json(json: &str) -> String {
    escape(json, |c| match c {
        '\n' => c.to_string(),
        other => other.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    })
}

fn escape(text: &str, form: impl Fn(char) -> String) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) { clean.push_str(&form(c)) } else { clean.push(c) }
    }
    clean
}

/// Unicode's control (Cc), line and paragraph separators (Zl, Zp), and the format characters (Cf) that hide or reorder
/// text.
pub(super) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The width of a text on a terminal, in columns.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The longest prefix that fits into `columns`.
pub(crate) fn truncate(text: &str, columns: usize) -> String {
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or(0);
        taken <= columns
    };
    text.chars().take_while(fits).collect()
}

/// The text, padded with spaces to `columns`.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{:fill$}", "", fill = columns.saturating_sub(width(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_control_and_invisible_characters() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\rd\u{9b}e"), r"a\u{1b}[2Jb\u{a}c\u{d}d\u{9b}e");
        assert_eq!(clean("x\u{202e}y\u{200b}"), r"x\u{202e}y\u{200b}");
        assert_eq!(clean("größe 网络"), "größe 网络");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"a": "x\u{9b}\u{202e}\u{e0001}\n\u{1b}ü"});
        let text = clean_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| c == '\n' || !is_deceptive(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn measures_display_columns() {
        assert_eq!(width("größe"), 5);
        assert_eq!(width("网络"), 4);
        assert_eq!(width("e\u{301}"), 1);
        assert_eq!(pad("网", 4), "网  ");
        assert_eq!(
            (truncate("网络", 3), truncate("网络", 4), truncate("e\u{301}x", 1)),
            ("网".into(), "网络".into(), "e\u{301}".into())
        );
    }
}
