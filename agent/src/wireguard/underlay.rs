//! Where the other nodes reach this one.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use otherix_schemas::value::MeshEndpoint;
use tokio::net::UdpSocket;

/// Why this node's own address is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnderlayError {
    /// The URL says nothing that can be looked up.
    #[error("the URL of NATS has no host")]
    NoHost,
    /// There is no way there, or nobody knows the name, at present.
    #[error("there is no way to NATS")]
    NoWay(#[source] std::io::Error),
    /// Other nodes cannot reach it there.
    #[error("NATS is reached from {0}, an address that other nodes cannot reach")]
    Local(IpAddr),
}

/// The address that this node reaches NATS from, which needs nobody to answer there, with this port.
///
/// # Errors
/// [`UnderlayError`].
pub(super) async fn endpoint(nats: &otherix_transport::NatsEndpoint, port: u16) -> Result<MeshEndpoint, UnderlayError> {
    let (host, nats_port) = nats.host().ok_or(UnderlayError::NoHost)?;
    let from = async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect((host, nats_port)).await?;
        socket.local_addr()
    };
    match from.await.map_err(UnderlayError::NoWay)? {
        SocketAddr::V4(from) if !from.ip().is_loopback() => MeshEndpoint::try_from(SocketAddrV4::new(*from.ip(), port))
            .map_err(|_| UnderlayError::Local(IpAddr::V4(*from.ip()))),
        from @ (SocketAddr::V4(_) | SocketAddr::V6(_)) => Err(UnderlayError::Local(from.ip())),
    }
}
