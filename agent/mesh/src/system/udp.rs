//! The UDP sockets, one for each family. Owns their options, sending trains of messages of equal size as one, and receiving
//! them so. Never waits.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, cmsg_space, recvmsg, sendmsg, setsockopt, sockopt,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt as options};

/// Bytes of both buffers: as many as come in while a wake of this thread handles others.
const BUFFER: usize = 8 << 20;

/// Most messages in a train (`UDP_MAX_SEGMENTS` was 64 before Linux 6.9), and most bytes of one: a UDP packet's over IPv4.
pub(crate) const TRAIN_MESSAGES: usize = 64;
pub(crate) const TRAIN_BYTES: usize = 65_507;

/// The sockets of a device. IPv6 may be missing from a kernel.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) v4: Socket,
    pub(crate) v6: Option<Socket>,
    port: u16,
}

#[derive(Debug)]
pub(crate) struct Socket {
    end: OwnedFd,
    /// Whether the kernel cuts trains.
    segments: bool,
    control: Vec<u8>,
}

/// What was received: messages of `size` bytes, the last of which may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) size: usize,
    pub(crate) from: SocketAddr,
}

impl Sockets {
    /// Binds both families to one port; 0 for any that is free.
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let v4 = Socket::bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        let port = v4.port()?;
        let v6 = match Socket::bind((Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(socket) => Some(socket),
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6, port })
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Marks what is sent, for routing policy; 0 takes the mark away.
    pub(crate) fn set_mark(&self, mark: u32) -> io::Result<()> {
        for socket in [Some(&self.v4), self.v6.as_ref()].into_iter().flatten() {
            setsockopt(&socket.end, sockopt::Mark, &mark)?;
        }
        Ok(())
    }

    /// The socket that reaches an address.
    pub(crate) fn to(&mut self, address: SocketAddr) -> Option<&mut Socket> {
        if address.is_ipv4() { Some(&mut self.v4) } else { self.v6.as_mut() }
    }
}

fn is_absent(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Socket {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let end = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        if address.is_ipv6() {
            options::set_ipv6_v6only(&end, true)?;
        }
        // Above the system's limit, which needs a privilege that one who makes TUN devices has; else up to the limit.
        if options::set_socket_recv_buffer_size_force(&end, BUFFER).is_err() {
            options::set_socket_recv_buffer_size(&end, BUFFER)?;
        }
        if options::set_socket_send_buffer_size_force(&end, BUFFER).is_err() {
            options::set_socket_send_buffer_size(&end, BUFFER)?;
        }
        // Linux 5.0 and later; without it messages come one by one.
        let _merges = setsockopt(&end, sockopt::UdpGroSegment, &true);
        bind(&end, &address)?;
        Ok(Self { end, segments: true, control: vec![0; cmsg_space::<i32>() * 4] })
    }

    fn port(&self) -> io::Result<u16> {
        let address = SocketAddr::try_from(getsockname(&self.end)?)?;
        Ok(address.port())
    }

    /// Sends messages of `size` bytes, the last of which may be shorter; at most as many as a train may have. Says how many bytes
    /// have gone, and why no more, which is `WouldBlock` if there is no room at present.
    pub(crate) fn send(&mut self, messages: &[u8], size: usize, to: SocketAddr) -> (usize, io::Result<()>) {
        if self.segments
            && messages.len() > size
            && let Ok(segment) = u16::try_from(size)
        {
            let sent = self.send_one(messages, &[ControlMessage::UdpGsoSegments(&segment)], to);
            match sent {
                Ok(()) => return (messages.len(), Ok(())),
                // A device that makes no checksums: none of its trains will go.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    tracing::info!("messages are sent one by one: the underlay makes no checksums");
                    self.segments = false;
                }
                // Larger than the path's MTU: one by one they are fragmented.
                Err(error) if is_too_large(&error) => {}
                Err(error) => return (0, Err(error)),
            }
        }
        let mut sent = 0;
        for message in messages.chunks(size.max(1)) {
            match self.send_one(message, &[], to) {
                Ok(()) => sent += message.len(),
                Err(error) => return (sent, Err(error)),
            }
        }
        (sent, Ok(()))
    }

    fn send_one(&self, bytes: &[u8], control: &[ControlMessage<'_>], to: SocketAddr) -> io::Result<()> {
        let address = SockaddrStorage::from(to);
        loop {
            let sent =
                sendmsg(self.end.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::empty(), Some(&address));
            match sent {
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives messages that one sender sent. Give it 65,535 bytes or more.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrStorage>(self.end.as_raw_fd(), &mut parts, Some(&mut self.control), MsgFlags::empty())?;
        let length = message.bytes;
        let from = message.address.as_ref().and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?;
        let mut size = length;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(each) = part
                && let Ok(each) = usize::try_from(each)
                && each > 0
            {
                size = each;
            }
        }
        Ok(Received { length, size, from })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

fn is_too_large(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::MSGSIZE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}
