//! A fetch from beginning to end: attempts, each of which continues where the last one stopped.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use otherix_runtime::Backoff;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::http::header::{HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::error::FetchError;
use super::http::{self, Response};
use super::part::{Part, Validator};
use super::progress::{Meter, Observer};
use super::{Cancel, FetchSettings, Fetched, ImageSource, folder};

const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// Fetches images by the same settings. Each fetch blocks its thread.
#[derive(Debug)]
pub struct Fetcher {
    settings: FetchSettings,
    certificates: Vec<Certificate<'static>>,
    tls: OnceLock<TlsConfig>,
}

/// What is fetched, and what is already known of it.
#[derive(Clone, Copy)]
pub struct FetchRequest<'a> {
    pub source: &'a ImageSource,
    /// Of the version that is known already: if the server still has that, nothing is fetched.
    pub known: Option<&'a Validator>,
    /// Whether the caller compares the digest: then a response may end with the connection.
    pub digest_is_known: bool,
    pub cancel: &'a Cancel,
    pub observer: &'a dyn Observer,
}

/// What is counted over all attempts.
struct Run<'a> {
    request: FetchRequest<'a>,
    settings: &'a FetchSettings,
    started: Instant,
    meter: Meter,
    /// The most that the part ever had in this run.
    best: u64,
    /// What it had at the start of this run.
    first: u64,
}

impl Fetcher {
    /// # Errors
    /// [`FetchError::Ca`] if the PEM file has no certificate.
    pub fn new(settings: FetchSettings) -> Result<Self, FetchError> {
        let mut certificates = Vec::new();
        for certificate in settings.ca.as_deref().map(CertificateDer::pem_slice_iter).into_iter().flatten() {
            let certificate = certificate.map_err(|error| FetchError::Ca(error.to_string()))?;
            certificates.push(Certificate::from_der(&certificate).to_owned());
        }
        if settings.ca.is_some() && certificates.is_empty() {
            return Err(FetchError::Ca("the file has none in PEM".to_owned()));
        }
        Ok(Self { settings, certificates, tls: OnceLock::new() })
    }

    /// Fetches into a part, which then has everything, or as much as can be resumed.
    ///
    /// # Errors
    /// See [`FetchError`]. If it [is transient](FetchError::is_transient), the part is worth keeping.
    pub fn fetch(&self, request: FetchRequest<'_>, part: &mut Part) -> Result<Fetched, FetchError> {
        let (started, received) = (Instant::now(), part.received());
        let meter = Meter::start(received, started);
        let mut run = Run { request, settings: &self.settings, started, meter, best: received, first: received };
        let result = match request.source.path() {
            Some(path) => folder::open(&path, &self.settings.folders)
                .and_then(|mut file| run.copy(&mut file, &path.display().to_string(), part)),
            None => self.attempts(&mut run, part),
        };
        request.cancel.detach();
        match result {
            Ok(Fetched::Complete) => {
                part.complete().map_err(|error| part.write_error(error))?;
                let progress = run.meter.report(part.received(), Some(part.received()), Instant::now());
                request.observer.progress(progress);
                Ok(Fetched::Complete)
            }
            Ok(Fetched::NotModified) => Ok(Fetched::NotModified),
            Err(error) => {
                // If that fails, less is resumed.
                let _less_is_resumed = part.save();
                Err(if request.cancel.is_cancelled() { FetchError::Cancelled } else { error })
            }
        }
    }

    fn attempts(&self, run: &mut Run<'_>, part: &mut Part) -> Result<Fetched, FetchError> {
        let agent = http::agent(&self.settings, self.tls());
        if !run.request.cancel.attach(&agent) {
            return Err(FetchError::Cancelled);
        }
        let seed = u64::from(run.started.elapsed().subsec_nanos()) ^ u64::from(std::process::id());
        let mut backoff = Backoff::seeded(self.settings.retry_delay, RETRY_DELAY_MAX, seed);
        let mut failures = 0_u32;
        loop {
            let before = run.best;
            let error = match run.attempt(&agent, part) {
                Err(error) if is_worth_another_attempt(&error) => error,
                result => return result,
            };
            run.best = run.best.max(part.received());
            if run.best > before {
                (failures, backoff) = (0, Backoff::seeded(self.settings.retry_delay, RETRY_DELAY_MAX, seed));
            }
            failures = failures.saturating_add(1);
            if failures >= self.settings.attempts {
                return Err(error);
            }
            run.check_rate(part)?;
            if run.request.cancel.wait(backoff.next_delay()) {
                return Err(FetchError::Cancelled);
            }
        }
    }

    /// The CAs of the machine and those that were configured.
    fn tls(&self) -> TlsConfig {
        let make = || {
            let native = rustls_native_certs::load_native_certs().certs;
            let mut roots: Vec<_> = native.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            roots.extend(self.certificates.iter().cloned());
            TlsConfig::builder()
                .root_certs(RootCerts::new_with_certs(&roots))
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .build()
        };
        self.tls.get_or_init(make).clone()
    }
}

const fn is_worth_another_attempt(error: &FetchError) -> bool {
    matches!(error, FetchError::Connection { .. } | FetchError::Stalled { .. } | FetchError::Cut { .. })
        || matches!(error, FetchError::Status { .. } if error.is_transient())
}

