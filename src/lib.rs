//! pilotlight: a network boot server.
//!
//! Floors, from the ground up; a module names only modules on lower floors, and `tests/house.rs`
//! keeps it so: `model`; `store boot ipxe config`; `ledger`; `dhcp tftp radv tls media`; `http`;
//! `app`; `cli`.

pub mod config;
pub mod model;
