//! The address at which other nodes reach this one.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use otherix_schemas::value::MeshEndpoint;
use otherix_transport::NatsEndpoint;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long the name of NATS may take to be resolved.
const RESOLUTION: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(super) enum UnderlayError {
    #[error("the URL of NATS has no host")]
    NoHost,
    /// There is no route to NATS, or its name cannot be resolved.
    #[error("there is no route to NATS")]
    Unreachable(#[source] std::io::Error),
    #[error("the connection to NATS uses {0}, an address that other nodes cannot reach")]
    Local(IpAddr),
}

/// Returns the source address of packets to NATS, with this port. Sends nothing: NATS need not be running.
///
/// # Errors
/// [`UnderlayError`].
pub(super) async fn endpoint(nats: &NatsEndpoint, port: u16) -> Result<MeshEndpoint, UnderlayError> {
    let (host, nats_port) = nats.host().ok_or(UnderlayError::NoHost)?;
    let source = async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect((host, nats_port)).await?;
        socket.local_addr()
    };
    let source = timeout(RESOLUTION, source).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match source.map_err(UnderlayError::Unreachable)? {
        SocketAddr::V4(source) if !source.ip().is_loopback() => {
            MeshEndpoint::try_from(SocketAddrV4::new(*source.ip(), port))
                .map_err(|_| UnderlayError::Local(IpAddr::V4(*source.ip())))
        }
        source @ (SocketAddr::V4(_) | SocketAddr::V6(_)) => Err(UnderlayError::Local(source.ip())),
    }
}
