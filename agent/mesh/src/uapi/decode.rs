//! Decoding of requests and answers. A request is decoded completely before it is applied.

use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use super::UapiRequest;
use crate::config::{AllowedIp, WgDeviceStatus, WgDeviceUpdate, WgPeerStatus, WgPeerUpdate};
use crate::key::{WgPresharedKey, WgPrivateKey, WgPublicKey};

/// Why a request is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UapiRequestError {
    #[error("the request is not UTF-8 text")]
    NotText,
    #[error("the request starts with neither `get=1` nor `set=1`")]
    Unknown,
    /// The line, from 1, has no `=`, or a key that is unknown in its section.
    #[error("line {0} has no valid key")]
    Key(usize),
    /// The line, from 1, has an invalid value.
    #[error("line {0} has an invalid value")]
    Value(usize),
}

/// Why an answer is not a successful one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UapiAnswerError {
    /// With the error number that the device returned.
    #[error("the device refused the request: {}", std::io::Error::from_raw_os_error(.0.saturating_abs()))]
    Refused(i32),
    /// The line, from 1, is invalid.
    #[error("line {0} of the answer does not follow WireGuard's userspace protocol")]
    Line(usize),
    #[error("the answer has no `errno`")]
    Unfinished,
}

/// The lines before the empty one, numbered from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(index, line)| (index + 1, line)).take_while(|(_, line)| !line.is_empty())
}

/// Decodes a request.
///
/// # Errors
/// [`UapiRequestError`].
pub fn decode_request(bytes: &[u8]) -> Result<UapiRequest, UapiRequestError> {
    let text = std::str::from_utf8(bytes).map_err(|_| UapiRequestError::NotText)?;
    let mut lines = lines(text);
    match lines.next() {
        Some((_, "get=1")) => match lines.next() {
            None => Ok(UapiRequest::Get),
            Some((number, _)) => Err(UapiRequestError::Key(number)),
        },
        Some((_, "set=1")) => decode_update(lines).map(UapiRequest::Set),
        Some(_) | None => Err(UapiRequestError::Unknown),
    }
}

fn decode_update<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<WgDeviceUpdate, UapiRequestError> {
    let mut update = WgDeviceUpdate::default();
    for (number, line) in lines {
        let (key, value) = line.split_once('=').ok_or(UapiRequestError::Key(number))?;
        let invalid = UapiRequestError::Value(number);
        if key == "public_key" {
            update.peers.push(WgPeerUpdate::new(WgPublicKey::from_hex(value).map_err(|_| invalid)?));
            continue;
        }
        let decoded = match update.peers.last_mut() {
            None => decode_device_update(&mut update, key, value),
            Some(peer) => decode_peer_update(peer, key, value),
        };
        match decoded {
            Some(Some(())) => {}
            Some(None) => return Err(invalid),
            None => return Err(UapiRequestError::Key(number)),
        }
    }
    Ok(update)
}

/// `None` if the key is unknown, `Some(None)` if the value is invalid.
fn decode_device_update(update: &mut WgDeviceUpdate, key: &str, value: &str) -> Option<Option<()>> {
    Some(match key {
        "private_key" => WgPrivateKey::from_hex(value).ok().map(|key| update.private_key = Some(key)),
        "listen_port" => parse_number(value).map(|port| update.listen_port = Some(port)),
        "fwmark" => parse_mark(value).map(|mark| update.fwmark = Some(mark)),
        "replace_peers" => true_value(value).map(|()| update.replace_peers = true),
        _ => return None,
    })
}

