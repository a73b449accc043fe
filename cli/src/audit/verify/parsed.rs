//! The events of a file, hashed and parsed by several threads, and passed on in their order.
//!
//! One thread reads whole lines in chunks and hands them to the workers by turns; what they made of them is received by
//! turns, too, so the order is kept without being looked at. All queues are bounded.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use otherix_tlog::Hash;

use crate::audit::folder::Lines;
use crate::audit::sequence::{Claim, Malformed};

/// Bytes of a chunk, but for its last line, and chunks that wait before and behind each worker: memory does not grow
/// with the file.
const CHUNK: usize = 1 << 18;
const WAITING: usize = 2;

/// The most workers: the thread that compares is saturated by fewer.
const WORKERS_MAX: usize = 4;

/// Lines, one after the other.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// What is known of a line by itself.
struct Line {
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
    /// Where the next line begins.
    begin: usize,
}

impl ParsedEvents {
    /// Begins to read events that should have this source.
    pub(super) fn read(lines: Lines, source: &str) -> io::Result<Self> {
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
        let _detached = thread::Builder::new().name("read".to_owned()).spawn(move || distribute(lines, &inputs))?;
        Ok(Self { workers, turn: 0, parsed: Parsed::default(), begin: 0 })
    }

    /// The next event; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<ParsedEvent<'_>>> {
        if self.parsed.lines.as_slice().is_empty() {
            // The end of one worker is that of the file: the others have nothing that comes before it.
            let received = self.workers.get(self.turn).and_then(|worker| worker.recv().ok());
            let Some(parsed) = received else { return Ok(None) };
            (self.parsed, self.begin) = (parsed?, 0);
            self.turn = (self.turn + 1) % self.workers.len();
        }
        let Some(Line { end, leaf, claim }) = self.parsed.lines.next() else { return Ok(None) };
        let body = self.parsed.bytes.get(self.begin..end).unwrap_or_default();
        self.begin = end;
        Ok(Some(ParsedEvent { body, leaf, claim }))
    }
}

/// Reads the file, and ends after an error, which is the last that a worker receives.
fn distribute(mut lines: Lines, workers: &[SyncSender<io::Result<Chunk>>]) {
    for worker in workers.iter().cycle() {
        let chunk = read_chunk(&mut lines);
        let (is_end, is_failed) = (chunk.as_ref().is_ok_and(|chunk| chunk.ends.is_empty()), chunk.is_err());
        if is_end || worker.send(chunk).is_err() || is_failed {
            return;
        }
    }
}

fn read_chunk(lines: &mut Lines) -> io::Result<Chunk> {
    let mut chunk = Chunk { bytes: Vec::with_capacity(CHUNK + CHUNK / 16), ends: Vec::new() };
    while chunk.bytes.len() < CHUNK && lines.append(&mut chunk.bytes)? {
        chunk.ends.push(chunk.bytes.len());
    }
    Ok(chunk)
}

fn work(source: &str, chunks: &Receiver<io::Result<Chunk>>, output: &SyncSender<io::Result<Parsed>>) {
    while let Ok(chunk) = chunks.recv() {
        if output.send(chunk.map(|chunk| parse(source, chunk))).is_err() {
            return;
        }
    }
}

fn parse(source: &str, Chunk { bytes, ends }: Chunk) -> Parsed {
    let mut begin = 0;
    let line = |end| {
        let body = bytes.get(begin..end).unwrap_or_default();
        begin = end;
        Line { end, leaf: Hash::of_leaf(body), claim: Claim::of(body, source) }
    };
    let lines: Vec<Line> = ends.into_iter().map(line).collect();
    Parsed { bytes, lines: lines.into_iter() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some MB, so that each worker has many chunks, in lines from none to more than a chunk.
    #[test]
    fn lines_are_passed_on_in_their_order() {
        let long = CHUNK * 3 / 2;
        let text = |number: usize| format!("{number}:{}", "x".repeat(number * 131 % 3_001));
        let mut lines: Vec<String> = (0..5_000).map(text).collect();
        lines.insert(700, "y".repeat(long));
        lines.insert(2_000, String::new());
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        for end in ["", "\n"] {
            std::fs::write(&path, lines.join("\n") + end).unwrap();
            let mut events = ParsedEvents::read(Lines::open(&path).unwrap(), "source").unwrap();
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
        let folder = otherix_testkit::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, "a\nb\n").unwrap();
        let (input, chunks) = sync_channel(WAITING);
        let (output, parsed) = sync_channel(WAITING);
        let mut events = ParsedEvents { workers: vec![parsed], turn: 0, parsed: Parsed::default(), begin: 0 };
        input.send(read_chunk(&mut Lines::open(&path).unwrap())).unwrap();
        input.send(Err(io::Error::other("broken"))).unwrap();
        drop(input);
        work("source", &chunks, &output);
        assert_eq!(events.next().unwrap().unwrap().body, b"a");
        assert_eq!(events.next().unwrap().unwrap().body, b"b");
        assert_eq!(events.next().map(drop).unwrap_err().to_string(), "broken");
    }
}
