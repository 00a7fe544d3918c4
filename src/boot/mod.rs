//! What a machine boots, and the text it is given.
//!
//! 1. [`decide`] finds what is wanted for a machine, by the configuration and its life: install, run
//!    live, local disk, menu, wait or refuse.
//! 2. [`render`] fills the templates of the profile (arguments, answers) with the machine's facts.
//! 3. [`script`] puts the result into one of our iPXE scripts in `ipxe/`; whatever gets into one
//!    has gone through [`value::ipxe_value`].
//!
//! All of it is pure; [`disk`] alone reads the users' templates.

pub mod decide;
pub mod disk;
pub mod render;
pub mod script;
pub mod value;

pub use decide::{Ask, Decision, decide};
pub use render::{RenderError, Urls};
