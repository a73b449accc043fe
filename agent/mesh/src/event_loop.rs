//! The event loop of the process's only thread: waits for packets, messages, clients and timers, and does a bounded
//! amount of work for each that is ready.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::control_socket::ControlSocket;
use super::device::MeshDevice;
use super::uapi::{self, UapiRequest};

/// Runs until `stop` is readable or its other end is closed.
pub(super) fn run(device: &mut MeshDevice, control: &mut ControlSocket, stop: BorrowedFd<'_>) -> io::Result<()> {
    let mut ready = Vec::new();
    loop {
        wait(device, control, stop, &mut ready)?;
        let now = Instant::now();
        device.set_time(now, SystemTime::now());
        let [stopped, v4, v6, tun, control_events @ ..] = ready.as_slice() else { return Ok(()) };
        if !stopped.is_empty() {
            return Ok(());
        }
        if device.is_blocked() && (*v4 | *v6).contains(PollFlags::OUT) {
            device.resume_sending();
        }
        if v4.intersects(PollFlags::IN | PollFlags::ERR) {
            device.receive(false);
        }
        if v6.intersects(PollFlags::IN | PollFlags::ERR) {
            device.receive(true);
        }
        if tun.contains(PollFlags::IN) {
            device.read_tun();
        } else if !tun.is_empty() {
            device.check_tun();
        }
        device.run_timers();
        let is_ready = |index: usize| control_events.get(index).is_some_and(|events| !events.is_empty());
        control.serve(now, is_ready, |request| answer(device, request));
    }
}

/// Waits for an event or the next deadline. Afterwards `ready` has the events of `stop`, of both UDP sockets, of the
/// TUN device, and of the sources of the control socket.
fn wait(
    device: &MeshDevice,
    control: &ControlSocket,
    stop: BorrowedFd<'_>,
    ready: &mut Vec<PollFlags>,
) -> io::Result<()> {
    let now = Instant::now();
    let deadline = control.next_deadline().min(device.next_deadline());
    let timeout = deadline.saturating_duration_since(now);
    let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    let (v4, v6) = device.sockets();
    let udp_events = if device.is_blocked() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    // A missing descriptor keeps its position: `stop` stands in for it, with no events.
    let events_of = |descriptor: Option<_>, events| if descriptor.is_some() { events } else { PollFlags::empty() };
    let tun = device.readable_tun();
    let mut sources = vec![
        PollFd::from_borrowed_fd(stop, PollFlags::IN),
        PollFd::from_borrowed_fd(v4, udp_events),
        PollFd::from_borrowed_fd(v6.unwrap_or(stop), events_of(v6, udp_events)),
        PollFd::from_borrowed_fd(tun.unwrap_or(stop), events_of(tun, PollFlags::IN)),
    ];
    sources.extend(control.sources().map(|(descriptor, events)| PollFd::from_borrowed_fd(descriptor, events)));
    ready.clear();
    match poll(&mut sources, Some(&timeout)) {
        Ok(_) => ready.extend(sources.iter().map(PollFd::revents)),
        Err(Errno::INTR) => ready.resize(sources.len(), PollFlags::empty()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Executes a client's request and returns the answer.
fn answer(device: &mut MeshDevice, request: &[u8]) -> Zeroizing<String> {
    let result = match uapi::decode_request(request) {
        Ok(UapiRequest::Get) => return uapi::encode_status(&device.status()),
        Ok(UapiRequest::Set(update)) => device.apply(update),
        Err(error) => {
            tracing::warn!("refused a request on the local socket: {error}");
            Err(Errno::INVAL.into())
        }
    };
    let errno = match result {
        Ok(()) => 0,
        Err(error) => {
            tracing::warn!("a request on the local socket failed: {error}");
            -error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())
        }
    };
    Zeroizing::new(uapi::encode_set_answer(errno))
}
