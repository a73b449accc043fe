//! Pins what a download does with servers that are slow, broken or hostile, and with URLs that lead where they must
//! not: nothing is read from a refused address, nothing incomplete is taken for whole, everything is bounded.
//!
//! The servers are threads of the test on loopback, which the guard refuses by default and these tests permit.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed assumption is a failed test"
)]

mod guard;
mod interruptions;
mod local;
mod measure;
mod resources;
mod responses;
mod server;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use otherix_image::fetch::{
    AddressGuard, Cancel, Digest, FetchError, FetchRequest, FetchSettings, Fetched, Fetcher, ImageSource, Observer,
    Part,
};
use otherix_testkit::{TempDir, tempdir};
use sha2::Digest as _;

/// Bytes without a period that a mistake of a few bytes would not change.
fn content(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from(<[u8; 32]>::from(sha2::Sha256::digest(bytes)))
}

/// Settings with short limits, and with loopback permitted.
fn settings() -> FetchSettings {
    FetchSettings {
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        retry_delay: Duration::from_millis(10),
        attempts: 3,
        guard: AddressGuard::default().permitting("127.0.0.1".parse().unwrap()),
        ..FetchSettings::default()
    }
}

/// One part, fetched into several times.
struct Download {
    folder: TempDir,
    settings: FetchSettings,
    digest_is_known: bool,
    cancel: Cancel,
}

impl Download {
    fn new(settings: FetchSettings) -> Self {
        Self { folder: tempdir().unwrap(), settings, digest_is_known: false, cancel: Cancel::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("image.part")
    }

    fn open(&self, url: &str) -> Part {
        Part::open(&self.path(), &url.parse::<ImageSource>().unwrap()).unwrap()
    }

    fn fetch(&self, url: &str) -> Result<Part, FetchError> {
        self.fetch_observed(url, &())
    }

    fn fetch_observed(&self, url: &str, observer: &dyn Observer) -> Result<Part, FetchError> {
        let source = url.parse::<ImageSource>().unwrap();
        let mut part = self.open(url);
        let request = FetchRequest {
            source: &source,
            known: None,
            digest_is_known: self.digest_is_known,
            cancel: &self.cancel,
            observer,
        };
        let fetched = Fetcher::new(self.settings.clone())?.fetch(request, &mut part)?;
        assert!(matches!(fetched, Fetched::Complete));
        Ok(part)
    }

    /// Asserts that the fetch brings these bytes.
    #[track_caller]
    fn brings(&self, url: &str, expected: &[u8]) {
        let part = self.fetch(url).unwrap();
        assert_eq!(part.digest(), digest(expected));
        assert_eq!(std::fs::read(self.path()).unwrap(), expected);
    }
}

/// A fetch with the usual settings, in a folder of its own.
fn fetch(url: &str) -> Result<(), FetchError> {
    Download::new(settings()).fetch(url).map(drop)
}
