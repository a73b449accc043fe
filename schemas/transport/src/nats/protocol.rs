//! The NATS client protocol: parses what a server sends, and encodes what a client sends. No I/O.
//!
//! Written for servers that pass on whatever other clients have sent: subjects and headers may hold any bytes. A
//! message is returned with its headers as they arrived; they are parsed when it is used, so that malformed ones
//! concern that message alone.
//!
//! Reference: docs.nats.io, "Client Protocol".

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::credentials::Authentication;
use crate::transport::{Headers, HeadersError, Message};

/// Longest line of the protocol, in bytes. Subjects are limited by the server's `max_control_line`, 4 KiB by default;
/// its `INFO` lists the addresses of a cluster.
const LINE_MAX: usize = 64 * 1024;

/// Largest headers and payload together, in bytes: `max_payload` of a server is at most 64 MiB.
const MESSAGE_MAX: usize = 64 * 1024 * 1024;

/// What headers begin with.
const VERSION: &[u8] = b"NATS/1.0";

/// What a server announces about itself; the fields that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServerInfo {
    /// Largest headers and payload together, in bytes.
    pub(super) max_payload: usize,
    pub(super) tls_required: bool,
    pub(super) tls_available: bool,
    /// What a client with a key signs, to prove that it has it.
    pub(super) nonce: Option<String>,
}

/// What a client announces about itself.
#[derive(Debug, Serialize)]
pub(super) struct Connect<'a> {
    pub(super) verbose: bool,
    pub(super) pedantic: bool,
    #[serde(flatten)]
    pub(super) authentication: Authentication,
    /// The connection is encrypted.
    pub(super) tls_required: bool,
    pub(super) name: &'a str,
    pub(super) lang: &'static str,
    pub(super) version: &'static str,
    pub(super) protocol: u8,
    pub(super) headers: bool,
    pub(super) no_responders: bool,
}

/// A message as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawMessage {
    pub(super) subject: Bytes,
    /// The subscription that it is for.
    pub(super) subscription: u64,
    pub(super) reply: Option<Bytes>,
    /// None if it has none.
    pub(super) headers: Option<Bytes>,
    pub(super) payload: Bytes,
}

/// What a server sends.
#[derive(Clone, Debug)]
pub(super) enum ServerOp {
    Info(Box<ServerInfo>),
    Message(RawMessage),
    Ping,
    Pong,
    Ok,
    /// The text of an error.
    Error(String),
}

/// The server sent what is no NATS protocol. The connection cannot be used any more.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtocolError {
    #[error("a line is longer than {LINE_MAX} bytes")]
    LineTooLong,
    #[error("`{0}` is no operation of the NATS protocol")]
    UnknownOperation(String),
    #[error("`{0}` has malformed arguments")]
    Arguments(String),
    #[error("a message of {0} bytes exceeds {MESSAGE_MAX} bytes")]
    MessageTooLarge(usize),
    #[error("a message does not end where its length says")]
    MessageEnd,
    #[error("the server's INFO is malformed")]
    Info,
}

/// Parses what arrives on one connection.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The message whose headers and payload are to follow.
    pending: Option<PendingMessage>,
    /// How much of the buffer was searched for the end of a line.
    searched: usize,
}

#[derive(Debug)]
struct PendingMessage {
    subject: Bytes,
    subscription: u64,
    reply: Option<Bytes>,
    /// Length of the headers; none in a message without.
    headers: Option<usize>,
    /// Length of headers and payload.
    total: usize,
}

