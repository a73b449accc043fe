//! The raw sockets for probes. Probes are sent as the kernel routes them, as the packets of VTEPs are; what is received
//! must have come through the mesh device, where WireGuard has verified its source.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, getsockopt, sendmsg, setsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover, set_socket_recv_buffer_size};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::net::UdpSocket;

use super::packet::{self, Received};
use crate::model::mesh_device::MESH;
use crate::model::vxlan::PORT;

/// Size of the largest packet, in bytes.
const PACKET_MAX: usize = 65_535;

/// Most packets that one call receives, so that others can run too.
const PACKETS_MAX: usize = 256;

/// The socket that probes are sent from.
pub(super) struct Sender(OwnedFd);

/// The socket that receives what comes through the mesh device.
pub(super) struct Receiver {
    /// A raw socket: the calls that are used do the same for both types.
    socket: UdpSocket,
    /// The index of the mesh device that it is bound to.
    index: u32,
    buffer: Vec<u8>,
}

fn raw_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))?)
}

impl Sender {
    pub(super) fn open() -> io::Result<Self> {
        let socket = raw_socket()?;
        // Not fragmented, and not limited by what the kernel believes the path MTU to be.
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
        // It receives all ICMP of the node, and nothing reads it: the smallest buffer.
        set_socket_recv_buffer_size(&socket, 1)?;
        Ok(Self(socket))
    }

    /// Sends a probe without its IP header.
    pub(super) fn send(&self, probe: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> io::Result<()> {
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let address = SockaddrIn::from(SocketAddrV4::new(to, 0));
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        sendmsg(self.0.as_raw_fd(), &[IoSlice::new(probe)], &control, MsgFlags::empty(), Some(&address))?;
        Ok(())
    }
}

/// Returns why packets of VTEPs from `own` to another node are not sent through the mesh device, whose MTU is `mtu`, if
/// they are not: without this, a probe could reach the node outside of the tunnel. Sends nothing.
///
/// A socket is connected instead of asking for the route over netlink, which waits for the kernel's rtnl lock.
pub(super) fn misrouted(own: Ipv4Addr, node: Ipv4Addr, mtu: u16) -> Option<String> {
    let connected = || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((node, PORT))?;
        Ok::<_, io::Error>((socket.local_addr()?, getsockopt(&socket, sockopt::IpMtu)?))
    };
    match connected() {
        Err(error) => Some(error.to_string()),
        Ok((source, path)) if source.ip() != own || path > i32::from(mtu) => Some(format!(
            "another program's route or rule sends them from {} instead of through the tunnel: see `ip route get \
            {node}`",
            source.ip()
        )),
        Ok(_) => None,
    }
}

impl Receiver {
    /// Returns the receiver for the mesh device that exists now: this one, or a new one if the device was created
    /// again.
    ///
    /// # Errors
    /// There is no mesh device, or no raw socket can be opened.
    pub(super) fn renewed(current: Option<Self>) -> io::Result<Self> {
        let index = if_nametoindex(MESH)?;
        if let Some(current) = current.filter(|current| current.index == index) {
            return Ok(current);
        }
        let socket = raw_socket()?;
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(MESH))?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, index, buffer: vec![0; PACKET_MAX] })
    }

    /// Waits until something can be received.
    pub(super) async fn readable(&self) {
        if self.socket.readable().await.is_err() {
            // The runtime shuts down.
            std::future::pending::<()>().await;
        }
    }

    /// Returns the probes and replies that have arrived. Never blocks.
    pub(super) fn drain(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        for _ in 0..PACKETS_MAX {
            // Nothing more, or an error of the device, whose successor gets another receiver.
            let Ok(length) = self.socket.try_recv(&mut self.buffer) else { break };
            all.extend(self.buffer.get(..length).and_then(packet::decode));
        }
        all
    }
}
