//! What a file is, by the bytes that identify its format.

use std::io::{Read, Seek};

use super::InspectError;
use super::source::Source;

/// The kinds of files that are told apart.
pub(super) enum Signature {
    Qcow2,
    /// A raw disk with a boot signature.
    Bootable,
    /// A format that is refused.
    Foreign(&'static str),
}

/// Bytes at a position that identify a format.
struct Pattern {
    offset: usize,
    bytes: &'static [u8],
    format: &'static str,
}

const fn at(offset: usize, bytes: &'static [u8], format: &'static str) -> Pattern {
    Pattern { offset, bytes, format }
}

const QCOW: &[u8] = b"QFI\xfb";

/// Formats of disk images that QEMU detects by itself (`block/*.c`, `bdrv_probe`), then others that are downloaded by
/// mistake. An ISO image may have a boot signature, too.
const PATTERNS: [Pattern; 32] = [
    at(0, b"KDMV", "a VMDK image"),
    at(0, b"COWD", "a VMDK image"),
    at(0, b"# Disk DescriptorFile", "a VMDK descriptor, which names other files"),
    at(0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    at(0, b"vhdxfile", "a VHDX image"),
    at(0, b"conectix", "a VHD image"),
    at(0, b"QED\0", "a QED image"),
    at(0, b"WithoutFreeSpace", "a Parallels image"),
    at(0, b"WithouFreSpacExt", "a Parallels image"),
    at(0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
    at(0, b"Bochs Virtual HD Image", "a Bochs image"),
    at(0, b"#!/bin/sh\n#V2.0 Format", "a cloop image"),
    at(0, b"OOOM", "a user-mode Linux image"),
    at(0x8001, b"CD001", "an ISO image, not a disk"),
    at(0x8001, b"BEA01", "a UDF image, not a disk"),
    at(0, b"\x1f\x8b", "compressed with gzip"),
    at(0, b"\xfd7zXZ\0", "compressed with xz"),
    at(0, b"BZh", "compressed with bzip2"),
    at(0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    at(0, b"\x04\x22\x4d\x18", "compressed with lz4"),
    at(0, b"\x5d\0\0", "compressed with lzma"),
    at(0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    at(0, b"PK\x03\x04", "a ZIP archive"),
    at(0, b"Rar!", "a RAR archive"),
    at(257, b"ustar", "a tar archive (an OVA is one)"),
    at(0, b"hsqs", "a squashfs file system without a boot loader"),
    at(0, b"\x7fELF", "an ELF program or kernel"),
    at(0x202, b"HdrS", "a Linux kernel, not a disk"),
    at(0, b"<!DOCTYPE", "a web page"),
    at(0, b"<!doctype", "a web page"),
    at(0, b"<html", "a web page"),
    at(0, b"<?xml", "an XML document"),
];

/// Formats with a footer: bytes at a distance from the end of the file.
const FOOTERS: [Pattern; 2] = [at(512, b"conectix", "a VHD image"), at(512, b"koly", "a DMG image")];

/// How much of the start of a file is read, in bytes: up to the volume descriptor of ISO images.
const START: usize = 0x8800;

/// Finds out what the file is; `None` if it is nothing known, and has no boot signature.
pub(super) fn find<R: Read + Seek>(source: &mut Source<R>) -> Result<Option<Signature>, InspectError> {
    let start = source.read_up_to(0, START)?;
    if start.starts_with(QCOW) {
        return Ok(Some(Signature::Qcow2));
    }
    if let Some(pattern) = PATTERNS.iter().find(|pattern| has(&start, pattern.offset, pattern.bytes)) {
        return Ok(Some(Signature::Foreign(pattern.format)));
    }
    for Pattern { offset, bytes, format } in FOOTERS {
        let Some(at) = u64::try_from(offset).ok().and_then(|distance| source.len().checked_sub(distance)) else {
            continue;
        };
        if source.read_up_to(at, bytes.len())? == bytes {
            return Ok(Some(Signature::Foreign(format)));
        }
    }
    // GPT: the header is in the second sector, of 512 or 4096 bytes.
    let bootable = has(&start, 510, b"\x55\xaa") || has(&start, 512, b"EFI PART") || has(&start, 4096, b"EFI PART");
    Ok(bootable.then_some(Signature::Bootable))
}

fn has(start: &[u8], offset: usize, bytes: &[u8]) -> bool {
    start.get(offset..).is_some_and(|rest| rest.starts_with(bytes))
}
