use bytes::{Bytes, BytesMut};

use super::protocol::*;
use crate::transport::{Headers, HeadersError, Message};

/// Parses what arrives, in parts of `size` bytes. Returns the operations, in their debug form.
fn parse(arriving: &[u8], size: usize) -> Result<Vec<String>, ProtocolError> {
    let (mut parser, mut buffer, mut found) = (Parser::default(), BytesMut::new(), Vec::new());
    for part in arriving.chunks(size) {
        buffer.extend_from_slice(part);
        while let Some(op) = parser.next(&mut buffer)? {
            found.push(format!("{op:?}"));
        }
    }
    Ok(found)
}

fn message(arriving: &[u8]) -> RawMessage {
    match Parser::default().next(&mut BytesMut::from(arriving)).unwrap().unwrap() {
        ServerOp::Message(message) => message,
        other @ (ServerOp::Info(_) | ServerOp::Ping | ServerOp::Pong | ServerOp::Ok | ServerOp::Error(_)) => {
            panic!("{other:?}")
        }
    }
}

/// A message with these headers and the payload `x`.
fn with_headers(headers: &[u8]) -> RawMessage {
    let mut arriving = format!("HMSG a 1 {} {}\r\n", headers.len(), headers.len() + 1).into_bytes();
    arriving.extend_from_slice(headers);
    arriving.extend_from_slice(b"x\r\n");
    message(&arriving)
}

#[test]
fn operations_are_found_however_the_bytes_arrive() {
    let arriving: &[u8] = b"INFO {\"max_payload\":1048576,\"other\":[1]}\r\n+OK\r\nPING\r\npong\r\n\
        MSG a.b 7 3\r\n\r\n\n\r\nMSG a 8 _INBOX.1 0\r\n\r\n\
        HMSG a\t9 _INBOX.2  19 21\r\nNATS/1.0\r\nA: bc\r\n\r\nxy\r\n-ERR 'Unknown Protocol Operation'\r\n";
    let whole = parse(arriving, arriving.len()).unwrap();
    assert_eq!(whole.len(), 8, "{whole:#?}");
    for size in 1..arriving.len() {
        assert_eq!(parse(arriving, size).unwrap(), whole, "{size}");
    }
    assert!(whole[7].contains("Error(\"Unknown Protocol Operation\")"), "{}", whole[7]);
}

#[test]
fn a_connection_that_does_not_follow_the_protocol_is_given_up() {
    use ProtocolError::{Arguments, Info, LineTooLong, MessageEnd, MessageTooLarge, UnknownOperation};
    for (arriving, expected) in [
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), UnknownOperation("HTTP/1.1".to_owned())),
        (b"MSG a 1\r\n".to_vec(), Arguments("MSG a 1".to_owned())),
        (b"MSG a 1 -1\r\n".to_vec(), Arguments("MSG a 1 -1".to_owned())),
        (b"MSG a x 1\r\n".to_vec(), Arguments("MSG a x 1".to_owned())),
        (b"HMSG a 1 9 8\r\n".to_vec(), Arguments("HMSG a 1 9 8".to_owned())),
        (b"MSG a 1 99999999999999999999\r\n".to_vec(), Arguments("MSG a 1 99999999999999999999".to_owned())),
        (b"MSG a 1 67108865\r\n".to_vec(), MessageTooLarge(67_108_865)),
        (b"MSG a 1 1\r\nxyz\r\n".to_vec(), MessageEnd),
        (b"INFO no\r\n".to_vec(), Info),
        (vec![b'x'; 70_000], LineTooLong),
    ] {
        assert_eq!(parse(&arriving, 1024).unwrap_err(), expected);
    }
}

