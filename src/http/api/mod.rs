//! `/api/v1` of the admin door: the same things that the pages show and do, as JSON. What each
//! route takes and gives is in `assets/openapi.json`, which a test holds against [`routes`].
//!
//! 1. [`read`] takes bodies and queries apart; what it does not know is refused.
//! 2. [`machines`] shows machines, [`actions`] changes their lives, by the ledger alone.
//! 3. [`server`] shows all else that the server knows; [`tokens`] who may ask.
//! 4. [`refusal`] names what is not done, and why.
//!
//! [`routes`]: super::routes

pub mod actions;
pub mod machines;
pub mod read;
pub mod refusal;
pub mod server;
pub mod tokens;

pub use refusal::Refusal;
