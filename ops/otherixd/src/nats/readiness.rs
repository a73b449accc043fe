//! Detects when a server accepts clients, and finds its error message when it does not.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::config::NatsFolder;

const POLL: Duration = Duration::from_millis(5);
/// Time-out for a connection and the server's greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits until the server with this process id accepts clients, and returns its port. Cancel-safe.
pub(super) async fn wait_ready(folder: &NatsFolder, pid: u32) -> u16 {
    loop {
        match timeout(GREETING_TIMEOUT, probe(folder, pid)).await {
            Ok(Ok(port)) => return port,
            Ok(Err(error)) => tracing::trace!(%error, "nats-server is not ready"),
            Err(_elapsed) => tracing::debug!("nats-server accepts connections, but sends no greeting"),
        }
        sleep(POLL).await;
    }
}

/// Connects to the port in the port file of this process, so that no other server is mistaken for it.
async fn probe(folder: &NatsFolder, pid: u32) -> io::Result<u16> {
    let text = fs::read_to_string(folder.ports(pid))?;
    let ports: Value = serde_json::from_str(&text)?; // fails while the file is incomplete, and is retried
    let address = ports
        .pointer("/nats/0")
        .and_then(Value::as_str)
        // The scheme is `tls` if connections are encrypted.
        .and_then(|url| url.split_once("://").map(|(_, address)| address))
        .ok_or_else(|| io::Error::other(format!("no client address in {ports}")))?;
    // A server that listens on all addresses publishes one of them.
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let address = address.parse().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let mut greeting = String::new();
    BufReader::new(TcpStream::connect(address).await?).read_line(&mut greeting).await?;
    if greeting.starts_with("INFO ") { Ok(port) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The server's last error message.
pub(super) fn last_error(folder: &NatsFolder) -> String {
    let stderr = fs::read_to_string(folder.stderr()).unwrap_or_default();
    let log = fs::read(folder.log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let logged = log.lines().rev().find(|line| line.contains("[FTL]") || line.contains("[ERR]"));
    let message = stderr.lines().map(str::trim).rfind(|line| !line.is_empty()).or(logged);
    message.unwrap_or("no error message").to_owned()
}
