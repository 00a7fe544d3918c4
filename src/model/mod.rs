//! The nouns: what a machine, its firmware and its profile are. No input or output, no clock.

pub mod address;
pub mod diagnosis;
pub mod digest;
pub mod event;
pub mod firmware;
pub mod interface;
pub mod lifecycle;
pub mod mac;
pub mod machine;
pub mod profile;
pub mod secret;
pub mod token;

pub use diagnosis::Diagnosis;
pub use digest::Digest;
pub use event::{Entry, Event, Stage, Transfer, Why};
pub use firmware::{Cpu, Family, Firmware, Transport};
pub use interface::Interface;
pub use lifecycle::{Life, LifeEvent, State};
pub use mac::{Mac, MacPattern};
pub use machine::{Facts, Machine, Match, Power};
pub use profile::Profile;
pub use secret::{Hidden, Secret};
