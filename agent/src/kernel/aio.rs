//! A write that the kernel does not begin again by itself. All that is unsafe about it is here.
//!
//! Some switches of `/proc/sys` need the lock of all changes of links. While somebody else has it, the kernel has the
//! caller's `write` begun again, and again, without a pause: the thread spins for as long as the lock is held, and
//! keeps from the processor whoever has it. A write that is submitted by `io_submit` is not begun again, but fails with
//! `EINTR` (`aio_rw_done` in the kernel's `fs/aio.c`), and the caller may wait as it likes.

#![expect(unsafe_code, reason = "the system calls have no wrapper: the kernel reads and writes what they point to")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// `IOCB_CMD_PWRITE` of the kernel's `include/uapi/linux/aio_abi.h`.
const WRITE: u16 = 1;

/// One block, one event.
const ONE: libc::c_long = 1;

/// `aio_context_t`: names a context of this process.
type Context = libc::c_ulong;

/// `struct iocb` of `aio_abi.h`: what is to be done.
#[repr(C)]
#[derive(Default)]
struct Block {
    data: u64,
    /// The kernel's own, and the flags of the write: in the one order or the other, both are zero.
    key_and_flags: u64,
    operation: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_file: u32,
}

/// `struct io_event` of `aio_abi.h`: what came of it.
#[repr(C)]
#[derive(Default)]
struct Event {
    data: u64,
    block: u64,
    result: i64,
    second_result: i64,
}

const _: () = assert!(size_of::<Block>() == 64 && size_of::<Event>() == 32, "the kernel copies that many bytes");

/// A context in which one write at a time is submitted.
#[derive(Debug)]
pub(super) struct Aio(Context);

impl Aio {
    /// # Errors
    /// When the kernel has none to give: it was built without, or has given as many as `fs.aio-max-nr` allows.
    pub(super) fn new() -> io::Result<Self> {
        let mut context: Context = 0;
        // SAFETY: the kernel writes one context, which must be zero before.
        done(unsafe { libc::syscall(libc::SYS_io_setup, 1 as libc::c_uint, &raw mut context) })?;
        Ok(Self(context))
    }

    /// Writes at the beginning of a file. Blocks until that is done. Gives what came of the write: `Interrupted`, when
    /// the kernel would have had it begun again.
    ///
    /// # Errors When it cannot be had so at all: the file is of a kind that can only be written otherwise, or the
    /// system calls are forbidden.
    pub(super) fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<io::Result<()>> {
        let mut block = Block {
            operation: WRITE,
            // A descriptor of an open file is not negative.
            file: file.as_raw_fd().cast_unsigned(),
            buffer: bytes.as_ptr() as u64,
            length: bytes.len() as u64,
            ..Block::default()
        };
        let mut blocks = [&raw mut block];
        // SAFETY: the kernel reads one pointer, the block that it points to and the bytes of the block; all of them
        // outlive the write, which is waited for below.
        done(unsafe { libc::syscall(libc::SYS_io_submit, self.0, ONE, blocks.as_mut_ptr()) })?;
        let mut event = Event::default();
        loop {
            // SAFETY: the kernel writes at most one event; without a time it waits for as long as it takes.
            let events = unsafe {
                libc::syscall(libc::SYS_io_getevents, self.0, ONE, ONE, &raw mut event, ptr::null::<libc::timespec>())
            };
            match done(events) {
                Ok(1) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The context is gone, and with it whatever was under way.
                Err(error) => return Err(error),
            }
        }
        Ok(match usize::try_from(event.result) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(_) => Err(io::Error::from_raw_os_error(i32::try_from(-event.result).unwrap_or(i32::MAX))),
        })
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // The kernel takes 30 ms for it. Should it fail, the context goes with the process.
        // SAFETY: the context is this one's alone, and nothing is under way in it.
        let _goes_with_the_process = unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

fn done(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
