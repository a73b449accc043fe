//! A write that the kernel does not restart. All of its unsafe code is here.
//!
//! Some settings of `/proc/sys` need the rtnl lock. While another process holds it, the kernel restarts a `write`
//! immediately, again and again: the thread spins until the lock is released, and may keep its holder from running. A
//! write that is submitted by `io_submit` is not restarted, but fails with `EINTR` (`aio_rw_done` in the kernel's
//! `fs/aio.c`), so that the caller can decide how to wait.

#![expect(
    unsafe_code,
    reason = "the system calls have no wrapper, and the kernel reads and writes through their pointers"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// `IOCB_CMD_PWRITE` of the kernel's `include/uapi/linux/aio_abi.h`.
const WRITE: u16 = 1;

/// One block, one event.
const ONE: libc::c_long = 1;

/// `aio_context_t`: identifies a context of this process.
type ContextId = libc::c_ulong;

/// `struct iocb` of `aio_abi.h`: a request.
#[repr(C)]
#[derive(Default)]
struct ControlBlock {
    data: u64,
    /// A field of the kernel, and the flags of the write, in an order that depends on the byte order; both are zero.
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

/// `struct io_event` of `aio_abi.h`: the result of a request.
#[repr(C)]
#[derive(Default)]
struct CompletionEvent {
    data: u64,
    block: u64,
    result: i64,
    second_result: i64,
}

const _: () = assert!(size_of::<ControlBlock>() == 64 && size_of::<CompletionEvent>() == 32, "sizes in the kernel");

/// A context for one write at a time.
#[derive(Debug)]
pub(super) struct Aio(ContextId);

impl Aio {
    /// # Errors
    /// The kernel has no `CONFIG_AIO`, or the limit `fs.aio-max-nr` is reached.
    pub(super) fn new() -> io::Result<Self> {
        let mut context: ContextId = 0;
        // SAFETY: the kernel writes one context, which must be zero before.
        checked(unsafe { libc::syscall(libc::SYS_io_setup, 1 as libc::c_uint, &raw mut context) })?;
        Ok(Self(context))
    }

    /// Writes at the beginning of a file, and blocks until the write is complete. Returns its result: `Interrupted` if
    /// the kernel would have restarted a `write`.
    ///
    /// # Errors
    /// The file does not support asynchronous writes, or the system calls are not permitted.
    pub(super) fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<io::Result<()>> {
        let mut block = ControlBlock {
            operation: WRITE,
            // The descriptor of an open file is not negative.
            file: file.as_raw_fd().cast_unsigned(),
            buffer: bytes.as_ptr() as u64,
            length: bytes.len() as u64,
            ..ControlBlock::default()
        };
        let mut blocks = [&raw mut block];
        // SAFETY: the kernel reads one pointer, the block that it points to, and the bytes that the block points to;
        // all of them outlive the write, whose end is waited for below.
        checked(unsafe { libc::syscall(libc::SYS_io_submit, self.0, ONE, blocks.as_mut_ptr()) })?;
        let mut event = CompletionEvent::default();
        loop {
            // SAFETY: the kernel writes at most one event; without a timeout it waits until there is one.
            let events = unsafe {
                libc::syscall(libc::SYS_io_getevents, self.0, ONE, ONE, &raw mut event, ptr::null::<libc::timespec>())
            };
            match checked(events) {
                Ok(1) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The context does not exist any more, and neither does a write in it.
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
        // Takes 30 ms. If it fails, the context is destroyed at the end of the process.
        // SAFETY: nothing else uses the context, and no write is under way in it.
        let _destroyed_with_the_process = unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// Converts the result of a system call.
fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
