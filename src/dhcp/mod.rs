//! DHCP: addresses in `full` mode, boot information in both.
//!
//! `wire` reads a datagram, `decide` answers it. `lease` knows who has which address, by the ranges
//! of `pool` and the time of `clock`; `probe` asks whether a stranger sits there, `rival` listens
//! for another server. `serve` has the sockets, and `disk` puts the leases of all the requests
//! that wait on the disk in one transaction; only then their ACKs leave.

pub mod clock;
pub mod decide;
mod disk;
pub mod lease;
pub mod pool;
pub mod probe;
pub mod rival;
pub mod serve;
pub mod wire;
