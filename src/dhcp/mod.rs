//! DHCP: addresses in `full` mode, boot information in both.
//!
//! `wire` reads a datagram, `decide` answers it, `lease` knows who has which address, `serve` has
//! the sockets: it commits the leases of all datagrams that wait in one transaction, and only then
//! sends the replies.

pub mod decide;
pub mod lease;
pub mod serve;
pub mod wire;
