//! shared/cmp
pub mod codec;
