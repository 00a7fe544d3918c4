//! Public mirrors through the cache: real archives with their real clients, and upstreams that
//! cut, stall, lie and change.

#[path = "mirror/archive.rs"]
mod archive;
#[path = "mirror/debian.rs"]
mod debian;
#[path = "mirror/faults.rs"]
mod faults;
#[path = "mirror/hostile.rs"]
mod hostile;
#[path = "mirror/lab.rs"]
mod lab;
#[path = "mirror/learn.rs"]
mod learn;
#[path = "common/namespace.rs"]
mod namespace;
#[path = "mirror/room.rs"]
mod room;
#[path = "mirror/rpm.rs"]
mod rpm;
#[path = "mirror/sets.rs"]
mod sets;
#[path = "mirror/share.rs"]
mod share;
#[path = "mirror/upstream.rs"]
mod upstream;
