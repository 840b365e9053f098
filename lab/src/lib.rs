//! Everything that needs several processes: the private stack, the lab CA, the demonstration, the benchmarks and the tests
//! in `tests/`.
//!
//! Nothing depends on this crate, and nothing in it is meant for a real fleet.

pub mod bench;
pub mod ca;
pub mod cli;
pub mod demo;
pub mod fleet;
pub mod house;
pub mod stack;
pub mod testkit;
