//! The events of a file, hashed and parsed by several threads, and passed on in their order.
//!
//! One thread reads chunks of whole lines and hands them to the workers by turns; what they made of them is received by
//! turns, too, so the order is kept without being looked at. All queues are bounded.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use memchr::{memchr, memrchr};
use otherix_tlog::Hash;

use crate::audit::folder::LINE_MAX;
use crate::audit::sequence::{Claim, Malformed};

/// Bytes that are read at once, and chunks that wait before and behind each worker: memory does not grow
/// with the file.
const CHUNK: usize = 1 << 18;
const WAITING: usize = 2;

/// Bytes of a short event.
const LINE_LEN: usize = 512;

/// The most workers: the thread that compares is saturated by fewer.
const WORKERS_MAX: usize = 4;

/// What is known of a line by itself.
struct Line {
    begin: usize,
    end: usize,
    leaf: Hash,
    claim: Result<Claim, Malformed>,
}

/// Lines, and the bytes that they end in.
#[derive(Default)]
struct Parsed {
    bytes: Vec<u8>,
    lines: std::vec::IntoIter<Line>,
}

/// An event: its bytes, its hash as a leaf, and what it says of its place.
pub(super) struct ParsedEvent<'a> {
    pub(super) body: &'a [u8],
    pub(super) leaf: Hash,
    pub(super) claim: Result<Claim, Malformed>,
}

pub(super) struct ParsedEvents {
    workers: Vec<Receiver<io::Result<Parsed>>>,
    /// Whose turn is next.
    turn: usize,
    parsed: Parsed,
}

impl ParsedEvents {
    /// Begins to read events that should have this source.
    pub(super) fn read(file: impl Read + Send + 'static, source: &str) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        let (mut inputs, mut workers) = (Vec::new(), Vec::new());
        // All threads end with the file, or with the receivers.
        for _ in 0..count {
            let (input, chunks) = sync_channel(WAITING);
            let (output, parsed) = sync_channel(WAITING);
            let source = source.to_owned();
            let _detached =
                thread::Builder::new().name("parse".to_owned()).spawn(move || work(&source, &chunks, &output))?;
            inputs.push(input);
            workers.push(parsed);
        }
        let _detached = thread::Builder::new().name("read".to_owned()).spawn(move || distribute(file, &inputs))?;
        Ok(Self { workers, turn: 0, parsed: Parsed::default() })
    }

    /// The next event; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<ParsedEvent<'_>>> {
        if self.parsed.lines.as_slice().is_empty() {
            // The end of one worker is that of the file: the others have nothing that comes before it.
            let received = self.workers.get(self.turn).and_then(|worker| worker.recv().ok());
            let Some(parsed) = received else { return Ok(None) };
            self.parsed = parsed?;
            self.turn = (self.turn + 1) % self.workers.len();
        }
        let Some(Line { begin, end, leaf, claim }) = self.parsed.lines.next() else { return Ok(None) };
        let body = self.parsed.bytes.get(begin..end).unwrap_or_default();
        Ok(Some(ParsedEvent { body, leaf, claim }))
    }
}

/// Reads the file, and ends after an error, which is the last that a worker receives.
fn distribute(mut file: impl Read, workers: &[SyncSender<io::Result<Vec<u8>>>]) {
    let mut rest = Vec::new();
    for worker in workers.iter().cycle() {
        let chunk = read_chunk(&mut file, &mut rest);
        let (is_end, is_failed) = (chunk.as_ref().is_ok_and(Vec::is_empty), chunk.is_err());
        if is_end || worker.send(chunk).is_err() || is_failed {
            return;
        }
    }
}

/// The next whole lines with their line feeds, of which the last one of a file may have none; nothing at its end.
/// `rest` is what was read of the line after them. Of a line that is too long, what was read is passed on: it is
/// refused.
fn read_chunk(file: &mut impl Read, rest: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(CHUNK + rest.len());
    bytes.append(rest);
    loop {
        let begin = bytes.len();
        let is_end = file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes)? < CHUNK;
        let end = bytes.get(begin..).and_then(|read| memrchr(b'\n', read)).map(|last| begin + last + 1);
        if let Some(end) = end.filter(|_| !is_end) {
            rest.extend_from_slice(bytes.get(end..).unwrap_or_default());
            bytes.truncate(end);
            return Ok(bytes);
        }
        // Without a line feed they are one line.
        if is_end || bytes.len() as u64 > LINE_MAX {
            return Ok(bytes);
        }
    }
}

