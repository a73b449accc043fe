//! No file makes the check panic or read without bound, and what it accepts QEMU opens as the same, by itself.

use std::cell::Cell;
use std::fs;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::process::Command;

use otherix_image::inspect::{Format, METADATA_MAX, inspect};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{MAX, Workshop};

/// A reader that counts the bytes that are read.
pub(crate) struct Counting<R> {
    inner: R,
    pub(crate) read: u64,
}

impl<R> Counting<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, read: 0 }
    }
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read += u64::try_from(length).unwrap();
        Ok(length)
    }
}

impl<R: Seek> Seek for Counting<R> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.inner.seek(to)
    }
}

/// The tables, and the headers, extensions and the refcount table besides.
const BOUND: u64 = METADATA_MAX + (12 << 20);

fn check_bounded(bytes: &[u8]) -> Option<Format> {
    let mut counting = Counting::new(Cursor::new(bytes));
    let result = inspect(&mut counting, MAX);
    assert!(counting.read <= BOUND, "{} bytes", counting.read);
    result.ok().map(|info| info.format)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..2048), signature in any::<bool>()) {
        let mut bytes = bytes;
        if signature {
            bytes.splice(0..0, *b"QFI\xfb\0\0\0\x03");
        }
        check_bounded(&bytes);
    }
}

/// Where an image is altered: mostly in the fields of the header.
fn alterations() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let header = (0_usize..128, prop_oneof![any::<u8>(), Just(0), Just(1), Just(0xff)]);
    let anywhere = (0_usize..400_000, any::<u8>());
    vec(prop_oneof![3 => header, 1 => anywhere], 1..5)
}

#[test]
fn altered_images() {
    let workshop = Workshop::new();
    let originals = ["", "-o compat=0.10", "-o cluster_size=4k", "-o extended_l2=on"]
        .map(|options| fs::read(workshop.qcow2("image", options)).unwrap());
    let path = workshop.path("image");
    let strategy = (0..originals.len(), alterations());
    let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    let opened = Cell::new(0);
    proptest::test_runner::TestRunner::new(config)
        .run(&strategy, |(original, alterations)| {
            let mut bytes = originals[original].clone();
            for (at, value) in alterations {
                let length = bytes.len();
                bytes[at % length] = value;
            }
            // Opening takes QEMU a while: some are enough.
            if check_bounded(&bytes) == Some(Format::Qcow2) && opened.get() < 150 {
                opened.set(opened.get() + 1);
                fs::write(&path, &bytes).unwrap();
                let output = Command::new("qemu-img").args(["info", "--output=json"]).arg(&path).output().unwrap();
                prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let shown = String::from_utf8_lossy(&output.stdout).into_owned();
                let size = inspect(Cursor::new(&bytes), MAX).unwrap().virtual_size;
                prop_assert!(shown.contains(&format!("\"virtual-size\": {size},")), "{shown}");
                prop_assert!(shown.contains("\"format\": \"qcow2\""), "{shown}");
                prop_assert!(!shown.contains("backing") && !shown.contains("data-file"), "{shown}");
            }
            Ok(())
        })
        .unwrap();
    assert!(opened.get() > 20, "only {} altered images were accepted", opened.get());
}
