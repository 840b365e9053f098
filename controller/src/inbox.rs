//! From the broker to the actors.
