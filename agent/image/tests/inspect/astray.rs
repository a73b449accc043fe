//! Counter-checks: without the check, these files make `qemu-img` read files, write files or connect to servers that
//! their author chooses.

use std::fs;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::{Workshop, check, kind};

const SECRET: &[u8] = b"a file of the node that nobody may see";

/// Converts `image` as a careless program does: without `-f`.
#[track_caller]
fn converted(workshop: &Workshop) -> Vec<u8> {
    workshop.run("qemu-img convert -O raw image converted");
    fs::read(workshop.path("converted")).unwrap()
}

/// A file of the node, of one sector.
fn secret(workshop: &Workshop, name: &str) {
    let mut bytes = SECRET.to_vec();
    bytes.resize(1 << 20, 0);
    fs::write(workshop.path(name), bytes).unwrap();
}

#[test]
fn a_backing_file_is_read() {
    let workshop = Workshop::new();
    secret(&workshop, "secret");
    workshop.run("qemu-img create -q -f qcow2 -F raw -b secret image");
    assert!(converted(&workshop).starts_with(SECRET));
    assert_eq!(kind(&check(&workshop.path("image"))), "BackingFile");
}

#[test]
fn a_data_file_is_read_and_resized() {
    let workshop = Workshop::new();
    workshop.run("qemu-img create -q -f qcow2 -o data_file=secret,data_file_raw=on image 1M");
    secret(&workshop, "secret");
    assert!(converted(&workshop).starts_with(SECRET));
    workshop.run("qemu-img resize -q image 2M");
    assert_eq!(fs::metadata(workshop.path("secret")).unwrap().len(), 2 << 20);
    assert_eq!(kind(&check(&workshop.path("image"))), "DataFile");
}

#[test]
fn a_text_is_opened_as_vmdk() {
    let workshop = Workshop::new();
    secret(&workshop, "secret");
    let text = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                RW 2048 FLAT \"secret\" 0\nddb.adapterType = \"ide\"\n";
    fs::write(workshop.path("image"), text).unwrap();
    assert!(converted(&workshop).starts_with(SECRET));
    assert_eq!(kind(&check(&workshop.path("image"))), "Foreign");
}

#[test]
fn a_backing_file_makes_it_connect() {
    let workshop = Workshop::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connected, connection) = mpsc::channel();
    let accepting = thread::spawn(move || connected.send(listener.accept().map(drop).is_ok()));
    workshop.run(&format!("qemu-img create -q -f qcow2 -u -F raw -b nbd://127.0.0.1:{port}/x image 1M"));
    // It fails, as nothing answers it: it has connected by then.
    let command = ["info", "--backing-chain"];
    std::process::Command::new("qemu-img").args(command).arg(workshop.path("image")).output().unwrap();
    assert!(connection.recv_timeout(Duration::from_secs(10)).unwrap());
    accepting.join().unwrap().unwrap();
    assert_eq!(kind(&check(&workshop.path("image"))), "BackingFile");
}
