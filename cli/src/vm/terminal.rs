//! The terminal of whoever uses a console: raw while it is used, and as before afterwards, however that ends.

use std::io::{self, IsTerminal, Read};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Pieces of input that may wait.
const QUEUE: usize = 16;

/// Makes the terminal of stdin raw until it is dropped: also by a panic, and by a signal, which ends the command.
pub(super) struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` if stdin is no terminal.
    ///
    /// # Errors
    /// If the terminal cannot be changed.
    pub(super) fn begin() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Whoever has taken the terminal away needs it no more.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Reads stdin on a thread of its own, which ends with the process: nothing can interrupt it. Ends at the end of stdin.
pub(super) fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        loop {
            let read = match io::stdin().lock().read(&mut bytes) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let Some(piece) = bytes.get(..read).filter(|piece| !piece.is_empty()) else { return };
            if sender.blocking_send(piece.to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The key that ends a console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EscapeKey(Option<u8>);

/// Parses `^]`, a single character, or `none`.
pub(super) fn parse_escape(text: &str) -> Result<EscapeKey, String> {
    match *text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(EscapeKey(Some(byte))),
        [b'^', byte @ b'@'..=b'_'] => Ok(EscapeKey(Some(byte - b'@'))),
        [b'^', byte @ b'a'..=b'z'] => Ok(EscapeKey(Some(byte - b'`'))),
        _ if text == "none" => Ok(EscapeKey(None)),
        _ => Err("must be a control key such as ^], a single character, or none".to_owned()),
    }
}

impl EscapeKey {
    pub(super) fn is_in(self, typed: &[u8]) -> bool {
        self.0.is_some_and(|key| typed.contains(&key))
    }

    pub(super) fn describe(self) -> String {
        match self.0 {
            Some(byte @ 0..=0x1f) => format!("Ctrl-{} ends", char::from(byte + b'@')),
            Some(byte) => format!("`{}` ends", char::from(byte)),
            None => "end it by closing the terminal".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_keys_are_parsed() {
        for (text, key) in [("^]", Some(0x1d)), ("^a", Some(1)), ("^A", Some(1)), ("~", Some(b'~')), ("none", None)] {
            assert_eq!(parse_escape(text), Ok(EscapeKey(key)), "{text}");
        }
        for bad in ["", "^", "^1", "^]]", "ab", "ä"] {
            assert_eq!(parse_escape(bad).is_ok(), bad == "^", "{bad}");
        }
        let key = parse_escape("^]").unwrap();
        assert_eq!((key.is_in(b"ab\x1dc"), key.is_in(b"abc")), (true, false));
        assert!(!parse_escape("none").unwrap().is_in(b"\x1d"));
        assert_eq!(key.describe(), "Ctrl-] ends");
    }
}
