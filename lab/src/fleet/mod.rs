//! Many agents at once: simulated ones, and doors that count and refuse.

pub mod gate;
pub mod simulated;
