//! Files that `qemu-img` and other programs make, and that are refused.

use std::fs;

use otherix_image::inspect::InspectError;

use crate::{Workshop, check, kind};

/// Command lines that make a file `image`, and the reason why it is refused.
const QCOW2: [(&str, &str); 8] = [
    ("qemu-img create -q -f qcow2 -F raw -b base image", "BackingFile"),
    ("qemu-img create -q -f qcow2 -u -F raw -b /etc/shadow image 1G", "BackingFile"),
    ("qemu-img create -q -f qcow2 -u -F raw -b nbd://127.0.0.1:9/x image 1G", "BackingFile"),
    (
        "qemu-img create -q -f qcow2 -u -F raw -b json:{\"driver\":\"file\",\"filename\":\"base\"} image 1G",
        "BackingFile",
    ),
    ("qemu-img create -q -f qcow2 -o data_file=other,data_file_raw=on image 1G", "DataFile"),
    ("qemu-img create -q -f qcow2 -o data_file=other image 1G", "DataFile"),
    (
        "qemu-img create -q --object secret,id=s,data=x -f qcow2 \
         -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 image 1G",
        "Encrypted",
    ),
    ("qemu-img create -q -f qcow2 image 65G", "Oversized"),
];

/// Formats of QEMU that are refused.
const FORMATS: [(&str, &str); 7] = [
    ("vmdk", "a VMDK image"),
    ("vdi", "a VDI image"),
    ("vhdx", "a VHDX image"),
    ("vpc", "a VHD image"),
    ("qed", "a QED image"),
    ("parallels", "a Parallels image"),
    ("vpc -o subformat=fixed", "a VHD image"),
];

#[test]
fn what_is_not_self_contained_or_too_large() {
    let workshop = Workshop::new();
    workshop.raw("base", 1 << 20);
    for (command_line, reason) in QCOW2 {
        workshop.run(command_line);
        assert_eq!(kind(&check(&workshop.path("image"))), reason, "{command_line}");
    }
    workshop.qcow2("image", "");
    workshop.run("qemu-img snapshot -c first image");
    assert_eq!(kind(&check(&workshop.path("image"))), "Snapshots");
    workshop.qcow2("image", "");
    workshop.run("qemu-img bitmap --add image first");
    assert_eq!(kind(&check(&workshop.path("image"))), "Bitmaps");
    // The predecessor of the format has the same signature, and names a backing file, too.
    workshop.run("qemu-img create -q -f qcow image 1M");
    assert_eq!(kind(&check(&workshop.path("image"))), "Version");
}

#[track_caller]
fn assert_foreign(workshop: &Workshop, expected: &str) {
    let error = check(&workshop.path("image")).unwrap_err();
    assert!(matches!(&error, InspectError::Foreign { found } if found.starts_with(expected)), "{expected}: {error}");
    assert!(!error.hint().is_empty());
}

#[test]
fn other_formats() {
    let workshop = Workshop::new();
    for (format, expected) in FORMATS {
        workshop.run(&format!("qemu-img create -q -f {format} image 1M"));
        // They are refused also where the guest's data looks bootable.
        if format.contains("fixed") {
            let mut bytes = fs::read(workshop.path("image")).unwrap();
            bytes[510..512].copy_from_slice(b"\x55\xaa");
            fs::write(workshop.path("image"), bytes).unwrap();
        }
        assert_foreign(&workshop, expected);
    }
    workshop.run("qemu-img create -q --object secret,id=s,data=x -f luks -o key-secret=s,iter-time=10 image 1M");
    assert_foreign(&workshop, "an encrypted LUKS volume");
}

#[test]
fn compressed_files_and_archives() {
    let workshop = Workshop::new();
    for (command_line, expected) in [
        ("gzip -k -f disk", "compressed with gzip"),
        ("xz -k -f disk", "compressed with xz"),
        ("zstd -q -k -f disk", "compressed with zstd"),
        ("lz4 -q -f disk disk.lz4", "compressed with lz4"),
        ("tar -cf disk.tar disk", "a tar archive"),
    ] {
        workshop.raw("disk", 1 << 20);
        workshop.run(command_line);
        for suffix in ["gz", "xz", "zst", "lz4", "tar"] {
            let made = workshop.path(&format!("disk.{suffix}"));
            if made.exists() {
                fs::rename(made, workshop.path("image")).unwrap();
            }
        }
        assert_foreign(&workshop, expected);
    }
}

#[test]
fn what_is_no_disk() {
    let workshop = Workshop::new();
    let path = workshop.path("image");
    // An installer image that also starts from a USB stick.
    let mut iso = vec![0; 1 << 20];
    iso[510..512].copy_from_slice(b"\x55\xaa");
    iso[0x8000..0x8006].copy_from_slice(b"\x01CD001");
    for (content, expected) in [
        (iso.as_slice(), "an ISO image"),
        (b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
        (b"# Disk DescriptorFile\nversion=1\n", "a VMDK descriptor"),
        (b"\x7fELF\x02", "an ELF program"),
    ] {
        fs::write(&path, content).unwrap();
        assert_foreign(&workshop, expected);
    }
    fs::write(&path, "").unwrap();
    assert_eq!(kind(&check(&path)), "Empty");
    fs::write(&path, [0; 4096]).unwrap();
    assert_eq!(kind(&check(&path)), "Unbootable");
    fs::write(&path, [0x55; 7]).unwrap();
    assert_eq!(kind(&check(&path)), "Unbootable");
    workshop.raw("image", (1 << 20) + 7);
    assert_eq!(kind(&check(&path)), "Sectors");
}
