//! Creates links of the kernel's WireGuard. Their configuration is in [`crate::wireguard::kernel`].
//!
//! A link is created under a temporary name, gets its MTU and its alias, and then its own name. It stays down, and has
//! no address.

use rtnetlink::LinkWireguard;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::KernelError;
use super::handle::Kernel;
use super::message;
use super::requests::RequestError;
use crate::model::owner::temporary_name;

/// The link kind.
const WIREGUARD: &str = "wireguard";

/// `EEXIST`: the name is a name or an alternative name of another link.
const EEXIST: i32 = 17;

/// `EOPNOTSUPP`: the kernel does not support the link kind.
const EOPNOTSUPP: i32 = 95;

impl Kernel {
    /// Creates a WireGuard device, down. Removes first what an interrupted creation left, and leaves nothing if it
    /// fails.
    ///
    /// # Errors
    /// [`KernelError::Create`]: the kernel has no WireGuard, the name is in use, or a value is refused.
    pub fn create_wireguard(&mut self, name: &str, alias: &str, mtu: u32) -> Result<(), KernelError> {
        let created = self.try_create_wireguard(name, alias, mtu);
        created.map_err(|reason| KernelError::Create { name: name.to_owned(), reason })
    }

    fn try_create_wireguard(&mut self, name: &str, alias: &str, mtu: u32) -> Result<(), String> {
        let temporary = temporary_name_for(name);
        self.remove_incomplete(&temporary)?;
        let create = message::create_link(LinkWireguard::new(&temporary).build());
        let index = match self.create_link(temporary, create) {
            result if is_refused(&result, EOPNOTSUPP) => {
                return Err("this node's kernel has no WireGuard (CONFIG_WIREGUARD)".to_owned());
            }
            result => result.map_err(|error| error.to_string())?,
        };
        let mut steps = message::rename_and_alias(index, name, alias, Some(mtu)).into_iter();
        let failure = match steps.try_for_each(|step| self.request(step).map(drop)) {
            result if is_refused(&result, EEXIST) => Some("another device has this name".to_owned()),
            result => result.err().map(|error| error.to_string()),
        };
        self.complete(index, failure)
    }

    /// Removes the device of a creation that was interrupted before the device got its name.
    fn remove_incomplete(&mut self, temporary: &str) -> Result<(), String> {
        let found = self.request(message::find_link(temporary)).unwrap_or_default().links;
        for link in found.iter().filter(|link| link.kind == WIREGUARD && link.name == temporary) {
            self.request(message::delete_link(link.index)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Returns the name of a device during its creation.
fn temporary_name_for(name: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(name).into();
    let (digits, _) = digest.as_chunks::<16>();
    temporary_name(digits.first().copied().map(Uuid::from_bytes).unwrap_or_default())
}

fn is_refused<T>(result: &Result<T, RequestError>, errno: i32) -> bool {
    matches!(result, Err(error) if error.errno() == Some(errno))
}
