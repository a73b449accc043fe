//! Images that are accepted.

use otherix_image::inspect::{Format, ImageInfo};

use crate::{MIB, Workshop, check};

#[test]
fn every_self_contained_variant_of_qcow2() {
    let workshop = Workshop::new();
    for options in [
        "",
        "-o compat=0.10",
        "-o compression_type=zstd",
        "-o extended_l2=on,cluster_size=128k",
        "-o cluster_size=512",
        "-o cluster_size=2M",
        "-o refcount_bits=1",
        "-o refcount_bits=64",
        "-o lazy_refcounts=on",
        "-o preallocation=metadata",
        "-o preallocation=falloc",
    ] {
        let path = workshop.qcow2("image", options);
        let file_size = path.metadata().unwrap().len();
        let expected = ImageInfo { format: Format::Qcow2, virtual_size: 64 * MIB, file_size };
        assert_eq!(check(&path).unwrap_or_else(|error| panic!("`{options}`: {error}")), expected);
        // As images are published: converted, and with compressed clusters.
        for compressed in ["", "-c"] {
            workshop.run(&format!("qemu-img convert {compressed} -f qcow2 -O qcow2 image converted"));
            assert_eq!(check(&workshop.path("converted")).unwrap().virtual_size, 64 * MIB, "{options} {compressed}");
        }
    }
    workshop.run("qemu-img convert -c -f qcow2 -O qcow2 -o compression_type=zstd image converted");
    assert_eq!(check(&workshop.path("converted")).unwrap().virtual_size, 64 * MIB);
}

#[test]
fn raw_disks_with_a_boot_signature() {
    let workshop = Workshop::new();
    let path = workshop.raw("mbr", MIB);
    let info = ImageInfo { format: Format::Raw, virtual_size: MIB, file_size: MIB };
    assert_eq!(check(&path).unwrap(), info);
    for sector in [512, 4096] {
        let mut bytes = vec![0; 1 << 20];
        bytes[sector..sector + 8].copy_from_slice(b"EFI PART");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(check(&path).unwrap(), info);
    }
}

#[test]
fn a_large_disk_without_data() {
    let workshop = Workshop::new();
    workshop.run("qemu-img create -q -f qcow2 image 64G");
    assert_eq!(check(&workshop.path("image")).unwrap().virtual_size, 64 << 30);
}
