//! Relays frames between a VM's tap and its guest as a hypervisor does: through the tap's file descriptor, not through
//! a separate bridge port. Frames are passed unchanged, including those from a MAC that is not the NIC's.
//!
//! While the VM's tap does not exist, the guest's frames are lost. The relay ends when the guest's own tap is deleted
//! or when it is killed; both taps remain after it has ended.

use std::io::ErrorKind;

use otherix_tun::{FRAME_MAX, TapDevice, TapError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::args::RelayEnds;
use crate::error::LabError;
use crate::namespace;
use crate::output::report_progress;

/// The guest's own tap, in its namespace: its NIC.
pub(crate) const GUEST_TAP: &str = "eth0";

/// Pause between attempts to attach to a tap that does not exist.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Maximum number of frames relayed in one direction before the other direction is served.
const BATCH: usize = 64;

/// Relays frames until the guest's tap is deleted. Both ends are attached once the guest's `eth0` has a carrier.
pub(crate) fn serve(ends: &RelayEnds) -> Result<(), LabError> {
    let RelayEnds { node, tap: name, guest } = ends;
    namespace::enter(node)?;
    let mut vm = Some(TapDevice::attach(name)?);
    namespace::enter(guest)?;
    let guest = TapDevice::attach(GUEST_TAP)?;
    // The namespace in which a recreated tap appears.
    namespace::enter(node)?;
    let mut buffer = vec![0; FRAME_MAX];
    loop {
        wait(&guest, vm.as_ref())?;
        let to_vm = |frame: &[u8]| vm.as_ref().map(|tap| tap.write(frame));
        if !relay(&guest, &mut buffer, to_vm) {
            return Err(LabError::GuestTapGone(GUEST_TAP));
        }
        vm = match vm {
            Some(tap) if relay(&tap, &mut buffer, |frame| guest.write(frame)) => Some(tap),
            Some(_) => {
                report_progress(&format!("tap `{name}` was deleted"));
                None
            }
            None => try_reattach(name)?,
        };
    }
}

/// Waits for frames, or for the next attempt to attach while the VM's tap is missing.
fn wait(guest: &TapDevice, vm: Option<&TapDevice>) -> Result<(), LabError> {
    let timeout = if vm.is_some() { None } else { Some(&RETRY) };
    let mut ends: Vec<_> = [Some(guest), vm].into_iter().flatten().map(|end| PollFd::new(end, PollFlags::IN)).collect();
    match poll(&mut ends, timeout) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(LabError::Poll(error.into())),
    }
}

/// Relays the frames queued at one end; returns false if that tap was deleted. Frames that the other end does not
/// accept are lost.
fn relay<T>(from: &TapDevice, buffer: &mut [u8], mut to: impl FnMut(&[u8]) -> T) -> bool {
    for _ in 0..BATCH {
        match from.read(buffer) {
            Ok(length) => drop(buffer.get(..length).map(&mut to)),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

/// Attaches to the tap if it exists and is free: its creator may hold it briefly.
fn try_reattach(name: &str) -> Result<Option<TapDevice>, LabError> {
    match TapDevice::attach(name) {
        Ok(tap) => {
            report_progress(&format!("tap `{name}` exists again"));
            Ok(Some(tap))
        }
        Err(TapError::Absent(_) | TapError::Busy(_) | TapError::NotTap(_)) => Ok(None),
        Err(error @ (TapError::Name(_) | TapError::Open(_) | TapError::Exists(_) | TapError::Kernel { .. })) => {
            Err(error.into())
        }
    }
}
