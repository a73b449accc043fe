//! Carries frames between a VM's tap and its guest, as the hypervisor of a VM does: through the tap's file descriptor, never
//! through a port of its own on the bridge. What the guest sends is carried as it is, also from a MAC that is not the NIC's.
//!
//! When the VM's tap goes, what the guest sends is lost until there is one of that name again. The relay ends with the guest's own
//! tap, or when it is killed; neither tap goes with it.

use std::io::ErrorKind;

use otherix_tun::{FRAME_MAX, Tap, TapError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::args::RelayEnds;
use crate::error::LabError;
use crate::namespace;
use crate::output::say;

/// The guest's own tap, in its namespace: its NIC.
pub(crate) const GUEST_TAP: &str = "eth0";

/// How long until a tap that is gone is looked for again.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Frames carried one way before it is the other way's turn.
const TURN: usize = 64;

/// Carries frames until the guest's end is gone. When the guest's `eth0` has its carrier, both ends are attached.
pub(crate) fn serve(ends: &RelayEnds) -> Result<(), LabError> {
    let RelayEnds { node, tap: name, guest } = ends;
    namespace::enter(node)?;
    let mut vm = Some(Tap::attach(name)?);
    namespace::enter(guest)?;
    let guest = Tap::attach(GUEST_TAP)?;
    // Where the tap will be, should it be made anew.
    namespace::enter(node)?;
    let mut buffer = vec![0; FRAME_MAX];
    loop {
        wait(&guest, vm.as_ref())?;
        let to_vm = |frame: &[u8]| vm.as_ref().map(|tap| tap.write(frame));
        if !carry(&guest, &mut buffer, to_vm) {
            return Err(LabError::GuestTapGone(GUEST_TAP));
        }
        vm = match vm {
            Some(tap) if carry(&tap, &mut buffer, |frame| guest.write(frame)) => Some(tap),
            Some(_) => {
                say(&format!("tap `{name}` is gone"));
                None
            }
            None => attach_again(name)?,
        };
    }
}

/// Waits for frames; not for long while there is no tap.
fn wait(guest: &Tap, vm: Option<&Tap>) -> Result<(), LabError> {
    let look_again = if vm.is_some() { None } else { Some(&LOOK_AGAIN) };
    let mut ends: Vec<_> = [Some(guest), vm].into_iter().flatten().map(|end| PollFd::new(end, PollFlags::IN)).collect();
    match poll(&mut ends, look_again) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(LabError::Poll(error.into())),
    }
}

/// Carries what waits at one end; false if that end is gone. What the other end does not take is lost, as on any wire.
fn carry<T>(from: &Tap, buffer: &mut [u8], mut to: impl FnMut(&[u8]) -> T) -> bool {
    for _ in 0..TURN {
        match from.read(buffer) {
            Ok(length) => drop(buffer.get(..length).map(&mut to)),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

/// The tap, if there is one that can be attached to: who makes it may hold it for a moment.
fn attach_again(name: &str) -> Result<Option<Tap>, LabError> {
    match Tap::attach(name) {
        Ok(tap) => {
            say(&format!("tap `{name}` is there again"));
            Ok(Some(tap))
        }
        Err(TapError::Absent(_) | TapError::Busy(_) | TapError::NotTap(_)) => Ok(None),
        Err(error @ (TapError::Name(_) | TapError::Open(_) | TapError::Exists(_) | TapError::Kernel { .. })) => {
            Err(error.into())
        }
    }
}