#[test]
fn headers_are_parsed_when_a_message_is_used() {
    let message = with_headers(b"NATS/1.0\r\nA: b c \r\nX-Y:\r\nA: second\r\n\r\n").message().unwrap();
    let found: Vec<_> = message.headers.iter().collect();
    assert_eq!(found, [("A", "b c"), ("X-Y", ""), ("A", "second")]);
    assert_eq!(message.headers.get("A"), Some("b c"));
    assert!(with_headers(b"NATS/1.0\r\n\r\n").headers().unwrap().is_empty());
    assert_eq!(with_headers(b"NATS/1.0 503\r\n\r\n").status(), Some(503));
    assert_eq!(with_headers(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n").status(), Some(100));
    assert_eq!(with_headers(b"NATS/1.0 5x\r\n\r\n").status(), None);
}

#[test]
fn malformed_headers_concern_their_message_alone() {
    let many = format!("NATS/1.0\r\n{}\r\n", "a: b\r\n".repeat(65));
    for (headers, expected) in [
        // These ended or cut off clients of a library.
        (&b"NATS/1.0\r\nX: a\rb\r\n\r\n"[..], HeadersError::Value),
        (b"NATS/1.0\r\nX: \xff\r\n\r\n", HeadersError::Utf8),
        (b"NATS/1.0\r\nno colon\r\n\r\n", HeadersError::Line),
        (b"NATS/1.0\r\n: empty\r\n\r\n", HeadersError::Name),
        (b"NATS/1.0\r\na b: c\r\n\r\n", HeadersError::Name),
        (b"NATS/1.0\r\na: \0\r\n\r\n", HeadersError::Value),
        (b"NATS/1.0\r\na: b\nc: d\r\n\r\n", HeadersError::Value),
        (b"NATS/1.0\r\na: b\r\n", HeadersError::End),
        (b"HTTP/1.0\r\n\r\n", HeadersError::Version),
        (b"", HeadersError::End),
        (many.as_bytes(), HeadersError::Many),
    ] {
        let message = with_headers(headers);
        assert_eq!(message.headers().unwrap_err(), expected, "{}", headers.escape_ascii());
        assert_eq!(&message.payload[..], b"x");
    }
}

#[test]
fn subjects_may_have_any_bytes() {
    for subject in [&b"otherix.\xc2\xa0x"[..], b"a\x0bb", b"\xff\xfe", b"a\rb"] {
        let arriving = [b"MSG ", subject, b" 1 _INBOX.1 1\r\nx\r\n"].concat();
        let message = message(&arriving);
        assert_eq!(&message.subject[..], subject);
        assert_eq!(message.reply().as_deref(), Some("_INBOX.1"));
    }
    // Nothing can be published on such a reply subject.
    let message = message(b"MSG a 1 _INBOX.\xff 1\r\nx\r\n");
    assert_eq!(message.reply(), None);
    assert_eq!(message.message().unwrap().reply, None);
}

#[test]
fn published_messages_are_read_back() {
    let mut headers = Headers::new();
    headers.insert("Nats-Msg-Id", "1").unwrap();
    headers.insert("empty", "").unwrap();
    for (headers, reply) in [(Headers::new(), None), (headers.clone(), None), (headers, Some("_INBOX.1".to_owned()))] {
        let sent = Message { subject: "a.b".to_owned(), reply, headers, payload: Bytes::from_static(b"x\r\ny") };
        let mut out = Vec::new();
        publish(&sent, &mut out);
        // What the server makes of it.
        let text = String::from_utf8(out).unwrap();
        let (line, rest) = text.split_once("\r\n").unwrap();
        let mut words: Vec<&str> = line.split(' ').collect();
        words.insert(2, "1");
        let arriving = format!("{}\r\n{rest}", words.join(" ")).replacen("PUB", "MSG", 1);
        assert_eq!(message(arriving.as_bytes()).message().unwrap(), sent);
        assert!(text.ends_with("x\r\ny\r\n") && size(&sent) >= 4);
    }
}

#[test]
fn what_would_begin_another_header_or_message_cannot_be_sent() {
    let mut headers = Headers::new();
    assert_eq!(headers.insert("a", "b\r\nc: d"), Err(HeadersError::Value));
    assert_eq!(headers.insert("a\r\nb", "c"), Err(HeadersError::Name));
    assert_eq!(headers.insert("a:b", "c"), Err(HeadersError::Name));
    assert!(headers.is_empty());
    for subject in ["", "a b", "a\r\nPUB b 0", "a\tb", "a\u{7f}"] {
        assert!(!is_subject(subject), "{subject:?}");
    }
    assert!(is_subject("otherix.req.v1.admin.network.get") && is_subject("_INBOX.\u{e9}"));
}
