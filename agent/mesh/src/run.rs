//! The loop: waits for packets, messages, clients and time, and gives each its turn. One thread; it waits nowhere else.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::control::Control;
use super::device::Device;
use super::uapi::{self, UapiRequest};

/// Runs until `stop` is readable or its other end is closed.
pub(super) fn run(device: &mut Device, control: &mut Control, stop: BorrowedFd<'_>) -> io::Result<()> {
    let mut ready = Vec::new();
    loop {
        wait(device, control, stop, &mut ready)?;
        let now = Instant::now();
        device.set_time(now, SystemTime::now());
        let [stopped, v4, v6, tun, clients @ ..] = ready.as_slice() else { return Ok(()) };
        if !stopped.is_empty() {
            return Ok(());
        }
        if device.is_blocked() && (*v4 | *v6).contains(PollFlags::OUT) {
            device.resume();
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
        device.tick();
        let is_ready = |number: usize| clients.get(number).is_some_and(|flags| !flags.is_empty());
        control.serve(now, is_ready, |request| answer(device, request));
    }
}

/// Waits, and notes what is ready: `stop`, both sockets, the TUN end, the listener, the clients.
fn wait(device: &Device, control: &Control, stop: BorrowedFd<'_>, ready: &mut Vec<PollFlags>) -> io::Result<()> {
    let now = Instant::now();
    let due = control.due().min(device.due());
    let timeout = Timespec::try_from(due.saturating_duration_since(now)).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    let (v4, v6) = device.sockets();
    let input = PollFlags::IN;
    let socket = if device.is_blocked() { input | PollFlags::OUT } else { input };
    // What there is none of at present is not waited for.
    let maybe = |end: Option<BorrowedFd<'_>>, flags| end.map_or(PollFlags::empty(), |_| flags);
    let tun = device.readable_tun();
    let mut sources = vec![
        PollFd::from_borrowed_fd(stop, input),
        PollFd::from_borrowed_fd(v4, socket),
        PollFd::from_borrowed_fd(v6.unwrap_or(stop), maybe(v6, socket)),
        PollFd::from_borrowed_fd(tun.unwrap_or(stop), maybe(tun, input)),
    ];
    let clients = control.sources();
    sources.extend(
        clients.map(|(end, writes)| PollFd::from_borrowed_fd(end, if writes { PollFlags::OUT } else { input })),
    );
    ready.clear();
    match poll(&mut sources, Some(&timeout)) {
        Ok(_) => ready.extend(sources.iter().map(PollFd::revents)),
        Err(Errno::INTR) => ready.resize(sources.len(), PollFlags::empty()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Answers a client's request.
fn answer(device: &mut Device, request: &[u8]) -> Zeroizing<String> {
    let result = match uapi::request(request) {
        Ok(UapiRequest::Get) => return uapi::encode_status(&device.status()),
        Ok(UapiRequest::Set(config)) => device.apply(config),
        Err(error) => {
            tracing::warn!("a request on the local socket was refused: {error}");
            Err(io::Error::from_raw_os_error(Errno::INVAL.raw_os_error()))
        }
    };
    let errno = match result {
        Ok(()) => 0,
        Err(error) => {
            tracing::warn!("a request on the local socket failed: {error}");
            -error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())
        }
    };
    Zeroizing::new(uapi::answer(errno))
}
