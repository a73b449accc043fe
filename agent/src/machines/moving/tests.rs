//! Copies between two addresses of the loopback device: what a kill, a disk of another content, and others who ask do.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use otherix_image::cache::{Cache, CacheSettings};
use otherix_image::fetch::{Digest, FetchSettings};
use otherix_image::inspect::Format;
use otherix_image::overlay;
use otherix_runtime::SystemRuntime;
use otherix_schemas::id::VmId;
use otherix_schemas::position::Position;
use otherix_vm::accelerator::Choice;
use otherix_vm::folder::{VmFolder, write_json};
use otherix_vm::process::Launcher;
use otherix_vm::spec::{Accelerator, BaseImage, ImageFormat};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::give::Giving;
use super::wire::{Question, Reply, Subject, VERSION, read_line, write_line};
use super::{Abort, Gifts, Incoming, OwnEnd, TakeError, Taking, take};
use crate::machines::Host;
use crate::machines::prepare::{Origin, Users, folder_of};

const GENERATION: u64 = 7;
const SIZE: u64 = 64 << 20;

fn vm() -> VmId {
    VmId::new(Uuid::from_u128(9))
}

/// Addresses that no other test uses at the same time.
fn addresses() -> [Ipv4Addr; 3] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = u8::try_from(NEXT.fetch_add(1, Ordering::SeqCst)).unwrap();
    [1, 2, 3].map(|last| Ipv4Addr::new(127, 87, number, last))
}

/// A node's folders.
struct Node {
    _temporary: otherix_testkit::TempDir,
    host: Host,
}

impl Node {
    fn new() -> Self {
        let temporary = otherix_testkit::tempdir().unwrap();
        let state = temporary.path().to_owned();
        fs::create_dir(state.join("vms")).unwrap();
        let settings = CacheSettings {
            folder: state.join("images"),
            budget: 1 << 30,
            max_virtual_size: overlay::DISK_MAX,
            part_max_age: std::time::Duration::from_secs(60),
        };
        let host = Host {
            runtime: SystemRuntime::shared(),
            folder: state.join("vms"),
            cache: Cache::open(settings, FetchSettings::default()).unwrap(),
            qemu: Ok(PathBuf::from("/bin/false")),
            accelerator: Choice { accelerator: Accelerator::Tcg, reason: String::new() },
            cgroup: None,
            launcher: Launcher { program: "/bin/false".into(), arguments: Vec::new() },
            boot_id: String::new(),
            users: Mutex::new(Users::default()),
            taking: Arc::default(),
        };
        Self { _temporary: temporary, host }
    }

    fn folder(&self) -> VmFolder {
        folder_of(&self.host.folder, vm())
    }

    /// A VM with a disk in which something is written, over an image of the cache.
    fn with_disk() -> Self {
        let node = Self::new();
        let image = node.host.folder.join("image");
        let mut bytes = vec![0; usize::try_from(SIZE).unwrap() / 8];
        // Of a boot sector.
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(&image, &bytes).unwrap();
        let digest = Digest::from(<[u8; 32]>::from(Sha256::digest(&bytes)));
        let owner = crate::machines::prepare::owner(vm()).unwrap();
        let image = node.host.cache.add(&image, digest, &owner, &Default::default()).unwrap();
        let folder = node.folder();
        folder.create().unwrap();
        let base = overlay::Base { path: image.path.clone(), format: Format::Raw };
        overlay::create(&folder.disk(), &base, image.info.virtual_size, SIZE).unwrap();
        let disk = File::options().write(true).open(folder.disk()).unwrap();
        // With a hole between, and something that no piece ends with.
        disk.write_all_at(&[0xa5; 3 << 20], 1 << 20).unwrap();
        disk.write_all_at(b"the end", 40 << 20).unwrap();
        let base = BaseImage { path: image.path, format: ImageFormat::Raw };
        let origin = Origin { image: digest.to_string(), base, size: image.info.virtual_size, user: 0x7000_0000 };
        write_json(&folder.origin(), &origin).unwrap();
        node
    }

    fn give(&self, gifts: &Gifts, to: Ipv4Addr) -> Giving {
        let lock = self.folder().try_lock().unwrap().unwrap();
        let origin = otherix_vm::folder::read_json(&self.folder().origin()).unwrap();
        gifts.give(vm(), GENERATION, to, Some((lock, origin)))
    }

    fn take(&self, server: &Server, own: Ipv4Addr) -> Result<(), TakeError> {
        self.take_until(server, own, &Abort::default())
    }

