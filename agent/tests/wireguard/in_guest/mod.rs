//! Tests in a guest whose kernel has WireGuard.

mod device;
mod interoperability;
mod node;
mod sessions;
