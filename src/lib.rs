//! pilotlight: a network boot server.
//!
//! Floors, from the ground up; a module names only modules on lower floors, and `tests/house.rs`
//! keeps it so: `model`; `store boot ipxe config`; `ledger`; `dhcp tftp radv tls media mirror
//! power hook import`; `http rehearse`; `app`; `cli`.

pub mod app;
pub mod boot;
pub mod cli;
pub mod config;
pub mod dhcp;
pub mod hook;
pub mod http;
pub mod import;
pub mod ipxe;
pub mod ledger;
pub mod media;
pub mod mirror;
pub mod model;
pub mod power;
pub mod radv;
pub mod rehearse;
pub mod store;
pub mod tftp;
pub mod tls;