    fn take_until(&self, server: &Server, own: Ipv4Addr, abort: &Abort) -> Result<(), TakeError> {
        let folder = self.folder();
        if Incoming::read(&folder).unwrap().is_none() {
            Incoming::begin(&folder, Position::new(GENERATION)).unwrap();
        }
        let own_end = OwnEnd { own, port: server.port, device: None };
        let (id, generation, other) = (vm(), Position::new(GENERATION), server.address);
        let first_port = u16::from(own.octets()[2]);
        let size = Some(SIZE);
        take(&self.host, &Taking { id, generation, size, own_end, other, first_port, abort, progress: &|_| {} })
    }
}

/// Serves on a thread. `cut` limits how many bytes of each connection reach the one that takes.
struct Server {
    address: Ipv4Addr,
    port: u16,
}

impl Server {
    fn start(address: Ipv4Addr, gifts: Gifts) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let gifts = gifts.clone();
                thread::spawn(move || {
                    let _result = gifts.answer(stream);
                });
            }
        });
        Self { address, port }
    }
}

fn content(path: &std::path::Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// Everything but the header, which names the image.
fn assert_same_disk(source: &Node, target: &Node) {
    let (before, after) = (content(&source.folder().disk()), content(&target.folder().disk()));
    assert_eq!(before.len(), after.len());
    assert!(before[1 << 16..] == after[1 << 16..], "the disks differ");
    let header = overlay::read(&target.folder().disk()).unwrap();
    let origin: Origin = otherix_vm::folder::read_json(&target.folder().origin()).unwrap().unwrap();
    assert_eq!((&header.base.path, header.size), (&origin.base.path, SIZE));
    assert!(header.base.path.starts_with(target.host.folder.parent().unwrap()));
    assert!(Incoming::read(&target.folder()).unwrap().unwrap().is_complete);
    for part in ["disk.part", "image.part"] {
        assert!(!target.folder().path().join(part).exists(), "{part} is left");
    }
}

#[test]
fn a_disk_and_its_image_are_copied_without_their_holes() {
    let ([one, two, _], gifts) = (addresses(), Gifts::default());
    let (source, target, server) = (Node::with_disk(), Node::new(), Server::start(one, gifts.clone()));
    let giving = source.give(&gifts, two);
    assert!(source.folder().try_lock().unwrap().is_none(), "nobody starts it meanwhile");
    target.take(&server, two).unwrap();
    assert_same_disk(&source, &target);
    let allocated = |node: &Node| fs::metadata(node.folder().disk()).unwrap().blocks() * 512;
    assert!(allocated(&target) < (8 << 20), "{} bytes", allocated(&target));
    drop(giving);
    assert!(source.folder().try_lock().unwrap().is_some());
    // What is complete needs nobody.
    target.take(&server, two).unwrap();
}

#[test]
fn a_copy_that_is_killed_at_any_piece_goes_on() {
    let ([one, two, three], gifts) = (addresses(), Gifts::default());
    let (source, target, server) = (Node::with_disk(), Node::new(), Server::start(one, gifts.clone()));
    let _giving = source.give(&gifts, two);
    // Each connection is cut after some bytes more than the one before.
    for limit in (0..24).map(|step| step * 400_000 + 17) {
        let cut = Server::start_cut(three, &server, two, limit);
        match target.take(&cut, two) {
            Ok(()) => break,
            Err(TakeError::Later(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(!target.folder().disk().exists());
    }
    target.take(&server, two).unwrap();
    assert_same_disk(&source, &target);
}

#[test]
fn a_kill_between_the_last_steps_is_made_up_for() {
    let ([one, two, _], gifts) = (addresses(), Gifts::default());
    let (source, target, server) = (Node::with_disk(), Node::new(), Server::start(one, gifts.clone()));
    let _giving = source.give(&gifts, two);
    target.take(&server, two).unwrap();
    // As if it was killed after the header was written, and before the disk had its name.
    let folder = target.folder();
    fs::rename(folder.disk(), folder.path().join("disk.part")).unwrap();
    let record = fs::read_to_string(Incoming::path(&folder)).unwrap();
    fs::write(Incoming::path(&folder), record.replace("\"is_complete\":true", "\"is_complete\":false")).unwrap();
    target.take(&server, two).unwrap();
    assert_same_disk(&source, &target);
}

#[test]
fn a_copy_that_differs_is_made_again() {
    let ([one, two, _], gifts) = (addresses(), Gifts::default());
    let (source, target, server) = (Node::with_disk(), Node::new(), Server::start(one, gifts.clone()));
    let _giving = source.give(&gifts, two);
    target.take(&server, two).unwrap();
    let folder = target.folder();
    let part = folder.path().join("disk.part");
    fs::rename(folder.disk(), &part).unwrap();
    File::options().write(true).open(&part).unwrap().write_all_at(b"x", 2 << 20).unwrap();
    let record = fs::read_to_string(Incoming::path(&folder)).unwrap();
    fs::write(Incoming::path(&folder), record.replace("\"is_complete\":true", "\"is_complete\":false")).unwrap();
    let TakeError::Later(text) = target.take(&server, two).unwrap_err() else { panic!("it may succeed later") };
    assert!(text.contains("differs"), "{text}");
    assert!(!folder.disk().exists());
    target.take(&server, two).unwrap();
    assert_same_disk(&source, &target);
}

#[test]
fn others_get_nothing() {
    let ([one, two, three], gifts) = (addresses(), Gifts::default());
    let (source, target, server) = (Node::with_disk(), Node::new(), Server::start(one, gifts.clone()));
    assert!(matches!(target.take(&server, two), Err(TakeError::Later(text)) if text.contains("shuts it down")));
    let giving = source.give(&gifts, two);
    // Another node.
    assert!(matches!(target.take(&server, three), Err(TakeError::Later(_))));
    assert!(!target.folder().path().join("disk.part").exists());
    // Another process of the node that it moves to: its port is not one of root's.
    let question = Question { version: VERSION, vm: vm(), generation: GENERATION, about: Subject::Disk(0) };
    let mut stream = TcpStream::connect((one, server.port)).unwrap();
    write_line(&mut stream, &question).unwrap();
    assert!(read_line::<Reply>(&mut stream).is_err());
    // Nor after the move.
    drop(giving);
    assert!(matches!(target.take(&server, two), Err(TakeError::Later(text)) if text.contains("shuts it down")));
}

#[test]
fn a_vm_without_a_disk_moves_without_one() {
    let ([one, two, _], gifts) = (addresses(), Gifts::default());
    let (target, server) = (Node::new(), Server::start(one, gifts.clone()));
    let _giving = gifts.give(vm(), GENERATION, two, None);
    target.take(&server, two).unwrap();
    assert!(Incoming::read(&target.folder()).unwrap().unwrap().is_complete);
    assert!(!target.folder().disk().exists() && !target.folder().origin().exists());
}

#[test]
fn a_disk_that_is_too_large_or_not_ours_is_never_taken() {
    let ([one, two, _], gifts) = (addresses(), Gifts::default());
    let (source, server) = (Node::with_disk(), Server::start(one, gifts.clone()));
    let _giving = source.give(&gifts, two);
    let disk = File::options().write(true).open(source.folder().disk()).unwrap();
    disk.set_len(1 << 40).unwrap();
    let TakeError::Never(text) = Node::new().take(&server, two).unwrap_err() else { panic!("never") };
    assert!(text.contains("too much for a disk of 64 MiB"), "{text}");
    disk.set_len(41 << 20).unwrap();
    // A header that names another file of the node.
    disk.write_all_at(b"/etc/shadow\0", 150).unwrap();
    let target = Node::new();
    let TakeError::Never(text) = target.take(&server, two).unwrap_err() else { panic!("never") };
    assert!(text.contains("is not a disk that otherix has made"), "{text}");
    assert!(!target.folder().disk().exists());
}

#[test]
fn a_copy_that_is_aborted_ends_at_once() {
    let [one, two, _] = addresses();
    // It answers nothing.
    let listener = TcpListener::bind((one, 0)).unwrap();
    let server = Server { address: one, port: listener.local_addr().unwrap().port() };
    let (target, abort) = (Node::new(), Abort::default());
    let (own, began) = (abort.clone(), std::time::Instant::now());
    let silent = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        own.abort();
        stream
    });
    assert!(target.take_until(&server, two, &abort).is_err());
    assert!(began.elapsed() < super::wire::IDLE);
    drop(silent.join().unwrap());
}

impl Server {
    /// A server in front of another one, which cuts each connection after `limit` bytes. It asks as `own`.
    fn start_cut(address: Ipv4Addr, behind: &Self, own: Ipv4Addr, limit: u64) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (other, other_port) = (behind.address, behind.port);
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let far = connect_as_root(own, other, other_port).unwrap();
                relay(near, far, limit);
            }
        });
        Self { address, port }
    }
}

fn relay(near: TcpStream, far: TcpStream, limit: u64) {
    let (mut asks, mut to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    thread::spawn(move || io::copy(&mut asks, &mut to_far).unwrap_or_default());
    let (mut answers, mut to_near) = (far.take(limit), near);
    // Either of them may end first.
    let _copied = io::copy(&mut answers, &mut to_near);
    let _flushed = to_near.flush();
    let _ended = to_near.shutdown(std::net::Shutdown::Both);
    let _ended = answers.into_inner().shutdown(std::net::Shutdown::Both);
}

fn connect_as_root(own: Ipv4Addr, other: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    use rustix::net::sockopt::set_socket_reuseaddr;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    for from in 700..1000 {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        if bind(&socket, &std::net::SocketAddrV4::new(own, from)).is_ok()
            && connect(&socket, &std::net::SocketAddrV4::new(other, port)).is_ok()
        {
            return Ok(socket.into());
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