impl Parser {
    /// Takes the next operation from the front of `buffer`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError`]: the rest of the connection cannot be understood.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<ServerOp>, ProtocolError> {
        loop {
            if let Some(pending) = &self.pending {
                let total = pending.total;
                if buffer.len() < total + 2 {
                    buffer.reserve(total + 2 - buffer.len());
                    return Ok(None);
                }
                return self.pending.take().map(|pending| pending.complete(buffer)).transpose();
            }
            let Some(line) = self.line(buffer)? else { return Ok(None) };
            if let Some(op) = self.operation(line)? {
                return Ok(Some(op));
            }
        }
    }

    /// Takes a line from the front, without its end.
    fn line(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let end = buffer.iter().skip(self.searched).position(|byte| *byte == b'\n').map(|at| at + self.searched);
        let Some(end) = end else {
            self.searched = buffer.len();
            return if buffer.len() > LINE_MAX { Err(ProtocolError::LineTooLong) } else { Ok(None) };
        };
        self.searched = 0;
        let mut line = buffer.split_to(end + 1).freeze();
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line))
    }

    /// Parses a line. `None` if it begins a message.
    fn operation(&mut self, line: Bytes) -> Result<Option<ServerOp>, ProtocolError> {
        let (name, arguments) = split_operation(&line);
        Ok(Some(match name.to_ascii_uppercase().as_slice() {
            b"MSG" | b"HMSG" => {
                let has_headers = name.len() == 4;
                self.pending = Some(PendingMessage::parse(&arguments, has_headers).ok_or_else(|| malformed(&line))??);
                return Ok(None);
            }
            b"PING" => ServerOp::Ping,
            b"PONG" => ServerOp::Pong,
            b"+OK" => ServerOp::Ok,
            b"-ERR" => {
                let text = String::from_utf8_lossy(&arguments);
                ServerOp::Error(text.trim_matches([' ', '\t', '\'']).to_owned())
            }
            b"INFO" => ServerOp::Info(serde_json::from_slice(&arguments).map_err(|_| ProtocolError::Info)?),
            _ => return Err(ProtocolError::UnknownOperation(shown(name))),
        }))
    }
}

impl PendingMessage {
    /// Parses `<subject> <sid> [reply] [#headers] <#total>`.
    fn parse(arguments: &Bytes, has_headers: bool) -> Option<Result<Self, ProtocolError>> {
        let fields: Vec<&[u8]> =
            arguments.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty()).collect();
        let lengths = if has_headers { 2 } else { 1 };
        let (names, lengths) = fields.split_at_checked(fields.len().checked_sub(lengths)?)?;
        let (subject, subscription, reply) = match names {
            [subject, subscription] => (subject, subscription, None),
            [subject, subscription, reply] => (subject, subscription, Some(arguments.slice_ref(reply))),
            _ => return None,
        };
        let total: usize = number(lengths.last()?)?;
        let headers = if has_headers { Some(number(lengths.first()?)?) } else { None };
        if headers.is_some_and(|headers| headers > total) {
            return None;
        }
        if total > MESSAGE_MAX {
            return Some(Err(ProtocolError::MessageTooLarge(total)));
        }
        let (subject, subscription) = (arguments.slice_ref(subject), number(subscription)?);
        Some(Ok(Self { subject, subscription, reply, headers, total }))
    }

    /// Takes headers, payload and the line's end from the front of `buffer`, which has them.
    fn complete(self, buffer: &mut BytesMut) -> Result<ServerOp, ProtocolError> {
        let Self { subject, subscription, reply, headers, total } = self;
        let headers = headers.map(|length| buffer.split_to(length).freeze());
        let payload = buffer.split_to(total - headers.as_ref().map_or(0, Bytes::len)).freeze();
        if !buffer.starts_with(b"\r\n") {
            return Err(ProtocolError::MessageEnd);
        }
        buffer.advance(2);
        Ok(ServerOp::Message(RawMessage { subject, subscription, reply, headers, payload }))
    }
}

