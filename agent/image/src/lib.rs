//! Disk images of VMs, from a URL to a disk that a VM can start from. Nothing here runs another program.
//!
//! - [`inspect`]: checks that a file is a self-contained qcow2 or raw image, before any other program opens it
//! - [`fetch`]: fetches images by URL, with resumption, limits, and a guard of addresses
//! - [`cache`]: images by digest, within a budget, pinned while in use
//! - [`overlay`]: the disk of a VM over an image
//!
//! All calls are synchronous and may take long: they belong on threads of their own.

pub mod cache;
pub mod fetch;
pub mod inspect;
pub mod overlay;