impl Run<'_> {
    fn attempt(&mut self, agent: &ureq::Agent, part: &mut Part) -> Result<Fetched, FetchError> {
        let mut response = http::get(agent, self.request.source, &self.headers(part))?;
        if response.status() == 416 && part.resumption().is_some() {
            // The file has become shorter.
            part.clear().map_err(FetchError::Write)?;
            response = http::get(agent, self.request.source, &self.headers(part))?;
        }
        if response.is_encoded() {
            return Err(response.protocol("the image is sent compressed, although that was not asked for"));
        }
        match response.status() {
            304 if part.received() == 0 && self.request.known.is_some() => return Ok(Fetched::NotModified),
            200 => {
                let total = match response.length() {
                    Err(FetchError::LengthUnknown { .. }) if self.request.digest_is_known => None,
                    length => length?,
                };
                part.restart(response.validator(), total).map_err(FetchError::Write)?;
            }
            206 => self.check_range(&response, part)?,
            status => return Err(FetchError::Status { host: response.host, status }),
        }
        if let Some(total) = part.total() {
            self.make_room(part, total)?;
        }
        let host = response.host.clone();
        let mut reader = response.into_body().into_reader();
        self.receive(part, |chunk, received| {
            reader.read(chunk).map_err(|error| http::body_failure(&host, agent, received, error))
        })?;
        match part.total() {
            Some(total) if part.received() < total => Err(FetchError::Cut { host, received: part.received() }),
            Some(_) | None => Ok(Fetched::Complete),
        }
    }

    fn headers(&self, part: &Part) -> Vec<(HeaderName, String)> {
        if let Some((from, validator)) = part.resumption() {
            return vec![(RANGE, format!("bytes={from}-")), (IF_RANGE, validator.to_owned())];
        }
        let Some(known) = self.request.known else {
            return Vec::new();
        };
        let etag = known.etag.iter().map(|etag| (IF_NONE_MATCH, etag.clone()));
        let modified = known.last_modified.iter().map(|time| (IF_MODIFIED_SINCE, time.clone()));
        // A server that knows the first ignores the second.
        etag.chain(modified).collect()
    }

    /// A partial response must continue what the part has, of the same version.
    fn check_range(&self, response: &Response, part: &mut Part) -> Result<(), FetchError> {
        let asked = part.resumption().map(|(from, _)| from);
        let range = response.range();
        let is_continued = range.is_some_and(|(from, total)| {
            asked == Some(from) && (total.is_none() || part.total().is_none() || total == part.total())
        });
        let validator = response.validator();
        if is_continued && (validator.is_empty() || validator.for_range() == part.validator().for_range()) {
            return Ok(());
        }
        part.clear().map_err(FetchError::Write)?;
        let what = format!("asked for bytes from {asked:?} on, it sent the range {range:?}, or of another version");
        Err(response.protocol(what))
    }

    /// Copies a file of the node.
    fn copy(&mut self, file: &mut std::fs::File, path: &str, part: &mut Part) -> Result<Fetched, FetchError> {
        let failed = |source: io::Error| FetchError::File { path: path.to_owned(), source };
        let version = |file: &std::fs::File| {
            let metadata = file.metadata().map_err(failed)?;
            Ok((metadata.len(), metadata.modified().map_err(failed)?))
        };
        let before = version(file)?;
        part.restart(Validator::default(), Some(before.0)).map_err(FetchError::Write)?;
        self.make_room(part, before.0)?;
        self.receive(part, |chunk, _| file.read(chunk).map_err(failed))?;
        let is_same = version(file)? == before && part.received() == before.0;
        if is_same { Ok(Fetched::Complete) } else { Err(FetchError::Changed { path: path.to_owned() }) }
    }

    /// Appends what `read` returns, up to its end.
    fn receive(
        &mut self,
        part: &mut Part,
        mut read: impl FnMut(&mut [u8], u64) -> Result<usize, FetchError>,
    ) -> Result<(), FetchError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = read(&mut chunk, part.received())?;
            // A connection that was closed by cancellation looks as if the server had closed it.
            if self.request.cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            let received = chunk.get(..length).unwrap_or_default();
            if received.is_empty() {
                return Ok(());
            }
            let after = part.received().saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            let max = part.total().unwrap_or(self.settings.max_size);
            if after > max {
                return Err(FetchError::TooLarge { max });
            }
            if let Some(size) = part.next_reservation(u64::try_from(length).unwrap_or(u64::MAX)) {
                self.make_room(part, size.min(max))?;
            }
            part.append(received)?;
            if let Some(progress) = self.meter.update(after, part.total(), Instant::now()) {
                self.request.observer.progress(progress);
            }
            self.check_rate(part)?;
        }
    }

    fn make_room(&self, part: &mut Part, size: u64) -> Result<(), FetchError> {
        if size > self.settings.max_size {
            return Err(FetchError::TooLarge { max: self.settings.max_size });
        }
        self.request.observer.make_room(size).map_err(FetchError::NoRoom)?;
        part.reserve(size)
    }

    /// The time limit of the whole, which grows with what was received.
    fn check_rate(&mut self, part: &Part) -> Result<(), FetchError> {
        self.best = self.best.max(part.received());
        let received = self.best.saturating_sub(self.first);
        let due = Duration::from_secs(received / self.settings.min_rate.max(1));
        let elapsed = self.started.elapsed();
        if elapsed > self.settings.grace.saturating_add(due) {
            return Err(FetchError::TooSlow { received, elapsed });
        }
        Ok(())
    }
}
