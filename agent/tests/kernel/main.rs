//! What is pinned here, in a network namespace of the test's own and as `ip -d -j link` sees it:
//! - a managed bridge is made as asked, of any MTU, and nothing is left of the making; a name goes from a deleted
//!   network to a
//!   new one as often as one likes ([`making`]);
//! - what is done to it behind our back is undone within a second, on the kernel's word alone; somebody who does it
//!   without end
//!   gets no more than his due ([`drift`]);
//! - nothing that is not ours is touched: a name that is taken in any way, a foreign port, another's orphan
//!   ([`others`]);
//! - unmanaged bridges are followed and never touched ([`unmanaged`]);
//! - a kill after any message to the kernel leaves nothing that is nobody's ([`killed`]);
//! - networks with a way out: what passes and what does not, and that it stays so ([`nat`]);
//! - taps: made as asked, kept so, deaf to frames that are not the NIC's ([`taps`]);
//! - overlays: guests on different nodes reach each other, the forwarding is what the decisions say, and nothing else
//!   gets in
//!   ([`overlay`]);
//! - a switch that others hold up waits for its turn, and does not spin ([`switches`]);
//! - VLANs, where the kernel has them: in a guest with another kernel ([`in_guest`]);
//! - more news than there is room for, names of any bytes, thousands of foreign devices ([`noise`]).
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a failed assumption is a failed test"
)]

mod drift;
mod host;
mod hostile;
mod in_guest;
mod killed;
mod making;
mod nat;
mod node;
mod noise;
mod others;
mod overlay;
mod switches;
mod taps;
mod unmanaged;
mod uplinks;
