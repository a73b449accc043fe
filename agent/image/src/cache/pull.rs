//! From a URL to an image that is pinned.

use std::time::SystemTime;

use super::record::{PinOwner, UrlRecord};
use super::store::{Locked, failed, key};
use super::{Cache, CacheError, CachedImage, PullError, room, turn};
use crate::fetch::{
    Cancel, Digest, FetchError, FetchRequest, Fetched, ImageSource, NoRoom, Observer, Part, Progress, Validator,
};
use crate::inspect;

/// When a server is asked although the cache has what its URL brought before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    #[default]
    IfNotPresent,
    /// Each time. Nothing is fetched if the server says that the image is the same. With a digest there is nothing to
    /// ask: what has the digest is the same.
    Always,
}

/// An image that a VM needs.
#[derive(Debug, Clone)]
pub struct PullRequest {
    pub source: ImageSource,
    pub digest: Option<Digest>,
    pub policy: PullPolicy,
    /// Who uses the image from now on.
    pub owner: PinOwner,
}

/// Tells the caller of the progress, and the cache of the size.
struct PullObserver<'a> {
    cache: &'a Cache,
    request: &'a PullRequest,
    progress: &'a dyn Fn(Progress),
}

impl Observer for PullObserver<'_> {
    fn progress(&self, progress: Progress) {
        (self.progress)(progress);
    }

    fn make_room(&self, bytes: u64) -> Result<(), NoRoom> {
        let Cache { store, settings, .. } = self.cache;
        room::make_room(store, settings.budget, &store.part(&self.request.source), bytes)
    }
}

impl Cache {
    /// Returns the image, fetched if need be, and pins it for the owner. Of several pulls of one image at a time, one
    /// fetches and the others wait for it.
    ///
    /// Blocks. `progress` is called on this thread.
    ///
    /// # Errors
    /// See [`PullError`]. Unless the error [is transient](PullError::is_transient), nothing is left of the download.
    pub fn pull(
        &self,
        request: &PullRequest,
        cancel: &Cancel,
        progress: &dyn Fn(Progress),
    ) -> Result<CachedImage, PullError> {
        let before = {
            let locked = self.store.lock()?;
            if let Some(image) = present(&locked, request)? {
                return Ok(image);
            }
            locked.url(&request.source)?
        };
        // In this order everywhere, so that no two wait for each other.
        let _same_digest = request.digest.map(|digest| self.turn(&format!("sha256-{digest}"), cancel)).transpose()?;
        let _same_url = self.turn(&key(request.source.as_str()), cancel)?;
        let locked = self.store.lock()?;
        if let Some(image) = present(&locked, request)? {
            return Ok(image);
        }
        let now = locked.url(&request.source)?;
        // Fetched by another one after this pull began: that is as good as asking again.
        if request.digest.is_none()
            && now != before
            && let Some(image) = now.as_ref().map_or(Ok(None), |record| pinned(&locked, record.digest, request))?
        {
            return Ok(image);
        }
        let known =
            now.filter(|record| request.digest.is_none() && locked.image(record.digest).is_ok_and(|i| i.is_some()));
        drop(locked);
        self.fetch(request, known.as_ref(), cancel, progress)
    }

    pub(super) fn turn(&self, name: &str, cancel: &Cancel) -> Result<turn::Turn, PullError> {
        let path = self.store.turn(name);
        let turn = turn::wait(&path, cancel).map_err(|source| failed("lock", &path, source))?;
        turn.ok_or(PullError::Fetch(FetchError::Cancelled))
    }

    fn fetch(
        &self,
        request: &PullRequest,
        known: Option<&UrlRecord>,
        cancel: &Cancel,
        progress: &dyn Fn(Progress),
    ) -> Result<CachedImage, PullError> {
        let path = self.store.part(&request.source);
        let mut part = Part::open(&path, &request.source).map_err(|source| failed("open", &path, source))?;
        let observer = PullObserver { cache: self, request, progress };
        let ask = |known: Option<&Validator>, part: &mut Part| {
            let (source, digest_is_known) = (&request.source, request.digest.is_some());
            self.fetcher.fetch(FetchRequest { source, known, digest_is_known, cancel, observer: &observer }, part)
        };
        let result = ask(known.map(|record| &record.validator), &mut part);
        let result = match (result, known) {
            (Ok(Fetched::NotModified), Some(record)) => {
                if let Some(image) = pinned(&self.store.lock()?, record.digest, request)? {
                    discard(part)?;
                    return Ok(image);
                }
                // Evicted while the server was asked.
                ask(None, &mut part)
            }
            (result, _) => result,
        };
        match result {
            Ok(Fetched::Complete) => self.admit(request, part),
            Ok(Fetched::NotModified) => {
                discard(part)?;
                let host = request.source.to_string();
                Err(FetchError::Protocol { host, what: "it sent status 304 without being asked".to_owned() }.into())
            }
            Err(error) => {
                if !(error.is_transient() && part.is_resumable()) {
                    discard_failed(part);
                }
                Err(error.into())
            }
        }
    }

    /// Checks what was fetched, and makes an image of it.
    fn admit(&self, request: &PullRequest, mut part: Part) -> Result<CachedImage, PullError> {
        let found = part.digest();
        if let Some(expected) = request.digest.filter(|expected| *expected != found) {
            discard_failed(part);
            return Err(PullError::Digest { expected, found });
        }
        let checked = match part.reader() {
            Ok(file) => inspect::inspect(file, self.settings.max_virtual_size),
            Err(error) => Err(inspect::InspectError::Read(error)),
        };
        let info = match checked {
            Ok(info) => info,
            Err(error) => {
                discard_failed(part);
                return Err(PullError::Inspect(error));
            }
        };
        let locked = self.store.lock()?;
        let record = UrlRecord {
            url: request.source.as_str().to_owned(),
            digest: found,
            validator: part.validator().clone(),
            fetched_at: format!("{:?}", SystemTime::now()),
        };
        let image = match locked.image(found)? {
            Some(image) => {
                discard(part)?;
                image
            }
            None => locked.admit(found, info, |path| part.persist(path))?,
        };
        locked.pin(found, &request.owner)?;
        locked.record_url(&request.source, &record)?;
        Ok(image)
    }
}

/// The image, pinned, if the cache has it and the policy does not want the server asked.
fn present(locked: &Locked<'_>, request: &PullRequest) -> Result<Option<CachedImage>, CacheError> {
    let digest = match (request.digest, request.policy) {
        (Some(digest), PullPolicy::IfNotPresent | PullPolicy::Always) => Some(digest),
        (None, PullPolicy::IfNotPresent) => locked.url(&request.source)?.map(|record| record.digest),
        (None, PullPolicy::Always) => None,
    };
    digest.map_or(Ok(None), |digest| pinned(locked, digest, request))
}

fn pinned(locked: &Locked<'_>, digest: Digest, request: &PullRequest) -> Result<Option<CachedImage>, CacheError> {
    let image = locked.image(digest)?;
    if image.is_some() {
        locked.pin(digest, &request.owner)?;
    }
    Ok(image)
}

/// After a failure, which is what the caller is told. What cannot be removed now is removed by a later cleaning.
fn discard_failed(part: Part) {
    let _left = discard(part);
}

fn discard(part: Part) -> Result<(), CacheError> {
    let path = part.path().to_owned();
    part.discard().map_err(|source| failed("remove", &path, source))
}
