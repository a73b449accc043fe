//! Keys, as WireGuard's programs write them: 32 bytes, base64 in files, hexadecimal on the socket. Owns their parsing; never
//! shows a secret: `Debug` of one is a placeholder, and its bytes are overwritten when it is dropped.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use zeroize::Zeroizing;

/// Bytes of every key.
pub const KEY_LEN: usize = 32;

/// What is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of 32 bytes")]
pub struct KeyError;

/// Who a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WgPublicKey([u8; KEY_LEN]);

/// A node's own key. All zeros stands for none, as in WireGuard's protocol, and is no value of this type.
#[derive(Clone, PartialEq, Eq)]
pub struct WgPrivateKey(Zeroizing<[u8; KEY_LEN]>);

/// A secret that both ends of a session mix in.
#[derive(Clone, PartialEq, Eq)]
pub struct WgPresharedKey(Zeroizing<[u8; KEY_LEN]>);

impl WgPublicKey {
    /// The key of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// From 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        hex_bytes(text).map(|bytes| Self(*bytes))
    }

    /// From base64, as `wg pubkey` prints it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        base64_bytes(text).map(|bytes| Self(*bytes))
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex_text(&self.0).to_string()
    }

    /// Base64, as `wg show` prints it.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    pub(super) fn point(&self) -> x25519::PublicKey {
        x25519::PublicKey::from(self.0)
    }
}

impl fmt::Display for WgPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Debug for WgPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WgPublicKey({self})")
    }
}

impl WgPrivateKey {
    /// A new one, of the kernel's randomness.
    ///
    /// # Errors
    /// If the kernel has none to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        let mut have = 0;
        while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
            have += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Self::from_bytes(&bytes).ok_or_else(|| std::io::Error::other("the kernel's randomness is all zeros"))
    }

    /// The key of these bytes, with the bits set that every such key has; `None` if they are all zero.
    pub fn from_bytes(bytes: &Zeroizing<[u8; KEY_LEN]>) -> Option<Self> {
        if **bytes == [0; KEY_LEN] {
            return None;
        }
        let mut key = bytes.clone();
        let [first, .., last] = &mut *key;
        *first &= 0xf8;
        *last = (*last & 0x7f) | 0x40;
        Some(Self(key))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// From 64 hexadecimal digits; `None` if they are all zero.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Option<Self>, KeyError> {
        hex_bytes(text).map(|bytes| Self::from_bytes(&bytes))
    }

    /// From base64, as `wg genkey` prints it.
    ///
    /// # Errors
    /// [`KeyError`], also if all bytes are zero.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&base64_bytes(text)?).ok_or(KeyError)
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        hex_text(&self.0)
    }

    /// Base64, for the file that keeps it.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    /// The key that others know this node by.
    #[must_use]
    pub fn public(&self) -> WgPublicKey {
        WgPublicKey(*x25519::PublicKey::from(&self.scalar()).as_bytes())
    }

    pub(super) fn scalar(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(*self.0)
    }
}

impl WgPresharedKey {
    /// The key of these bytes; `None` if they are all zero.
    pub fn from_bytes(bytes: &Zeroizing<[u8; KEY_LEN]>) -> Option<Self> {
        (**bytes != [0; KEY_LEN]).then(|| Self(bytes.clone()))
    }

    /// From 64 hexadecimal digits; `None` if they are all zero.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Option<Self>, KeyError> {
        hex_bytes(text).map(|bytes| Self::from_bytes(&bytes))
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        hex_text(&self.0)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for WgPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WgPrivateKey(..)")
    }
}

impl fmt::Debug for WgPresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WgPresharedKey(..)")
    }
}

fn hex_bytes(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    if text.len() != KEY_LEN * 2 {
        return Err(KeyError);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(KeyError);
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Ok(bytes)
}

fn hex_text(bytes: &[u8; KEY_LEN]) -> Zeroizing<String> {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    let mut text = Zeroizing::new(String::with_capacity(KEY_LEN * 2));
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

fn base64_bytes(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    // The decoder wants room for whole groups of three bytes.
    let mut room = Zeroizing::new([0; KEY_LEN + 1]);
    match STANDARD.decode_slice(text.trim_ascii(), &mut *room) {
        Ok(KEY_LEN) => {}
        Ok(_) | Err(_) => return Err(KeyError),
    }
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    for (to, from) in bytes.iter_mut().zip(room.iter()) {
        *to = *from;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_it_was_written() {
        let key = WgPrivateKey::generate().unwrap();
        assert_eq!(WgPrivateKey::from_base64(&key.to_base64()), Ok(key.clone()));
        assert_eq!(WgPrivateKey::from_hex(&key.to_hex()), Ok(Some(key.clone())));
        let public = key.public();
        assert_eq!(WgPublicKey::from_base64(&public.to_base64()), Ok(public));
        assert_eq!(WgPublicKey::from_hex(&public.to_hex().to_uppercase()), Ok(public));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let key = WgPrivateKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "WgPrivateKey(..)");
        let psk = WgPresharedKey::from_hex(&key.to_hex()).unwrap().unwrap();
        assert_eq!(format!("{psk:?}"), "WgPresharedKey(..)");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let zeros = "0".repeat(64);
        assert_eq!(WgPrivateKey::from_hex(&zeros), Ok(None));
        for text in ["", "00", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64), &"é".repeat(32), &"+0".repeat(32)] {
            assert_eq!(WgPublicKey::from_hex(text), Err(KeyError), "{text}");
        }
        for text in ["", "AAAA", &"A".repeat(44), &"A".repeat(4096)] {
            assert_eq!(WgPrivateKey::from_base64(text), Err(KeyError), "{text}");
        }
    }
}
