//! Webhooks: URLs that are told what happens, as JSON, signed.
//!
//! 1. [`decide`] makes of the ledger's news what is told: `installed`, `failed`, `alarm`.
//! 2. [`wire`] is how that looks: a body, and a header that proves who sent it, and when.
//! 3. [`serve`] sends it: what happens to one machine in its order, a few at once, five times at
//!    the most, with growing pauses. What does not fit the queue is dropped, counted and alarmed.
//!
//! Nothing of it is kept on the disk: what was not told when the server ends is not told.

pub mod decide;
mod serve;
pub mod wire;

pub use serve::{Counts, Limits, Reader, Running, start};
