//! What may be asked of this node's machines, by others than the main loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use otherix_image::cache::ListedImage;
use otherix_image::fetch::Progress;
use otherix_runtime::Runtime;
use otherix_schemas::error::{ErrorBody, ErrorCode};
use otherix_schemas::id::VmId;
use otherix_schemas::image::{IMAGE_USES_MAX, IMAGES_MAX, ImageState, NodeImage, NodeImages};
use otherix_schemas::timestamp::Timestamp;
use otherix_vm::folder::VmFolder;
use tokio::sync::watch;
use uuid::Uuid;

use super::OpenedHost;
use super::console::VmConsole;
use super::moving::Gifts;

/// What is known of the machines. Clones share it.
#[derive(Clone, Debug)]
pub struct MachineAccess {
    pub(super) host: watch::Receiver<OpenedHost>,
    pub(super) runtime: Arc<dyn Runtime>,
    consoles: Arc<Mutex<BTreeMap<VmId, Arc<VmConsole>>>>,
    downloads: Downloads,
    gifts: Gifts,
}

/// The downloads of images, by the VM that waits for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Downloads(Arc<Mutex<BTreeMap<VmId, Download>>>);

#[derive(Clone, Debug)]
struct Download {
    url: String,
    progress: Progress,
}

impl Downloads {
    pub(super) fn note(&self, vm: VmId, url: &str, progress: Progress) {
        self.lock().insert(vm, Download { url: url.to_owned(), progress });
    }

    pub(super) fn ended(&self, vm: VmId) {
        self.lock().remove(&vm);
    }

    /// As images: VMs that wait for the same URL are listed with the one that fetches.
    fn images(&self) -> Vec<NodeImage> {
        let mut images: BTreeMap<String, NodeImage> = BTreeMap::new();
        for (vm, Download { url, progress }) in self.lock().iter() {
            let Progress { received, total, rate } = *progress;
            let image = images.entry(url.clone()).or_insert_with(|| NodeImage {
                state: ImageState::Fetching,
                digest: None,
                file_size: total,
                virtual_size: None,
                format: None,
                urls: vec![url.clone()],
                vms: Vec::new(),
                last_used_at: None,
                received: Some(received),
                rate: Some(rate),
            });
            if image.received < Some(received) {
                (image.received, image.rate, image.file_size) = (Some(received), Some(rate), total);
            }
            image.vms.push(*vm);
        }
        images.into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Download>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MachineAccess {
    pub(super) fn new(host: watch::Receiver<OpenedHost>, runtime: Arc<dyn Runtime>) -> Self {
        Self { host, runtime, consoles: Arc::default(), downloads: Downloads::default(), gifts: Gifts::default() }
    }

    /// The VMs whose disks are given to other nodes.
    pub(super) fn gifts(&self) -> Gifts {
        self.gifts.clone()
    }

    pub(super) fn downloads(&self) -> Downloads {
        self.downloads.clone()
    }

    /// The console of a VM that is to be on this node, made if need be.
    pub(super) fn add_console(&self, id: VmId, folder: &VmFolder) -> Arc<VmConsole> {
        Arc::clone(self.lock().entry(id).or_insert_with(|| Arc::new(VmConsole::new(folder))))
    }

    /// Forgets consoles of VMs that are not on this node any more.
    pub(super) fn retain_consoles(&self, is_wanted: impl Fn(VmId) -> bool) {
        self.lock().retain(|id, _| is_wanted(*id));
    }

    /// The console of a VM.
    ///
    /// # Errors
    /// `unavailable` if the VM is not on this node, or not yet.
    pub(crate) fn console(&self, id: VmId) -> Result<Arc<VmConsole>, ErrorBody> {
        self.lock().get(&id).cloned().ok_or_else(|| {
            ErrorBody::new(ErrorCode::Unavailable, "the VM's node does not know of the VM yet: try again in a moment")
        })
    }

    /// The images in the cache of this node, and its downloads.
    ///
    /// # Errors
    /// `unavailable` if the cache cannot be read, or not yet.
    pub(crate) async fn images(&self) -> Result<NodeImages, ErrorBody> {
        let unavailable = |text: String| ErrorBody::new(ErrorCode::Unavailable, text);
        let opened = self.host.borrow().clone();
        let host = match opened {
            Some(Ok(host)) => host,
            Some(Err(error)) => return Err(unavailable(format!("this node has no images: {error}"))),
            None => return Err(unavailable("the node's agent is starting: try again in a moment".to_owned())),
        };
        let listed = self.runtime.run_blocking("list of images", move || host.cache.list()).await;
        let listed = match listed {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => return Err(unavailable(format!("the images cannot be listed: {error}"))),
            Err(error) => return Err(unavailable(format!("the images cannot be listed: {error}"))),
        };
        let mut images = self.downloads.images();
        images.extend(listed.into_iter().map(image));
        let is_truncated = images.len() > IMAGES_MAX;
        images.truncate(IMAGES_MAX);
        Ok(NodeImages { images, is_truncated })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Arc<VmConsole>>> {
        self.consoles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn image(ListedImage { image, last_used, pins, urls }: ListedImage) -> NodeImage {
    let vms: BTreeSet<VmId> =
        pins.iter().filter_map(|pin| pin.to_string().parse::<Uuid>().ok().map(VmId::new)).collect();
    NodeImage {
        state: ImageState::Ready,
        digest: Some(image.digest.to_string()),
        file_size: Some(image.info.file_size),
        virtual_size: Some(image.info.virtual_size),
        format: Some(image.info.format.name().to_owned()),
        urls: urls.into_iter().take(IMAGE_USES_MAX).collect(),
        vms: vms.into_iter().take(IMAGE_USES_MAX).collect(),
        last_used_at: timestamp(last_used),
        received: None,
        rate: None,
    }
}

fn timestamp(at: SystemTime) -> Option<Timestamp> {
    let micros = at.duration_since(UNIX_EPOCH).ok()?.as_micros();
    Timestamp::from_unix_micros(i64::try_from(micros).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_that_wait_for_one_url_are_one_download() {
        let downloads = Downloads::default();
        let vm = |number| VmId::new(Uuid::from_u128(number));
        let at = |received| Progress { received, total: Some(100), rate: 7 };
        downloads.note(vm(1), "http://a/x", at(10));
        downloads.note(vm(2), "http://a/x", at(0));
        downloads.note(vm(3), "http://a/y", at(1));
        downloads.note(vm(1), "http://a/x", at(20));
        let images = downloads.images();
        let shown: Vec<_> = images.iter().map(|image| (image.received, image.vms.len())).collect();
        assert_eq!(shown, [(Some(20), 2), (Some(1), 1)]);
        downloads.ended(vm(1));
        downloads.ended(vm(2));
        assert_eq!(downloads.images().len(), 1);
    }
}
