//! The start of a connection: the server's greeting, the upgrade to TLS, and the authentication.
//!
//! The greeting arrives in plain text, from whoever is between. So it decides on TLS only where plain text would be
//! accepted anyway, and nothing that arrives with it is used after the upgrade.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::address::ServerAddress;
use super::failure::{ConnectFailure, CredentialsRefusal};
use super::link::LinkSettings;
use super::protocol::{Connect, Parser, ProtocolError, ServerInfo, ServerOp};
use crate::credentials::Credentials;
use crate::tls::{TlsFailure, TrustedCa};

/// Bytes that are read at once.
pub(super) const READ: usize = 64 * 1024;

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection that the server has accepted.
pub(super) struct Link {
    pub(super) reader: Reader,
    /// What is written may wait in it until it is flushed.
    pub(super) writer: Writer,
    pub(super) parser: Parser,
    /// What has arrived and is not parsed yet.
    pub(super) arrived: BytesMut,
    pub(super) info: ServerInfo,
    pub(super) peer: SocketAddr,
}

/// Connects to a server at one of its addresses, and authenticates.
pub(super) async fn connect(
    address: &ServerAddress,
    peer: SocketAddr,
    settings: &LinkSettings,
    credentials: &Credentials,
) -> Result<Link, ConnectFailure> {
    let mut stream = TcpStream::connect(peer)
        .await
        .map_err(|source| ConnectFailure::Connect { address: address.clone(), source })?;
    stream.set_nodelay(true)?;
    let (mut parser, mut arrived) = (Parser::default(), BytesMut::with_capacity(READ));
    let info = match receive(&mut stream, &mut parser, &mut arrived).await? {
        ServerOp::Info(info) => *info,
        ServerOp::Error(text) => return Err(ConnectFailure::Refused(text)),
        ServerOp::Message(_) | ServerOp::Ping | ServerOp::Pong | ServerOp::Ok => return Err(ProtocolError::Info.into()),
    };
    let is_encrypted = info.tls_required || info.tls_available;
    let (reader, writer): (Reader, Writer) = if is_encrypted {
        if !arrived.is_empty() {
            return Err(TlsFailure::Injected.into());
        }
        let stream = trusted_ca(settings).await?.connect(&address.host, stream).await?;
        let (reader, writer) = tokio::io::split(stream);
        (Box::new(reader), Box::new(writer))
    } else if settings.ca.is_some() || address.requires_tls {
        return Err(TlsFailure::NotOffered.into());
    } else {
        let (reader, writer) = stream.into_split();
        (Box::new(reader), Box::new(writer))
    };
    let link = Link { reader, writer, parser, arrived, info, peer };
    authenticate(link, settings, credentials, is_encrypted).await
}

/// The configured CA, or those of this machine, which are loaded when a server needs them.
async fn trusted_ca(settings: &LinkSettings) -> Result<TrustedCa, ConnectFailure> {
    static SYSTEM: OnceCell<TrustedCa> = OnceCell::const_new();
    if let Some(ca) = &settings.ca {
        return Ok(ca.clone());
    }
    let load = async || {
        let loaded = settings.runtime.run_blocking("load the CAs of this machine", TrustedCa::system).await;
        Ok::<_, ConnectFailure>(loaded.map_err(io::Error::other)?.map_err(TlsFailure::from)?)
    };
    Ok(SYSTEM.get_or_try_init(load).await?.clone())
}

/// Sends the credentials, and waits for their acceptance.
async fn authenticate(
    mut link: Link,
    settings: &LinkSettings,
    credentials: &Credentials,
    is_encrypted: bool,
) -> Result<Link, ConnectFailure> {
    let connect = Connect {
        verbose: false,
        pedantic: false,
        authentication: credentials.authenticate(link.info.nonce.as_deref())?,
        tls_required: is_encrypted,
        name: &settings.name,
        lang: "otherix",
        version: env!("CARGO_PKG_VERSION"),
        // Later INFO messages may arrive.
        protocol: 1,
        headers: true,
        no_responders: true,
    };
    let connect = serde_json::to_string(&connect).map_err(io::Error::from)?;
    link.writer.write_all(format!("CONNECT {connect}\r\nPING\r\n").as_bytes()).await?;
    link.writer.flush().await?;
    loop {
        match receive(&mut link.reader, &mut link.parser, &mut link.arrived).await? {
            ServerOp::Pong => return Ok(link),
            ServerOp::Error(text) => return Err(refusal(text, settings, credentials)),
            ServerOp::Ping => {
                link.writer.write_all(b"PONG\r\n").await?;
                link.writer.flush().await?;
            }
            ServerOp::Info(_) | ServerOp::Ok | ServerOp::Message(_) => {}
        }
    }
}

/// Why the server ends a connection with an error.
pub(super) fn refusal(text: String, settings: &LinkSettings, credentials: &Credentials) -> ConnectFailure {
    let now = settings.runtime.now().ok();
    match CredentialsRefusal::parse(&text, credentials, now) {
        Some(refusal) => refusal.into(),
        None => ConnectFailure::Refused(text.escape_debug().to_string()),
    }
}

/// Reads until the next operation is complete.
async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    parser: &mut Parser,
    arrived: &mut BytesMut,
) -> Result<ServerOp, ConnectFailure> {
    loop {
        if let Some(op) = parser.next(arrived)? {
            return Ok(op);
        }
        if from.read_buf(arrived).await? == 0 {
            return Err(ConnectFailure::Closed);
        }
    }
}
