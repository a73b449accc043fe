//! A client that sends bytes as they are, over a plain TCP connection, because client libraries refuse to send some of
//! it, and because the server's errors have to be seen.
#![expect(clippy::indexing_slicing, reason = "a failed assumption is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use otherix_identity::Creds;
use serde_json::{Value, json};

use crate::daemon::DEADLINE;

/// What the server has sent until it had processed everything.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// Subject and payload, without headers.
    pub(crate) messages: Vec<(String, Vec<u8>)>,
    pub(crate) errors: Vec<String>,
}

pub(crate) struct RawClient {
    stream: TcpStream,
    arriving: BufReader<TcpStream>,
    pub(crate) user: String,
}

impl RawClient {
    /// Connects, and subscribes to replies below the user's inbox.
    pub(crate) fn connect(url: &str, creds: &Creds) -> Self {
        let jwt = creds.jwt().to_owned();
        let mut client =
            Self::authenticate(url, |nonce| json!({ "jwt": jwt, "sig": creds.sign_nonce(nonce) })).unwrap();
        client.user = creds.user().to_string();
        let inbox = client.inbox("*");
        client.send(&[b"SUB ", inbox.as_bytes(), b" 1\r\n"]);
        let arrived = client.settle();
        assert!(arrived.errors.is_empty(), "{arrived:?}");
        client
    }

    /// Connects with what `proof` makes of the server's nonce. Returns the server's error if it refuses that.
    pub(crate) fn authenticate(url: &str, proof: impl FnOnce(&str) -> Value) -> Result<Self, String> {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let arriving = BufReader::new(stream.try_clone().unwrap());
        let mut client = Self { stream, arriving, user: String::new() };
        let info: Value = serde_json::from_str(client.line().strip_prefix("INFO ").unwrap()).unwrap();
        let mut connect = json!({ "verbose": false, "headers": true, "no_responders": true, "protocol": 1 });
        let proof = proof(info["nonce"].as_str().unwrap_or_default());
        connect.as_object_mut().unwrap().extend(proof.as_object().unwrap().clone());
        client.send(&[b"CONNECT ", connect.to_string().as_bytes(), b"\r\nPING\r\n"]);
        loop {
            let line = client.line();
            match line.split(' ').next().unwrap() {
                "PONG" => return Ok(client),
                "-ERR" => return Err(line),
                "" => return Err("closed".to_owned()),
                _ => {}
            }
        }
    }

    pub(crate) fn inbox(&self, token: &str) -> String {
        format!("_INBOX_{}.{token}", self.user)
    }

    pub(crate) fn send(&mut self, parts: &[&[u8]]) {
        self.stream.write_all(&parts.concat()).unwrap();
    }

    /// The next line; empty if the connection is closed.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.arriving.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Sends a message with these bytes as its headers, and a reply subject below the user's inbox.
    pub(crate) fn publish(&mut self, subject: &[u8], reply: Option<&str>, headers: &[u8], body: &[u8]) {
        let reply = reply.map(|reply| format!("{} ", self.inbox(reply))).unwrap_or_default();
        let lengths = format!("{} {}\r\n", headers.len(), headers.len() + body.len());
        self.send(&[b"HPUB ", subject, b" ", reply.as_bytes(), lengths.as_bytes(), headers, body, b"\r\n"]);
    }

    /// Sends a request whose answer goes to any subject.
    pub(crate) fn request(&mut self, subject: &str, reply: &str, body: &str) {
        self.send(&[format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()).as_bytes()]);
    }

    /// Subscribes.
    pub(crate) fn subscribe(&mut self, subject: &str, number: usize) {
        self.send(&[format!("SUB {subject} {number}\r\n").as_bytes()]);
    }

    /// Waits until the server has processed what was sent, and returns what has arrived by then.
    pub(crate) fn settle(&mut self) -> Arrived {
        self.send(&[b"PING\r\n"]);
        let mut arrived = Arrived::default();
        while self.take(&mut arrived) {}
        arrived
    }

    /// Waits for a message that `wanted` accepts, and returns everything until then.
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&str, &[u8]) -> bool) -> Arrived {
        let mut arrived = Arrived::default();
        while !arrived.messages.last().is_some_and(|(subject, payload)| wanted(subject, payload)) {
            self.take(&mut arrived);
        }
        arrived
    }

    /// Reads one operation; returns whether it is not the server's `PONG`.
    fn take(&mut self, arrived: &mut Arrived) -> bool {
        let line = self.line();
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "PONG" => return false,
            "PING" => self.send(&[b"PONG\r\n"]),
            "-ERR" => arrived.errors.push(line),
            "MSG" | "HMSG" => {
                let total: usize = words.last().unwrap().parse().unwrap();
                let headers = if words[0] == "HMSG" { words[words.len() - 2].parse().unwrap() } else { 0 };
                let mut content = vec![0; total + 2];
                self.arriving.read_exact(&mut content).unwrap();
                content.truncate(total);
                arrived.messages.push((words[1].to_owned(), content.split_off(headers)));
            }
            "" => panic!("the connection is closed; before: {arrived:?}"),
            _ => {}
        }
        true
    }
}
