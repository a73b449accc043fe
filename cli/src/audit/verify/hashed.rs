//! The lines of a file and the hashes of their leaves: a thread of its own reads and hashes, which is half of the work
//! of a verification, while the others are compared.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use otherix_tlog::Hash;

use crate::audit::folder::Lines;

/// Bytes of a chunk, but for its last line, and chunks that wait: memory does not grow with the file.
const CHUNK: usize = 1 << 18;
const WAITING: usize = 4;

/// Lines, one after the other in `bytes`.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where each ends, and its hash.
    lines: Vec<(usize, Hash)>,
}

pub(super) struct HashedLines {
    chunks: Receiver<io::Result<Chunk>>,
    chunk: Chunk,
    /// The number of the next line of the chunk, and where it begins.
    next: usize,
    begin: usize,
}

impl HashedLines {
    /// Begins to read.
    pub(super) fn read(lines: Lines) -> io::Result<Self> {
        let (sender, chunks) = sync_channel(WAITING);
        // It ends with the file, or with the receiver.
        let _detached = thread::Builder::new().name("hash".to_owned()).spawn(move || hash(lines, &sender))?;
        Ok(Self { chunks, chunk: Chunk::default(), next: 0, begin: 0 })
    }

    /// The next line, and its hash as a leaf; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(&[u8], Hash)>> {
        if self.next == self.chunk.lines.len() {
            let Ok(chunk) = self.chunks.recv() else { return Ok(None) };
            (self.chunk, self.next, self.begin) = (chunk?, 0, 0);
        }
        let Some((end, leaf)) = self.chunk.lines.get(self.next).copied() else { return Ok(None) };
        let line = self.chunk.bytes.get(self.begin..end).unwrap_or_default();
        (self.next, self.begin) = (self.next + 1, end);
        Ok(Some((line, leaf)))
    }
}

fn hash(mut lines: Lines, sender: &SyncSender<io::Result<Chunk>>) {
    loop {
        let chunk = read_chunk(&mut lines);
        let (is_end, is_failed) = (chunk.as_ref().is_ok_and(|chunk| chunk.lines.is_empty()), chunk.is_err());
        // The end of the file is that of the channel.
        if is_end || sender.send(chunk).is_err() || is_failed {
            return;
        }
    }
}

fn read_chunk(lines: &mut Lines) -> io::Result<Chunk> {
    let mut chunk = Chunk { bytes: Vec::with_capacity(CHUNK), lines: Vec::new() };
    let mut begin = 0;
    while begin < CHUNK && lines.append(&mut chunk.bytes)? {
        let line = chunk.bytes.get(begin..).unwrap_or_default();
        let leaf = Hash::of_leaf(line);
        begin = chunk.bytes.len();
        chunk.lines.push((begin, leaf));
    }
    Ok(chunk)
}
