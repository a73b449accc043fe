//! Making devices of the kernel's WireGuard. What such a device is told beside being a link is in
//! [`crate::wireguard::kernel`].
//!
//! It is made down under a temporary name; then it gets its MTU and its alias, and then its own name. It is left down,
//! and has no address.

use rtnetlink::LinkWireguard;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::KernelError;
use super::handle::Kernel;
use super::message;
use super::requests::RequestError;
use crate::model::owner::temporary_name;

/// The kind of such a device, as the kernel calls it.
const WIREGUARD: &str = "wireguard";

/// `EEXIST`: a device has this name, or has it as an alternative name.
const EEXIST: i32 = 17;

/// `EOPNOTSUPP`: the kernel lacks what is asked for.
const EOPNOTSUPP: i32 = 95;

impl Kernel {
    /// Makes a device of the kernel's WireGuard, down. Of a making that was broken off before nothing is left, nor of
    /// one that fails.
    ///
    /// # Errors
    /// [`KernelError::Create`]: when the kernel has no WireGuard, when the name is taken, when a value is refused.
    pub fn create_wireguard(&mut self, name: &str, alias: &str, mtu: u32) -> Result<(), KernelError> {
        let made = self.make_wireguard(name, alias, mtu);
        made.map_err(|reason| KernelError::Create { name: name.to_owned(), reason })
    }

    fn make_wireguard(&mut self, name: &str, alias: &str, mtu: u32) -> Result<(), String> {
        let temporary = temporary(name);
        self.remove_left_over(&temporary)?;
        let create = message::create_link(LinkWireguard::new(&temporary).build());
        let index = match self.create_link(temporary, create) {
            made if is_refused(&made, EOPNOTSUPP) => {
                return Err("this node's kernel has no WireGuard (CONFIG_WIREGUARD)".to_owned());
            }
            made => made.map_err(|error| error.to_string())?,
        };
        let mut steps = message::rename_and_alias(index, name, alias, Some(mtu)).into_iter();
        let failure = match steps.try_for_each(|step| self.request(step).map(drop)) {
            answer if is_refused(&answer, EEXIST) => Some("another device has this name".to_owned()),
            answer => answer.err().map(|error| error.to_string()),
        };
        self.complete(index, failure)
    }

    /// Removes what a kill between making and naming left.
    fn remove_left_over(&mut self, temporary: &str) -> Result<(), String> {
        let found = self.request(message::find_link(temporary)).unwrap_or_default().links;
        for link in found.iter().filter(|link| link.kind == WIREGUARD && link.name == temporary) {
            self.request(message::delete_link(link.index)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// The name of a device while it is being made.
fn temporary(name: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(name).into();
    let (digits, _) = digest.as_chunks::<16>();
    temporary_name(digits.first().copied().map(Uuid::from_bytes).unwrap_or_default())
}

fn is_refused<T>(answer: &Result<T, RequestError>, errno: i32) -> bool {
    matches!(answer, Err(error) if error.errno() == Some(errno))
}
