//! The `newc` archive that carries a test's programs; the kernel unpacks it after the base initramfs.

use std::io::{self, Write};

/// Appends a directory to the archive.
pub(crate) fn folder(out: &mut impl Write, name: &str) -> io::Result<()> {
    entry(out, name, 0o040_755, &[])
}

/// Appends an executable file to the archive.
pub(crate) fn program(out: &mut impl Write, name: &str, content: &[u8]) -> io::Result<()> {
    entry(out, name, 0o100_755, content)
}

/// Appends a symbolic link to the archive.
pub(crate) fn link(out: &mut impl Write, name: &str, target: &str) -> io::Result<()> {
    entry(out, name, 0o120_777, target.as_bytes())
}

/// Ends the archive.
pub(crate) fn end(out: &mut impl Write) -> io::Result<()> {
    entry(out, "TRAILER!!!", 0, &[])
}

fn entry(out: &mut impl Write, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let size = u32::try_from(content.len()).map_err(io::Error::other)?;
    // magic, inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name with its NUL, checksum
    write!(out, "070701{:08x}{mode:08x}{:016x}{:08x}{:08x}{size:08x}{:032x}", 0, 0, 1, 0, 0)?;
    write!(out, "{:08x}{:08x}{name}\0", name.len() + 1, 0)?;
    pad(out, 110 + name.len() + 1)?;
    out.write_all(content)?;
    pad(out, content.len())
}

/// Fills up to a multiple of four bytes.
fn pad(out: &mut impl Write, length: usize) -> io::Result<()> {
    (length..length.next_multiple_of(4)).try_for_each(|_| out.write_all(&[0]))
}