fn decode_peer_update(peer: &mut WgPeerUpdate, key: &str, value: &str) -> Option<Option<()>> {
    Some(match key {
        "remove" => true_value(value).map(|()| peer.remove = true),
        "update_only" => true_value(value).map(|()| peer.update_only = true),
        "preshared_key" => WgPresharedKey::from_hex(value).ok().map(|key| peer.preshared_key = Some(key)),
        "endpoint" => value.parse().ok().map(|endpoint| peer.endpoint = Some(endpoint)),
        "persistent_keepalive_interval" => parse_number(value).map(|seconds| peer.keepalive = Some(seconds)),
        "replace_allowed_ips" => true_value(value).map(|()| peer.replace_allowed_ips = true),
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

fn true_value(value: &str) -> Option<()> {
    if value == "true" { Some(()) } else { None }
}

/// Parses decimal digits. `parse` alone would accept a sign.
fn parse_number<N: FromStr>(value: &str) -> Option<N> {
    if value.bytes().all(|byte| byte.is_ascii_digit()) { value.parse().ok() } else { None }
}

/// Parses a mark. `wg` writes it in decimal, other programs in hexadecimal.
fn parse_mark(value: &str) -> Option<u32> {
    match value.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => parse_number(value),
    }
}

/// Decodes the answer to a request for a change.
///
/// # Errors
/// [`UapiAnswerError`].
pub fn decode_set_answer(text: &str) -> Result<(), UapiAnswerError> {
    let (line, content) = lines(text).next().ok_or(UapiAnswerError::Unfinished)?;
    let errno = content.strip_prefix("errno=").and_then(|value| value.parse().ok());
    match errno.ok_or(UapiAnswerError::Line(line))? {
        0 => Ok(()),
        errno => Err(UapiAnswerError::Refused(errno)),
    }
}

/// Decodes the answer to a request for the status. Unknown keys are ignored, since other implementations may have more.
///
/// # Errors
/// [`UapiAnswerError`].
pub fn decode_status(text: &str) -> Result<WgDeviceStatus, UapiAnswerError> {
    let mut status = WgDeviceStatus { private_key: None, listen_port: 0, fwmark: 0, peers: Vec::new() };
    let mut handshake = Duration::ZERO;
    for (line, content) in lines(text) {
        let (key, value) = content.split_once('=').ok_or(UapiAnswerError::Line(line))?;
        let invalid = UapiAnswerError::Line(line);
        if key == "errno" {
            set_last_handshake(&mut status, handshake);
            return match value.parse() {
                Ok(0) => Ok(status),
                Ok(errno) => Err(UapiAnswerError::Refused(errno)),
                Err(_) => Err(invalid),
            };
        }
        if key == "public_key" {
            set_last_handshake(&mut status, std::mem::take(&mut handshake));
            status.peers.push(WgPeerStatus::new(WgPublicKey::from_hex(value).map_err(|_| invalid)?));
            continue;
        }
        let decoded = match status.peers.last_mut() {
            None => decode_device_status(&mut status, key, value),
            Some(peer) => decode_peer_status(peer, &mut handshake, key, value),
        };
        decoded.ok_or(invalid)?;
    }
    Err(UapiAnswerError::Unfinished)
}

/// Sets the time of the last handshake, which two lines encode; zero stands for never.
fn set_last_handshake(status: &mut WgDeviceStatus, handshake: Duration) {
    if let Some(peer) = status.peers.last_mut().filter(|_| !handshake.is_zero()) {
        peer.last_handshake = UNIX_EPOCH.checked_add(handshake);
    }
}

fn decode_device_status(status: &mut WgDeviceStatus, key: &str, value: &str) -> Option<()> {
    match key {
        "private_key" => status.private_key = WgPrivateKey::from_hex(value).ok()?,
        "listen_port" => status.listen_port = parse_number(value)?,
        "fwmark" => status.fwmark = parse_mark(value)?,
        _ => {}
    }
    Some(())
}

fn decode_peer_status(peer: &mut WgPeerStatus, handshake: &mut Duration, key: &str, value: &str) -> Option<()> {
    match key {
        "preshared_key" => peer.preshared_key = WgPresharedKey::from_hex(value).ok()?,
        "endpoint" => peer.endpoint = Some(value.parse().ok()?),
        "last_handshake_time_sec" => {
            *handshake = handshake.checked_add(Duration::from_secs(parse_number(value)?))?;
        }
        "last_handshake_time_nsec" => {
            *handshake = handshake.checked_add(Duration::from_nanos(parse_number::<u32>(value)?.into()))?;
        }
        "tx_bytes" => peer.tx_bytes = parse_number(value)?,
        "rx_bytes" => peer.rx_bytes = parse_number(value)?,
        "persistent_keepalive_interval" => peer.keepalive = parse_number(value)?,
        "allowed_ip" => peer.allowed_ips.push(value.parse().ok()?),
        "has_old_clock" => {
            true_value(value)?;
            peer.has_old_clock = true;
        }
        _ => {}
    }
    Some(())
}
