//! What a guest wrote, for a terminal that is not the guest's: without what a terminal obeys. Pure.

use crate::output::text::clean;

/// Removes escape sequences and carriage returns, and escapes other control characters, also where they span pieces.
#[derive(Debug, Default)]
pub(super) struct Harmless {
    state: State,
    /// The beginning of a character that is not complete yet.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// In `ESC [ … letter`.
    Sequence,
    /// In `ESC ] … BEL`, and the like.
    Command,
}

impl Harmless {
    /// The text of the next piece.
    pub(super) fn text(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(piece);
        let complete = bytes.len() - incomplete(&bytes);
        self.partial = bytes.split_off(complete);
        let mut text = String::with_capacity(bytes.len());
        for character in String::from_utf8_lossy(&bytes).chars() {
            self.add(character, &mut text);
        }
        text
    }

    fn add(&mut self, character: char, text: &mut String) {
        self.state = match (self.state, character) {
            // Also within a sequence: it begins another one.
            (_, '\u{1b}') => State::Escape,
            (State::Text | State::Escape | State::Sequence, '\n') => {
                text.push('\n');
                State::Text
            }
            (State::Text, '\r') => State::Text,
            (State::Text, '\t') => {
                text.push('\t');
                State::Text
            }
            (State::Text, other) => {
                text.push_str(&clean(other.encode_utf8(&mut [0; 4])));
                State::Text
            }
            (State::Escape, '[') => State::Sequence,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => State::Command,
            // `ESC ( B` and the like have one more character.
            (State::Escape, ' '..='/') => State::Escape,
            (State::Escape, _) => State::Text,
            (State::Sequence, '\u{40}'..='\u{7e}') => State::Text,
            (State::Sequence, _) => State::Sequence,
            (State::Command, '\u{7}' | '\n') => State::Text,
            (State::Command, _) => State::Command,
        };
    }
}

/// How many of the last bytes may be the beginning of a character.
fn incomplete(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => 0,
        Err(error) => match error.error_len() {
            None => bytes.len() - error.valid_up_to(),
            // What is wrong is in the middle: look at the end alone.
            Some(_) => (1..=3.min(bytes.len()))
                .find(|length| {
                    let end = bytes.get(bytes.len() - length..).unwrap_or_default();
                    std::str::from_utf8(end).is_err_and(|error| error.error_len().is_none() && error.valid_up_to() == 0)
                })
                .unwrap_or(0),
        },
    }
}

/// The last lines of a text; the last one may have no end.
pub(super) fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return &[];
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let begin = ends.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0);
    bytes.get(begin..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut harmless = Harmless::default();
        pieces.iter().map(|piece| harmless.text(piece)).collect()
    }

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        assert_eq!(shown(&[b"a\r\n\tb\n"]), "a\n\tb\n");
        assert_eq!(shown(&[b"\x1b[1;31mred\x1b[0m \x1b[6n"]), "red ");
        assert_eq!(shown(&[b"\x1b]0;title\x07text\x1b(Bx\x1bcy"]), "text\u{78}y");
        assert_eq!(shown(&[b"\x1b]52;c;aGk=\x1b\\z"]), "z");
        assert_eq!(shown(&[b"\x07\x00\x9b"]), "\\u{7}\\u{0}\u{fffd}");
        assert_eq!(shown(&["\u{202e}x\u{9b}y".as_bytes()]), "\\u{202e}x\\u{9b}y");
    }

    #[test]
    fn pieces_may_end_anywhere() {
        let whole = "é\x1b[31m網\x1b]0;t\x07路\r\n\u{1f600}".as_bytes();
        let once = shown(&[whole]);
        assert_eq!(once, "é網路\n\u{1f600}");
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(shown(&bytes), once);
        assert_eq!(shown(&[b"\xff\xe7", "網".as_bytes().get(1..).unwrap()]), "\u{fffd}網");
    }

    #[test]
    fn last_lines_are_whole() {
        let text = b"a\nb\nc";
        assert_eq!(
            (last_lines(text, 0), last_lines(text, 1), last_lines(text, 2)),
            (&b""[..], &b"c"[..], &b"b\nc"[..])
        );
        assert_eq!(
            (last_lines(b"a\nb\n", 1), last_lines(b"a\nb\n", 9), last_lines(b"", 3)),
            (&b"b\n"[..], &b"a\nb\n"[..], &b""[..])
        );
    }
}
