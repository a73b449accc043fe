//! Requests and answers, read. A request is read as a whole before anything of it is done.

use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use super::UapiRequest;
use crate::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerStatus, WgPeerUpdate};
use crate::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};

/// What is wrong with a request; nothing of it has been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UapiRequestError {
    /// Not text of UTF-8.
    #[error("not text")]
    NotText,
    /// Neither `get=1` nor `set=1`.
    #[error("neither a get nor a set")]
    Unknown,
    /// A line without `=`, or with a key that is not known where it stands.
    #[error("line {0} has no key that is known there")]
    Key(usize),
    /// A value that its key does not take.
    #[error("the value of line {0} is not one that its key takes")]
    Value(usize),
}

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UapiAnswerError {
    /// The device says so.
    #[error("the device refused: {}", std::io::Error::from_raw_os_error(.0.saturating_abs()))]
    Refused(i32),
    /// It is not an answer of this protocol.
    #[error("line {0} of the answer is not of WireGuard's userspace protocol")]
    Line(usize),
    /// The answer has no `errno`.
    #[error("the answer has no end")]
    Unfinished,
}

/// The lines of a request or answer up to the empty one, numbered from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(index, line)| (index + 1, line)).take_while(|(_, line)| !line.is_empty())
}

/// Reads one request.
///
/// # Errors
/// [`UapiRequestError`], which names the line.
pub fn request(bytes: &[u8]) -> Result<UapiRequest, UapiRequestError> {
    let text = std::str::from_utf8(bytes).map_err(|_| UapiRequestError::NotText)?;
    let mut lines = lines(text);
    match lines.next() {
        Some((_, "get=1")) => match lines.next() {
            None => Ok(UapiRequest::Get),
            Some((number, _)) => Err(UapiRequestError::Key(number)),
        },
        Some((_, "set=1")) => config(lines).map(UapiRequest::Set),
        Some(_) | None => Err(UapiRequestError::Unknown),
    }
}

fn config<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<WgDeviceUpdate, UapiRequestError> {
    let mut config = WgDeviceUpdate::default();
    for (number, line) in lines {
        let (key, value) = line.split_once('=').ok_or(UapiRequestError::Key(number))?;
        let bad = UapiRequestError::Value(number);
        if key == "public_key" {
            config.peers.push(WgPeerUpdate::new(WgPublicKey::from_hex(value).map_err(|_| bad)?));
            continue;
        }
        let known = match config.peers.last_mut() {
            None => set_device(&mut config, key, value),
            Some(peer) => set_peer(peer, key, value),
        };
        match known {
            Some(Some(())) => {}
            Some(None) => return Err(bad),
            None => return Err(UapiRequestError::Key(number)),
        }
    }
    Ok(config)
}

/// `None` if the key is not known, `Some(None)` if the value is wrong.
fn set_device(config: &mut WgDeviceUpdate, key: &str, value: &str) -> Option<Option<()>> {
    Some(match key {
        "private_key" => WgPrivateKey::from_hex(value).ok().map(|key| config.private_key = Some(key)),
        "listen_port" => number(value).map(|port| config.listen_port = Some(port)),
        "fwmark" => mark(value).map(|mark| config.fwmark = Some(mark)),
        "replace_peers" => yes(value).map(|()| config.replace_peers = true),
        _ => return None,
    })
}

fn set_peer(peer: &mut WgPeerUpdate, key: &str, value: &str) -> Option<Option<()>> {
    Some(match key {
        "remove" => yes(value).map(|()| peer.remove = true),
        "update_only" => yes(value).map(|()| peer.update_only = true),
        "preshared_key" => WgPresharedKey::from_hex(value).ok().map(|key| peer.preshared_key = Some(key)),
        "endpoint" => value.parse().ok().map(|endpoint| peer.endpoint = Some(endpoint)),
        "persistent_keepalive_interval" => number(value).map(|seconds| peer.keepalive = Some(seconds)),
        "replace_allowed_ips" => yes(value).map(|()| peer.replace_allowed_ips = true),
        "allowed_ip" => {
            let (remove, prefix) = value.strip_prefix('-').map_or((false, value), |prefix| (true, prefix));
            prefix.parse().ok().map(|prefix| peer.allowed_ips.push(AllowedIp { prefix, remove }))
        }
        "protocol_version" => {
            if value == "1" {
                Some(())
            } else {
                None
            }
        }
        _ => return None,
    })
}

