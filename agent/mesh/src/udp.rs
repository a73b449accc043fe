//! The UDP sockets, one per address family. They send and receive batches of messages of equal size with one system
//! call (GSO and GRO), and never block.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, cmsg_space, recvmsg, sendmsg, setsockopt, sockopt,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt as options};

/// Size of the send and receive buffers in bytes: messages that arrive while the event loop does other work must fit.
const BUFFER_SIZE: usize = 8 << 20;

/// Maximum number of messages in a batch: `UDP_MAX_SEGMENTS` of Linux before 6.9.
pub(crate) const BATCH_MESSAGES_MAX: usize = 64;

/// Maximum size of a batch in bytes: the payload of a UDP packet over IPv4.
pub(crate) const BATCH_BYTES_MAX: usize = 65_507;

/// The sockets of a device. The one of IPv6 is missing if the kernel lacks it.
#[derive(Debug)]
pub(crate) struct UdpSockets {
    pub(crate) v4: UdpSocket,
    pub(crate) v6: Option<UdpSocket>,
    port: u16,
}

#[derive(Debug)]
pub(crate) struct UdpSocket {
    descriptor: OwnedFd,
    /// Whether the underlay supports GSO.
    supports_gso: bool,
    /// The buffer of received control messages.
    control: Vec<u8>,
}

/// Received messages of one sender and of equal size, except that the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedBatch {
    /// Bytes of all messages.
    pub(crate) length: usize,
    pub(crate) message_size: usize,
    pub(crate) from: SocketAddr,
}

impl UdpSockets {
    /// Binds a socket of each family to a port; 0 for any free port.
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        let port = v4.port()?;
        let v6 = match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(socket) => Some(socket),
            Err(error) if is_unsupported(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6, port })
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Sets the mark of sent packets, for policy routing; 0 for none.
    pub(crate) fn set_mark(&self, mark: u32) -> io::Result<()> {
        for socket in [Some(&self.v4), self.v6.as_ref()].into_iter().flatten() {
            setsockopt(&socket.descriptor, sockopt::Mark, &mark)?;
        }
        Ok(())
    }

    /// The socket of the address's family.
    pub(crate) fn for_address(&mut self, address: SocketAddr) -> Option<&mut UdpSocket> {
        if address.is_ipv4() { Some(&mut self.v4) } else { self.v6.as_mut() }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl UdpSocket {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let descriptor = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        if address.is_ipv6() {
            options::set_ipv6_v6only(&descriptor, true)?;
        }
        // Exceeding `net.core.rmem_max` and `wmem_max` requires `CAP_NET_ADMIN`, as creating TUN devices does.
        if options::set_socket_recv_buffer_size_force(&descriptor, BUFFER_SIZE).is_err() {
            options::set_socket_recv_buffer_size(&descriptor, BUFFER_SIZE)?;
        }
        if options::set_socket_send_buffer_size_force(&descriptor, BUFFER_SIZE).is_err() {
            options::set_socket_send_buffer_size(&descriptor, BUFFER_SIZE)?;
        }
        // Before Linux 5.0 there is no GRO, and messages are received one by one.
        let _enabled_or_unsupported = setsockopt(&descriptor, sockopt::UdpGroSegment, &true);
        bind(&descriptor, &address)?;
        Ok(Self { descriptor, supports_gso: true, control: vec![0; cmsg_space::<i32>() * 4] })
    }

    fn port(&self) -> io::Result<u16> {
        let address = SocketAddr::try_from(getsockname(&self.descriptor)?)?;
        Ok(address.port())
    }

    /// Sends a batch of messages of `size` bytes, the last of which may be shorter. Returns how many bytes were sent,
    /// and the error that prevented the rest; `WouldBlock` if the send buffer is full.
    pub(crate) fn send(&mut self, messages: &[u8], size: usize, to: SocketAddr) -> (usize, io::Result<()>) {
        if self.supports_gso
            && messages.len() > size
            && let Ok(segment) = u16::try_from(size)
        {
            let result = self.send_one(messages, &[ControlMessage::UdpGsoSegments(&segment)], to);
            match result {
                Ok(()) => return (messages.len(), Ok(())),
                // GSO requires checksum offload of the underlay's device.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    tracing::info!("sending messages one by one, because the underlay has no checksum offload");
                    self.supports_gso = false;
                }
                // The messages exceed the path MTU. Sent one by one, they are fragmented.
                Err(error) if exceeds_path_mtu(&error) => {}
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
            let result = sendmsg(
                self.descriptor.as_raw_fd(),
                &[IoSlice::new(bytes)],
                control,
                MsgFlags::empty(),
                Some(&address),
            );
            match result {
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a batch of messages. The buffer must have at least 65,535 bytes.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<ReceivedBatch> {
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.descriptor.as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            MsgFlags::empty(),
        )?;
        let length = message.bytes;
        let from = message.address.as_ref().and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?;
        let mut message_size = length;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(size) = control
                && let Ok(size) = usize::try_from(size)
                && size > 0
            {
                message_size = size;
            }
        }
        Ok(ReceivedBatch { length, message_size, from })
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn exceeds_path_mtu(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::MSGSIZE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}
