//! Whether a server serves, told by the server itself, and what it said when it does not.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::config::Folder;

const POLL: Duration = Duration::from_millis(5);
/// How long one look at a server may take.
const GREETING_WITHIN: Duration = Duration::from_secs(2);

/// Waits until the server with this process id greets clients, and says on which port. Cancel-safe.
pub(super) async fn wait_ready(folder: &Folder, pid: u32) -> u16 {
    loop {
        match timeout(GREETING_WITHIN, look(folder, pid)).await {
            Ok(Ok(port)) => return port,
            Ok(Err(error)) => tracing::trace!(%error, "nats-server is not ready"),
            Err(_elapsed) => tracing::debug!("nats-server accepts, but does not greet"),
        }
        sleep(POLL).await;
    }
}

/// The file is named after the process: nobody else's server on this port is taken for ours.
async fn look(folder: &Folder, pid: u32) -> io::Result<u16> {
    let text = fs::read_to_string(folder.ports(pid))?;
    let ports: Value = serde_json::from_str(&text)?; // half written: read again
    let address = ports
        .pointer("/nats/0")
        .and_then(Value::as_str)
        .and_then(|url| url.strip_prefix("nats://"))
        .ok_or_else(|| io::Error::other(format!("no address of clients in {ports}")))?;
    // A server on every address names one it would have clients use.
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let address = address.parse().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let mut greeting = String::new();
    BufReader::new(TcpStream::connect(address).await?).read_line(&mut greeting).await?;
    if greeting.starts_with("INFO ") { Ok(port) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// What the server said last that may be the reason for its end.
pub(super) fn last_words(folder: &Folder) -> String {
    let stderr = fs::read_to_string(folder.stderr()).unwrap_or_default();
    let log = fs::read(folder.log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let grave = log.lines().rev().find(|line| line.contains("[FTL]") || line.contains("[ERR]"));
    let said = stderr.lines().map(str::trim).rfind(|line| !line.is_empty()).or(grave);
    said.unwrap_or("it did not say why").to_owned()
}