fn split_operation(line: &Bytes) -> (&[u8], Bytes) {
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    (line.get(..end).unwrap_or_default(), line.slice(end..))
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Where `part` begins in `bytes`.
fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn malformed(line: &[u8]) -> ProtocolError {
    ProtocolError::Arguments(shown(line))
}

/// The beginning of what a server sent, for an error message.
fn shown(bytes: &[u8]) -> String {
    let beginning = bytes.get(..bytes.len().min(64)).unwrap_or_default();
    String::from_utf8_lossy(beginning).escape_debug().to_string()
}

impl RawMessage {
    /// The status with which a server answers by itself: 503 if there is no subscription for a request.
    pub(super) fn status(&self) -> Option<u16> {
        let headers = self.headers.as_ref()?;
        let first = headers.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let status = first.strip_prefix(VERSION)?.trim_ascii();
        number(status.get(..3)?)
    }

    /// The number of the client that sent it, if the server names it because the message crossed accounts; else 0.
    ///
    /// The server's header is the last line: what a client sends in another header's value, or as a header of the same
    /// name, precedes it.
    pub(super) fn sender(&self) -> u64 {
        let number = || {
            let headers = self.headers.as_ref()?;
            let last = headers.strip_suffix(b"\r\n\r\n")?;
            let line = last.get(last.iter().rposition(|byte| *byte == b'\n')? + 1..)?;
            let info = line.strip_prefix(b"Nats-Request-Info:")?;
            let id = info.get(find(info, b"\"id\":")? + 5..)?;
            number(id.get(..id.iter().position(|byte| !byte.is_ascii_digit())?)?)
        };
        number().unwrap_or(0)
    }

    /// Parses the headers.
    ///
    /// # Errors
    /// [`HeadersError`].
    pub(super) fn headers(&self) -> Result<Headers, HeadersError> {
        self.headers.as_deref().map_or_else(|| Ok(Headers::new()), parse_headers)
    }

    /// The reply subject, if a message can be published on it.
    pub(super) fn reply(&self) -> Option<String> {
        let reply = std::str::from_utf8(self.reply.as_ref()?).ok()?;
        is_subject(reply).then(|| reply.to_owned())
    }

    /// The message, with those of its parts that are not valid UTF-8 replaced.
    ///
    /// # Errors
    /// If the headers are malformed.
    pub(super) fn message(self) -> Result<Message, HeadersError> {
        let (headers, reply) = (self.headers()?, self.reply());
        Ok(Message {
            subject: String::from_utf8_lossy(&self.subject).into_owned(),
            reply,
            headers,
            payload: self.payload,
        })
    }
}

/// Parses headers: a version line, which may have a status, then lines `Name: value`, then an empty line.
fn parse_headers(bytes: &[u8]) -> Result<Headers, HeadersError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HeadersError::Utf8)?;
    let lines = text.strip_suffix("\r\n\r\n").ok_or(HeadersError::End)?;
    let mut lines = lines.split("\r\n");
    let version = lines.next().unwrap_or_default().as_bytes();
    if !version.starts_with(VERSION) {
        return Err(HeadersError::Version);
    }
    let mut headers = Headers::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HeadersError::Line)?;
        headers.append(name, value.trim_matches([' ', '\t']))?;
    }
    Ok(headers)
}

/// Returns whether a message can be published on `subject` by this protocol, in which white space separates arguments.
pub(super) fn is_subject(subject: &str) -> bool {
    !subject.is_empty() && !subject.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
}

/// Appends a published message.
pub(super) fn publish(message: &Message, out: &mut Vec<u8>) {
    let Message { subject, reply, headers, payload } = message;
    let (name, reply) = (if headers.is_empty() { "PUB" } else { "HPUB" }, reply.as_deref());
    for part in [name, " ", subject, " ", reply.unwrap_or_default(), if reply.is_some() { " " } else { "" }] {
        out.extend_from_slice(part.as_bytes());
    }
    if !headers.is_empty() {
        let length = encoded_length(headers);
        decimal(length, out);
        out.push(b' ');
        decimal(length + payload.len(), out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(VERSION);
        out.extend_from_slice(b"\r\n");
        for (name, value) in headers.iter() {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    } else {
        decimal(payload.len(), out);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Bytes of headers and payload, as the server's `max_payload` counts them.
pub(super) fn size(message: &Message) -> usize {
    let headers = if message.headers.is_empty() { 0 } else { encoded_length(&message.headers) };
    headers + message.payload.len()
}

fn encoded_length(headers: &Headers) -> usize {
    let lines: usize = headers.iter().map(|(name, value)| name.len() + 2 + value.len() + 2).sum();
    VERSION.len() + 2 + lines + 2
}

/// Appends a subscription.
pub(super) fn subscribe(subject: &str, queue_group: Option<&str>, subscription: u64, out: &mut Vec<u8>) {
    for part in ["SUB ", subject, " ", queue_group.unwrap_or_default(), if queue_group.is_some() { " " } else { "" }] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(subscription.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a subscription.
pub(super) fn unsubscribe(subscription: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("UNSUB {subscription}\r\n").as_bytes());
}

fn decimal(number: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}
