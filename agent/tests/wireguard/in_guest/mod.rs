//! In a small guest whose kernel has WireGuard.

mod both;
mod device;
mod sessions;
mod world;
