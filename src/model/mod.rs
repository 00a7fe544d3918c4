//! The nouns: what a machine, its firmware and its profile are. No input or output, no clock.

pub mod address;
pub mod digest;
pub mod event;
pub mod firmware;
pub mod interface;
pub mod mac;
pub mod machine;
pub mod profile;

pub use digest::Digest;
pub use event::{Event, Stage, Why};
pub use firmware::{Cpu, Family, Firmware, Transport};
pub use interface::Interface;
pub use mac::{Mac, MacPattern};
pub use machine::{Facts, Machine, Match};
pub use profile::Profile;
