//! Certificates for tests.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use time::{Duration, OffsetDateTime};

/// A CA. All have the same name, so that only their keys tell them apart.
pub(crate) struct TestCa {
    params: CertificateParams,
    key: KeyPair,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "a CA");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    /// Writes the CA's certificate.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, self.params.self_signed(&self.key).unwrap().pem()).unwrap();
        path
    }

    /// Writes a certificate for a name, valid in these days from now, with its key.
    pub(crate) fn issue(&self, folder: &Path, host: &str, days: std::ops::Range<i64>) -> PathBuf {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = OffsetDateTime::now_utc() + Duration::days(days.start);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days.end);
        // Servers of a cluster are clients of each other.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let path = folder.join(format!("{host}.{}.pem", days.end));
        fs::write(&path, format!("{}{}", certificate.pem(), key.serialize_pem())).unwrap();
        path
    }
}
