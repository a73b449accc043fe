//! The messages of the protocol.

use serde_json::{Value, json};

/// What the machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    Running,
    /// Stopped by command.
    Paused,
    /// Set up, and not yet started.
    Prelaunch,
    /// The guest has powered off; the process waits.
    Shutdown,
    /// The guest's kernel has panicked; the process waits.
    GuestPanicked,
    /// A disk's error has stopped it, for example a full file system of the host.
    IoError,
    /// Anything else, by QEMU's name, of at most 32 bytes.
    Other(String),
}

impl RunState {
    pub(super) fn from_name(name: &str) -> Self {
        match name {
            "running" => Self::Running,
            "paused" => Self::Paused,
            "prelaunch" => Self::Prelaunch,
            "shutdown" => Self::Shutdown,
            "guest-panicked" => Self::GuestPanicked,
            "io-error" => Self::IoError,
            other => Self::Other(bounded(other, 32)),
        }
    }
}

/// Why a machine was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownReason {
    /// The guest powered off.
    Guest,
    /// A command or a signal from outside.
    Host,
}

/// Events that concern a VM's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QmpEvent {
    Shutdown(ShutdownReason),
    /// The power button was pressed.
    PowerDown,
    /// By the guest or by command.
    Reset,
    GuestPanicked,
    Stopped,
    Resumed,
    /// A disk could not be read or written.
    BlockIoError,
}

/// A line from QEMU.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Greeting,
    Event(QmpEvent),
    OtherEvent,
    Answer {
        id: u64,
        /// Or class and description of an error.
        result: Result<Value, (String, String)>,
    },
}

/// Longest description of an error that is kept, in bytes.
const DESCRIPTION_MAX: usize = 512;

pub(super) fn request(command: &str, id: u64) -> Vec<u8> {
    let mut line = json!({"execute": command, "id": id}).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Parses a line; the error says what is wrong, with the beginning of it.
pub(super) fn parse(line: &[u8]) -> Result<Message, String> {
    let malformed = || bounded(&String::from_utf8_lossy(line), 100);
    let message: Value = serde_json::from_slice(line).map_err(|_| malformed())?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    if let Some(name) = text(message.get("event")) {
        let is_guest = message.pointer("/data/guest").and_then(Value::as_bool).unwrap_or(false);
        return Ok(event(&name, is_guest).map_or(Message::OtherEvent, Message::Event));
    }
    if message.get("QMP").is_some() {
        return Ok(Message::Greeting);
    }
    // QEMU answers without an id to what it could not parse. All that is sent here has one, above 0.
    let id = message.get("id").and_then(Value::as_u64).unwrap_or(0);
    if let Some(result) = message.get("return") {
        return Ok(Message::Answer { id, result: Ok(result.clone()) });
    }
    let error = message.get("error").ok_or_else(malformed)?;
    let class = text(error.get("class")).unwrap_or_default();
    let description = text(error.get("desc")).unwrap_or_default();
    Ok(Message::Answer { id, result: Err((bounded(&class, 64), bounded(&description, DESCRIPTION_MAX))) })
}

fn event(name: &str, is_guest: bool) -> Option<QmpEvent> {
    Some(match name {
        "SHUTDOWN" => QmpEvent::Shutdown(if is_guest { ShutdownReason::Guest } else { ShutdownReason::Host }),
        "POWERDOWN" => QmpEvent::PowerDown,
        "RESET" => QmpEvent::Reset,
        "GUEST_PANICKED" => QmpEvent::GuestPanicked,
        "STOP" => QmpEvent::Stopped,
        "RESUME" => QmpEvent::Resumed,
        "BLOCK_IO_ERROR" => QmpEvent::BlockIoError,
        _ => return None,
    })
}

/// At most `max` bytes of a text, without control characters.
fn bounded(text: &str, max: usize) -> String {
    let mut kept = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if kept.len() + character.len_utf8() > max {
            break;
        }
        kept.push(character);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_what_qemu_sends() {
        let cases = [
            (r#"{"QMP": {"version": {"qemu": {"micro": 22}}, "capabilities": ["oob"]}}"#, Message::Greeting),
            (
                r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#,
                Message::Event(QmpEvent::Shutdown(ShutdownReason::Guest)),
            ),
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}"#,
                Message::Event(QmpEvent::Shutdown(ShutdownReason::Host)),
            ),
            (r#"{"event": "RTC_CHANGE", "data": {"offset": 1}}"#, Message::OtherEvent),
            (r#"{"return": {}, "id": 7}"#, Message::Answer { id: 7, result: Ok(json!({})) }),
            (
                r#"{"id": 7, "error": {"class": "GenericError", "desc": "no\u001b[31m"}}"#,
                Message::Answer { id: 7, result: Err(("GenericError".into(), "no[31m".into())) },
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line.as_bytes()), Ok(expected), "{line}");
        }
        assert_eq!(parse(b"{}"), Err("{}".to_owned()));
        assert_eq!(parse(&vec![b'['; 60_000]), Err("[".repeat(100)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _result = parse(&line);
        }
    }
}