fn yes(value: &str) -> Option<()> {
    if value == "true" { Some(()) } else { None }
}

/// A number of decimal digits; `parse` would take a sign too.
fn number<N: FromStr>(value: &str) -> Option<N> {
    if value.bytes().all(|byte| byte.is_ascii_digit()) { value.parse().ok() } else { None }
}

/// `wg` writes a mark in decimal, other programs in hexadecimal.
fn mark(value: &str) -> Option<u32> {
    match value.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => number(value),
    }
}

/// Reads the answer to a request for a change.
///
/// # Errors
/// [`UapiAnswerError`].
pub fn set_answer(text: &str) -> Result<(), UapiAnswerError> {
    let (line, content) = lines(text).next().ok_or(UapiAnswerError::Unfinished)?;
    let errno = content.strip_prefix("errno=").and_then(|value| value.parse().ok());
    match errno.ok_or(UapiAnswerError::Line(line))? {
        0 => Ok(()),
        errno => Err(UapiAnswerError::Refused(errno)),
    }
}

/// Reads the answer to a request for the status. Keys that are not known are passed over: another program may be the device.
///
/// # Errors
/// [`UapiAnswerError`].
pub fn status(text: &str) -> Result<WgDeviceStatus, UapiAnswerError> {
    let mut status = WgDeviceStatus { private_key: None, listen_port: 0, fwmark: 0, peers: Vec::new() };
    let mut handshake = Duration::ZERO;
    for (line, content) in lines(text) {
        let (key, value) = content.split_once('=').ok_or(UapiAnswerError::Line(line))?;
        let bad = UapiAnswerError::Line(line);
        if key == "errno" {
            settle(&mut status, handshake);
            return match value.parse() {
                Ok(0) => Ok(status),
                Ok(errno) => Err(UapiAnswerError::Refused(errno)),
                Err(_) => Err(bad),
            };
        }
        if key == "public_key" {
            settle(&mut status, std::mem::take(&mut handshake));
            status.peers.push(WgPeerStatus::new(WgPublicKey::from_hex(value).map_err(|_| bad)?));
            continue;
        }
        let read = match status.peers.last_mut() {
            None => get_device(&mut status, key, value),
            Some(peer) => get_peer(peer, &mut handshake, key, value),
        };
        read.ok_or(bad)?;
    }
    Err(UapiAnswerError::Unfinished)
}

/// The time of a handshake comes in two lines; zero stands for never.
fn settle(status: &mut WgDeviceStatus, handshake: Duration) {
    if let Some(peer) = status.peers.last_mut().filter(|_| !handshake.is_zero()) {
        peer.last_handshake = UNIX_EPOCH.checked_add(handshake);
    }
}

fn get_device(status: &mut WgDeviceStatus, key: &str, value: &str) -> Option<()> {
    match key {
        "private_key" => status.private_key = WgPrivateKey::from_hex(value).ok()?,
        "listen_port" => status.listen_port = number(value)?,
        "fwmark" => status.fwmark = mark(value)?,
        _ => {}
    }
    Some(())
}

fn get_peer(peer: &mut WgPeerStatus, handshake: &mut Duration, key: &str, value: &str) -> Option<()> {
    match key {
        "preshared_key" => peer.preshared_key = WgPresharedKey::from_hex(value).ok()?,
        "endpoint" => peer.endpoint = Some(value.parse().ok()?),
        "last_handshake_time_sec" => {
            *handshake = handshake.checked_add(Duration::from_secs(number(value)?))?;
        }
        "last_handshake_time_nsec" => {
            *handshake = handshake.checked_add(Duration::from_nanos(number::<u32>(value)?.into()))?;
        }
        "tx_bytes" => peer.tx_bytes = number(value)?,
        "rx_bytes" => peer.rx_bytes = number(value)?,
        "persistent_keepalive_interval" => peer.keepalive = number(value)?,
        "allowed_ip" => peer.allowed_ips.push(value.parse().ok()?),
        _ => {}
    }
    Some(())
}
