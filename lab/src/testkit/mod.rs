//! What the tests in `lab/tests` stand on: a database and a virtual host of their own, real processes, and patience.
//!
//! Everything here belongs to one test and is cleared away when the test ends, also when it fails. Nothing here takes
//! the place of a real part of the system.

mod child;
mod db;
mod error;
mod vhost;
mod wait;

pub use self::{
    child::{Child, binary, command},
    db::{TestDb, admin},
    error::TestkitError,
    vhost::TestVhost,
    wait::eventually,
};
pub use crate::stack::{PortReservation, Stack, StackEnv, StackOptions, TlsAuthority, TlsFiles, free_port};
