//! What two nodes say to each other about a VM that moves: a question and an answer, each a line of JSON, then pieces
//! of a file. Each question has a connection of its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use otherix_schemas::id::VmId;
use otherix_vm::spec::ImageFormat;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The TCP port on the mesh addresses of nodes, while a VM moves away. It and those of the nodes that ask are below
/// 1024, which only root may use: no other process of a node gives or takes a disk. IANA has assigned it to nobody.
pub(super) const PORT: u16 = 1006;

/// The version of what is said.
pub(super) const VERSION: u32 = 1;

/// Longest line, in bytes.
const LINE_MAX: usize = 4096;

/// Largest piece of a file, in bytes.
pub(super) const PIECE: usize = 1 << 20;

/// What is sent again whenever a copy is resumed, in bytes: the header, which the taking node changes.
pub(super) const HEAD: u64 = 1 << 16;

/// The offset that follows the last piece.
const END: u64 = u64::MAX;

/// A question of the node that a VM moves to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    pub(super) version: u32,
    pub(super) vm: VmId,
    /// Position of the decision that it moves.
    pub(super) generation: u64,
    pub(super) about: Subject,
}

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Subject {
    /// What there is to copy.
    Copy,
    /// The disk, from this offset on, and its head.
    Disk(u64),
    /// The image under it, from this offset on.
    Image(u64),
    /// The digest of the disk, which takes a while: empty lines come first.
    Digest,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// Not yet: the VM is being shut down, or the node does not know of the decision.
    Wait,
    /// The VM has no disk yet.
    NoDisk,
    Copy(Copied),
    /// Pieces follow.
    Pieces,
    /// SHA-256 of the disk's file, in hexadecimal digits.
    Digest(String),
    /// It cannot be given.
    Failed(String),
}

/// What there is to copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Copied {
    /// Length of the disk's file, in bytes.
    pub(super) length: u64,
    /// Bytes that it occupies.
    pub(super) allocated: u64,
    /// SHA-256 of the image's file.
    pub(super) image: String,
    /// Length of the image's file, in bytes.
    pub(super) image_length: u64,
    pub(super) format: ImageFormat,
}

/// Writes a line.
pub(super) fn write_line(stream: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads a line; those that are empty are passed over.
pub(super) fn read_line<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    for _ in 0..LINE_MAX {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        let [byte] = byte;
        match byte {
            b'\n' if line.is_empty() => {}
            b'\n' => return Ok(serde_json::from_slice(&line)?),
            byte => line.push(byte),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Writes a piece of a file.
pub(super) fn write_piece(stream: &mut impl Write, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&offset.to_be_bytes())?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(bytes)
}

/// Tells that there are no more pieces.
pub(super) fn write_end(stream: &mut impl Write) -> io::Result<()> {
    write_piece(stream, END, &[])
}

/// Reads a piece into the buffer, and returns its offset; none after the last.
pub(super) fn read_piece(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let (mut offset, mut length) = ([0; 8], [0; 4]);
    stream.read_exact(&mut offset)?;
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > PIECE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece is too long"));
    }
    buffer.resize(length, 0);
    stream.read_exact(buffer)?;
    Ok(Some(u64::from_be_bytes(offset)).filter(|offset| *offset != END))
}

/// A connection that stands still for this long has ended.
pub(super) const IDLE: std::time::Duration = std::time::Duration::from_secs(20);

/// Sets the limits of a connection.
pub(super) fn limit(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_pieces_round_trip_and_have_bounds() {
        let mut text = b"\n\n".to_vec();
        write_line(&mut text, &Reply::Failed("x".to_owned())).unwrap();
        write_piece(&mut text, 7, b"abc").unwrap();
        write_end(&mut text).unwrap();
        let (mut stream, mut buffer) = (text.as_slice(), Vec::new());
        assert_eq!(read_line::<Reply>(&mut stream).unwrap(), Reply::Failed("x".to_owned()));
        assert_eq!((read_piece(&mut stream, &mut buffer).unwrap(), buffer.as_slice()), (Some(7), &b"abc"[..]));
        assert_eq!(read_piece(&mut stream, &mut buffer).unwrap(), None);
        assert!(read_piece(&mut stream, &mut buffer).is_err(), "the connection has ended");
        let endless = vec![b'x'; 1 << 20];
        assert!(read_line::<Reply>(&mut endless.as_slice()).is_err());
        let mut huge = 0_u64.to_be_bytes().to_vec();
        huge.extend(u32::MAX.to_be_bytes());
        assert!(read_piece(&mut huge.as_slice(), &mut buffer).is_err());
    }
}
