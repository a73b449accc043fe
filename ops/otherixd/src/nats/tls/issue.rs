//! The CA of a control plane, and the certificates that it issues: ECDSA with P-256, which every TLS library knows.

use std::net::IpAddr;
use std::time::Duration;

use otherix_schemas::timestamp::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

/// How long the CA is valid. Clients and nodes have copies of it.
const CA_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// How long a server's certificate is valid.
const VALIDITY: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// Certificates are valid from before their issue, for machines whose clock is behind.
const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// Bytes of the CA's key id in its name.
const NAME_BYTES: usize = 6;

/// A CA, with its private key.
pub(in crate::nats) struct Authority {
    key: KeyPair,
}

impl Authority {
    /// Generates a CA.
    pub(in crate::nats) fn generate() -> Result<Self, rcgen::Error> {
        Ok(Self { key: KeyPair::generate()? })
    }

    /// Loads the CA with this key, in PEM format.
    pub(in crate::nats) fn load(pem: &[u8]) -> Option<Self> {
        let key = KeyPair::from_pem(std::str::from_utf8(pem).ok()?).ok()?;
        Some(Self { key })
    }

    /// The private key in PEM format. A secret.
    pub(in crate::nats) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The CA's own certificate, which clients trust, in PEM format.
    pub(in crate::nats) fn certificate_pem(&self, now: Timestamp) -> Result<String, rcgen::Error> {
        let params = valid(self.params(), now, CA_VALIDITY)?;
        Ok(params.self_signed(&self.key)?.pem())
    }

    /// Issues a certificate of a server with these names and addresses. Returns it with its new private key, both in
    /// PEM format: in one file they always belong together.
    pub(in crate::nats) fn issue(&self, names: &[String], now: Timestamp) -> Result<String, rcgen::Error> {
        let mut params = valid(CertificateParams::new(names)?, now, VALIDITY)?;
        params.distinguished_name = common_name("otherix NATS".to_owned());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let issuer = Issuer::new(self.params(), &self.key);
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
    }

    /// What identifies the CA. Its name contains the id of its key, so that two CAs have two names.
    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let id = params.key_identifier(&self.key);
        let id: String = id.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = common_name(format!("otherix CA {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }
}

/// Whether a certificate can be for this host name or address.
pub(in crate::nats) fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_letter = |char: char| char.is_ascii_alphanumeric() || char == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(is_letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(is_label))
}

fn common_name(text: String) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn valid(mut params: CertificateParams, now: Timestamp, time: Duration) -> Result<CertificateParams, rcgen::Error> {
    let now = OffsetDateTime::from_unix_timestamp(now.unix_micros() / 1_000_000).map_err(|_| rcgen::Error::Time)?;
    params.not_before = now - BEFORE;
    params.not_after = now + time;
    Ok(params)
}