fn work(source: &str, chunks: &Receiver<io::Result<Vec<u8>>>, output: &SyncSender<io::Result<Parsed>>) {
    while let Ok(chunk) = chunks.recv() {
        if output.send(chunk.map(|bytes| parse(source, bytes))).is_err() {
            return;
        }
    }
}

fn parse(source: &str, bytes: Vec<u8>) -> Parsed {
    let (mut begin, mut lines) = (0, Vec::with_capacity(bytes.len() / LINE_LEN));
    while let Some(rest) = bytes.get(begin..).filter(|rest| !rest.is_empty()) {
        let len = memchr(b'\n', rest).unwrap_or(rest.len());
        // A line that was cut off is no event, and is refused.
        let body = rest.get(..len.min(LINE_MAX as usize)).unwrap_or_default();
        let end = begin + body.len();
        lines.push(Line { begin, end, leaf: Hash::of_leaf(body), claim: Claim::of(body, source) });
        begin += len + 1;
    }
    Parsed { bytes, lines: lines.into_iter() }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// Some MB, so that each worker has many chunks, in lines from none to more than a chunk.
    #[test]
    fn lines_are_passed_on_in_their_order() {
        let long = CHUNK * 7 / 4;
        let text = |number: usize| format!("{number}:{}", "x".repeat(number * 131 % 3_001));
        let mut lines: Vec<String> = (0..5_000).map(text).collect();
        lines.insert(700, "y".repeat(long));
        lines.insert(2_000, String::new());
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        for end in ["", "\n"] {
            std::fs::write(&path, lines.join("\n") + end).unwrap();
            let mut events = ParsedEvents::read(File::open(&path).unwrap(), "source").unwrap();
            for line in &lines {
                let ParsedEvent { body, leaf, claim } = events.next().unwrap().unwrap();
                assert_eq!(body, line.as_bytes());
                assert_eq!((leaf, claim.is_err()), (Hash::of_leaf(line.as_bytes()), true));
            }
            assert!(events.next().unwrap().is_none() && events.next().unwrap().is_none());
        }
    }

    #[test]
    fn an_error_comes_after_the_lines_before_it() {
        let (input, chunks) = sync_channel(WAITING);
        let (output, parsed) = sync_channel(WAITING);
        let mut events = ParsedEvents { workers: vec![parsed], turn: 0, parsed: Parsed::default() };
        input.send(read_chunk(&mut b"a\nb\n".as_slice(), &mut Vec::new())).unwrap();
        input.send(Err(io::Error::other("broken"))).unwrap();
        drop(input);
        work("source", &chunks, &output);
        assert_eq!(events.next().unwrap().unwrap().body, b"a");
        assert_eq!(events.next().unwrap().unwrap().body, b"b");
        assert_eq!(events.next().map(drop).unwrap_err().to_string(), "broken");
    }

    /// Reads a few bytes at a time, as from a pipe.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(4_099);
            Read::read(&mut self.0, &mut buffer[..len])
        }
    }

    #[test]
    fn chunks_have_whole_lines_however_they_are_read() {
        let line = |len: usize| "z".repeat(len) + "\n";
        let text: String =
            (0..2_000).map(|number| line(number % 997)).collect::<String>() + &line(CHUNK * 5 / 4) + "end";
        for piece in [text.as_str(), &text[..CHUNK], &text[..CHUNK + 1], &text[..2 * CHUNK], "\n", ""] {
            let (mut file, mut rest, mut read) = (Slow(piece.as_bytes()), Vec::new(), Vec::new());
            loop {
                let chunk = read_chunk(&mut file, &mut rest).unwrap();
                if chunk.is_empty() {
                    break;
                }
                read.extend_from_slice(&chunk);
                assert!(chunk.ends_with(b"\n") || read.len() == piece.len());
            }
            assert!(read == piece.as_bytes() && rest.is_empty());
        }
    }

    #[test]
    fn a_line_without_end_is_cut_off_and_refused() {
        let endless = io::Read::chain(b"a\n".as_slice(), io::repeat(b'x'));
        let mut events = ParsedEvents::read(endless, "source").unwrap();
        assert_eq!(events.next().unwrap().unwrap().body, b"a");
        let ParsedEvent { body, claim, .. } = events.next().unwrap().unwrap();
        assert_eq!((body.len() as u64, claim.is_err()), (LINE_MAX, true));
        let chunk = read_chunk(&mut io::repeat(b'x'), &mut Vec::new()).unwrap();
        assert!(chunk.len() as u64 <= LINE_MAX + CHUNK as u64, "{}", chunk.len());
    }
}
