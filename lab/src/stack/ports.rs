//! Free ports on the loopback interface.
//!
//! They are taken below the kernel's ephemeral range (from 32768 on), so that no outgoing connection of a test takes
//! the port of a broker that is stopped for a moment and wants it back.

use std::net::{Ipv4Addr, TcpListener};

use aws_lc_rs::rand;

use super::StackError;

const FIRST: u16 = 15_000;
const LAST: u16 = 31_999;
const TRIES: usize = 2_000;

/// Ports held until they are given to the process that is to listen on them, so that two callers in one process never
/// get the same one.
#[derive(Debug)]
pub struct PortReservation(TcpListener, u16);

impl PortReservation {
    /// Holds one free port of 127.0.0.1, chosen by chance.
    ///
    /// # Errors
    /// [`StackError::NoFreePort`] after a great many occupied ones.
    pub fn any() -> Result<Self, StackError> {
        for _ in 0..TRIES {
            let mut bytes = [0; 2];
            rand::fill(&mut bytes).map_err(|_| StackError::Key { what: "random port" })?;
            let port = FIRST + u16::from_be_bytes(bytes) % (LAST - FIRST + 1);
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                return Ok(Self(listener, port));
            }
        }
        Err(StackError::NoFreePort { first: FIRST, last: LAST })
    }

    /// The port's number.
    pub const fn port(&self) -> u16 {
        self.1
    }

    /// Lets go of the port: to be called just before its listener starts.
    pub fn release(self) -> u16 {
        drop(self.0);
        self.1
    }
}

/// One free port of 127.0.0.1, not held.
///
/// # Errors
/// [`StackError::NoFreePort`] after a great many occupied ones.
pub fn free_port() -> Result<u16, StackError> {
    Ok(PortReservation::any()?.release())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_ports_differ_and_stay_below_the_ephemeral_range() {
        let held: Vec<_> = (0..50).map(|_| PortReservation::any().unwrap()).collect();
        let mut ports: Vec<_> = held.iter().map(PortReservation::port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| (FIRST..=LAST).contains(port)));
    }
}
