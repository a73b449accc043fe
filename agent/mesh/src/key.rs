//! WireGuard keys: 32 bytes, base64 in files, hexadecimal in the userspace protocol. Secret keys are zeroized on drop,
//! and their `Debug` output is a placeholder.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use zeroize::Zeroizing;

/// Length of every key in bytes.
pub const KEY_LEN: usize = 32;

/// The text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of 32 bytes")]
pub struct KeyError;

/// A Curve25519 public key, which identifies a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WgPublicKey([u8; KEY_LEN]);

/// A Curve25519 private key. Never all zeros, which stand for no key in WireGuard's protocols.
#[derive(Clone, PartialEq, Eq)]
pub struct WgPrivateKey(Zeroizing<[u8; KEY_LEN]>);

/// A symmetric key that both peers mix into their handshakes. Never all zeros, which stand for no key.
#[derive(Clone, PartialEq, Eq)]
pub struct WgPresharedKey(Zeroizing<[u8; KEY_LEN]>);

impl WgPublicKey {
    /// Creates a key from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Parses 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        hex_bytes(text).map(|bytes| Self(*bytes))
    }

    /// Parses base64, as `wg pubkey` prints it; surrounding white space is ignored.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        base64_bytes(text).map(|bytes| Self(*bytes))
    }

    /// The key as 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex_text(&self.0).to_string()
    }

    /// The key in base64, as `wg show` prints it.
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
    /// Generates a key with the kernel's random number generator.
    ///
    /// # Errors
    /// Those of `getrandom`.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Self::from_bytes(&bytes).ok_or_else(|| std::io::Error::other("the kernel returned zeros as random bytes"))
    }

    /// Creates a key from bytes, clamping the bits that are fixed in a Curve25519 private key; `None` if all bytes are
    /// zero.
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

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Parses 64 hexadecimal digits; `None` if all are zero.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Option<Self>, KeyError> {
        hex_bytes(text).map(|bytes| Self::from_bytes(&bytes))
    }

    /// Parses base64, as `wg genkey` prints it; surrounding white space is ignored.
    ///
    /// # Errors
    /// [`KeyError`], also if all bytes are zero.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&base64_bytes(text)?).ok_or(KeyError)
    }

    /// The key as 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        hex_text(&self.0)
    }

    /// The key in base64, the format of the key file.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    /// The public key of this private key.
    #[must_use]
    pub fn public(&self) -> WgPublicKey {
        WgPublicKey(*x25519::PublicKey::from(&self.scalar()).as_bytes())
    }

    pub(super) fn scalar(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(*self.0)
    }
}

impl WgPresharedKey {
    /// Creates a key from bytes; `None` if all are zero.
    pub fn from_bytes(bytes: &Zeroizing<[u8; KEY_LEN]>) -> Option<Self> {
        (**bytes != [0; KEY_LEN]).then(|| Self(bytes.clone()))
    }

    /// Parses 64 hexadecimal digits; `None` if all are zero.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Option<Self>, KeyError> {
        hex_bytes(text).map(|bytes| Self::from_bytes(&bytes))
    }

    /// The key as 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        hex_text(&self.0)
    }

    /// The bytes of the key.
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
    // The decoder requires a buffer for whole groups of three bytes.
    let mut decoded = Zeroizing::new([0; KEY_LEN + 1]);
    match STANDARD.decode_slice(text.trim_ascii(), &mut *decoded) {
        Ok(KEY_LEN) => {}
        Ok(_) | Err(_) => return Err(KeyError),
    }
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    for (target, byte) in bytes.iter_mut().zip(decoded.iter()) {
        *target = *byte;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_as_formatted() {
        let key = WgPrivateKey::generate().unwrap();
        assert_eq!(WgPrivateKey::from_base64(&key.to_base64()), Ok(key.clone()));
        assert_eq!(WgPrivateKey::from_hex(&key.to_hex()), Ok(Some(key.clone())));
        let public = key.public();
        assert_eq!(WgPublicKey::from_base64(&public.to_base64()), Ok(public));
        assert_eq!(WgPublicKey::from_hex(&public.to_hex().to_uppercase()), Ok(public));
    }

    #[test]
    fn secret_keys_are_not_formatted() {
        let key = WgPrivateKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "WgPrivateKey(..)");
        let psk = WgPresharedKey::from_hex(&key.to_hex()).unwrap().unwrap();
        assert_eq!(format!("{psk:?}"), "WgPresharedKey(..)");
    }

    #[test]
    fn invalid_keys_are_rejected() {
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
