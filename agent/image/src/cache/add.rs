//! An image that this node was given, as a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use otherix_runtime::files;
use sha2::{Digest as _, Sha256};

use super::store::failed;
use super::{Cache, CachedImage, PinOwner, PullError, room};
use crate::fetch::{Cancel, Digest, FetchError};
use crate::inspect;

/// How much of a file is read at a time, in bytes.
const PIECE: usize = 1 << 20;

impl Cache {
    /// Pins an image for an owner. Returns none if there is no such image.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn pin(&self, digest: Digest, owner: &PinOwner) -> Result<Option<CachedImage>, PullError> {
        let locked = self.store.lock()?;
        let image = locked.image(digest)?;
        if image.is_some() {
            locked.pin(digest, owner)?;
        }
        Ok(image)
    }

    /// Checks what another node has given, as if it were fetched, makes an image of it, and pins it for the owner.
    /// `file` is in the file system of the cache; it is gone afterwards, unless this fails. Blocks.
    ///
    /// # Errors
    /// [`PullError::Digest`] or [`PullError::Inspect`] if it is not the image with the digest; [`FetchError::NoRoom`]
    /// if there is none within the budget.
    pub fn add(
        &self,
        file: &Path,
        digest: Digest,
        owner: &PinOwner,
        cancel: &Cancel,
    ) -> Result<CachedImage, PullError> {
        let _turn = self.turn(&format!("sha256-{digest}"), cancel)?;
        if let Some(image) = self.pin(digest, owner)? {
            files::remove(file).map_err(|source| failed("remove", file, source))?;
            return Ok(image);
        }
        let mut opened = files::open_regular(file).map_err(|source| failed("open", file, source))?;
        let length = opened.metadata().map_err(|source| failed("read", file, source))?.len();
        let found = hash(&mut opened, cancel).map_err(|source| failed("read", file, source))?;
        let found = found.ok_or(PullError::Fetch(FetchError::Cancelled))?;
        if found != digest {
            return Err(PullError::Digest { expected: digest, found });
        }
        let info = inspect::inspect(opened, self.settings.max_virtual_size).map_err(PullError::Inspect)?;
        room::make_room(&self.store, self.settings.budget, file, length)
            .map_err(|no_room| PullError::Fetch(FetchError::NoRoom(no_room)))?;
        let locked = self.store.lock()?;
        let image = match locked.image(digest)? {
            Some(image) => image,
            None => locked.admit(digest, info, |path| files::rename(file, path))?,
        };
        locked.pin(digest, owner)?;
        Ok(image)
    }
}

/// The digest of a file from where it is read; none if it was cancelled.
fn hash(file: &mut File, cancel: &Cancel) -> std::io::Result<Option<Digest>> {
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(Some(Digest::from(<[u8; 32]>::from(hasher.finalize()))));
        }
        hasher.update(piece.get(..length).unwrap_or_default());
    }
}
