//! Images of `qemu-img` that were altered into what it does not make.

use std::fs;

use otherix_image::inspect::{METADATA_MAX, inspect};

use crate::{MAX, Workshop, check, kind};

/// A value that is written into the header: position, bytes, the reason why the image is then refused.
const HEADERS: [(usize, &[u8], &str); 36] = [
    (4, &[0, 0, 0, 1], "Version"),
    (4, &[0, 0, 0, 4], "Version"),
    (8, &[0, 0, 0, 0, 0, 0, 2, 0], "BackingFile"),
    (16, &[0, 0, 0, 5], "BackingFile"),
    (20, &[0, 0, 0, 8], "Header"),
    (20, &[0, 0, 0, 22], "Header"),
    (20, &[0xff; 4], "Header"),
    (24, &[0; 8], "Header"),
    (24, &[0, 0, 0, 0, 4, 0, 0, 1], "Sectors"),
    (24, &[0, 0, 1, 0, 0, 0, 0, 0], "Header"), // 1 TiB, with an L1 table for 64 MiB
    (24, &[0xff; 8], "Header"),
    (32, &[0, 0, 0, 1], "Encrypted"),
    (32, &[0, 0, 0, 2], "Encrypted"),
    (36, &[0; 4], "Header"),
    (36, &[0xff; 4], "Header"),
    (36, &[0, 0x10, 0, 0], "Outside"),
    (40, &[0; 8], "Outside"),
    (40, &[0, 0, 0, 0, 0, 3, 0, 8], "Outside"),
    (40, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], "Outside"),
    (48, &[0; 8], "Outside"),
    (48, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], "Outside"),
    (56, &[0; 4], "Header"),
    (56, &[0xff; 4], "Header"),
    (60, &[0, 0, 0, 1], "Snapshots"),
    (64, &[0, 0, 0, 0, 0, 5, 0, 0], "Snapshots"),
    (72, &[0, 0, 0, 0, 0, 0, 0, 1], "Unclean"),
    (72, &[0, 0, 0, 0, 0, 0, 0, 2], "Unclean"),
    (72, &[0, 0, 0, 0, 0, 0, 0, 4], "DataFile"),
    (72, &[0, 0, 0, 0, 0, 0, 0, 8], "Header"), // another compression type, but the type is zlib
    (72, &[0x80, 0, 0, 0, 0, 0, 0, 0], "Features"),
    (80, &[0, 0, 0, 0, 0, 0, 0, 2], "Features"),
    (88, &[0, 0, 0, 0, 0, 0, 0, 1], "Bitmaps"),
    (88, &[0, 0, 0, 0, 0, 0, 0, 2], "DataFile"),
    (96, &[0, 0, 0, 7], "Header"),
    (100, &[0, 0, 0, 96], "Header"),
    (104, &[2], "Header"),
];

/// A header extension in place of the table of feature names, and the reason why the image is then refused.
const EXTENSIONS: [(u32, u32, &str); 6] = [
    (0xe279_2aca, 5, "BackingFile"),
    (0x2385_2875, 24, "Bitmaps"),
    (0x0537_be77, 16, "Encrypted"),
    (0x4441_5441, 10, "DataFile"),
    (0x1234_5678, u32::MAX, "Header"),
    (0x1234_5678, 65_536, "Header"),
];

fn entry(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn table(bytes: &[u8], at: usize) -> usize {
    usize::try_from(entry(bytes, at) & 0x00ff_ffff_ffff_fe00).unwrap()
}

#[test]
fn headers() {
    let workshop = Workshop::new();
    let path = workshop.qcow2("image", "");
    let original = fs::read(&path).unwrap();
    for (at, value, reason) in HEADERS {
        let mut bytes = original.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        fs::write(&path, bytes).unwrap();
        assert_eq!(kind(&check(&path)), reason, "{value:?} at {at}");
    }
    for (extension, length, reason) in EXTENSIONS {
        let mut bytes = original.clone();
        bytes[112..116].copy_from_slice(&extension.to_be_bytes());
        bytes[116..120].copy_from_slice(&length.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        assert_eq!(kind(&check(&path)), reason, "extension {extension:#x}");
    }
    let mut unknown = original;
    unknown[112..116].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    fs::write(&path, unknown).unwrap();
    check(&path).unwrap();
}

#[test]
fn tables() {
    let workshop = Workshop::new();
    let path = workshop.qcow2("image", "");
    let original = fs::read(&path).unwrap();
    let (l1, refcounts) = (table(&original, 40), table(&original, 48));
    let l2 = table(&original, l1);
    let outside = u64::try_from(original.len()).unwrap().next_multiple_of(65_536);
    for (at, value, reason) in [
        (l1, outside, "Outside"),
        (l1, entry(&original, l1) + 512, "Outside"),
        (l1, entry(&original, l1) | 1, "Reserved"),
        (l1, entry(&original, l1) | 1 << 62, "Reserved"),
        (refcounts, outside, "Outside"),
        (refcounts, entry(&original, refcounts) | 1, "Reserved"),
        (l2, outside | 1 << 63, "Outside"),
        (l2, (entry(&original, l2) + 512) | 1 << 63, "Outside"),
        (l2, entry(&original, l2) | 2, "Reserved"),
        (l2, outside | 1 << 62, "Outside"), // compressed
        (l2, 65_536 | 1 << 62 | 1 << 63, "Reserved"),
    ] {
        let mut bytes = original.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        assert_eq!(kind(&check(&path)), reason, "{value:#x} at {at}");
    }
}

/// The check does not wait for data, so that a file that lacks its end is told apart from one that is whole.
#[test]
fn truncated() {
    let workshop = Workshop::new();
    let path = workshop.qcow2("image", "");
    let original = fs::read(&path).unwrap();
    for length in (4..200).chain((0..original.len() - 65_536).step_by(65_536).skip(1)) {
        fs::write(&path, &original[..length]).unwrap();
        let reason = kind(&check(&path));
        // An extension that does not fit is a fault of its header.
        let expected = if (112..200).contains(&length) { ["Outside", "Header"] } else { ["Outside"; 2] };
        assert!(expected.contains(&reason.as_str()), "{reason}: {length} of {} bytes", original.len());
    }
}

/// 5 MiB that would be a disk of 64 GiB in clusters of 512 bytes, with all entries of its L1 table the same.
#[test]
fn tables_are_limited() {
    let workshop = Workshop::new();
    workshop.run("qemu-img create -q -f qcow2 -o cluster_size=512 image 16G");
    let path = workshop.path("image");
    // 2^25 sectors with entries of 8 bytes, and their L1 table of 4 MiB: 260 MiB.
    assert_eq!(kind(&check(&path)), "Metadata");
    workshop.run("qemu-img create -q -f qcow2 -o cluster_size=512 image 8G");
    let mut bytes = fs::read(&path).unwrap();
    let (l1, data) = (table(&bytes, 40), bytes.len().next_multiple_of(512));
    bytes.resize(data + 512, 0);
    for index in 0..(8_usize << 30) / 512 / 64 {
        bytes[l1 + index * 8..l1 + index * 8 + 8].copy_from_slice(&u64::try_from(data).unwrap().to_be_bytes());
    }
    fs::write(&path, bytes).unwrap();
    let mut counting = crate::properties::Counting::new(fs::File::open(&path).unwrap());
    inspect(&mut counting, MAX).unwrap();
    assert!((128 << 20..METADATA_MAX).contains(&counting.read), "{} bytes", counting.read);
}
