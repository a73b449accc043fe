//! Closing descriptors by their numbers.

#![expect(unsafe_code, reason = "the standard library and rustix have no safe call of `close_range`")]

use rustix::io::{Errno, Result};

/// All descriptors from this number on are closed when the process executes a program.
pub(super) fn close_on_exec(first: i32) -> Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: with this flag nothing is closed now, so that no owner of a descriptor loses it.
    let result = unsafe { libc::close_range(first.cast_unsigned(), u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}
