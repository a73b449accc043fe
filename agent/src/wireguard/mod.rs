//! The mesh device as the kernel's own WireGuard.

pub mod kernel;
