//! Device actors: one per device that something happens to, on threads of their own; a cache that can die at any time.

mod device;
mod registry;

pub use self::registry::{ActorThreads, Registry};
