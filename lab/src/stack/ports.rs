//! Free ports on the loopback interface.
//!
//! They are taken below the kernel's ephemeral range (from 32768 on), so that no outgoing connection of a test takes
//! the port of a broker that is stopped for a moment and wants it back. And each is marked by a name that all stacks of
//! the machine know (an abstract socket, which ends with its process), so that stacks that start at the same time do
//! not take each other's.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use aws_lc_rs::rand;

use super::StackError;

const FIRST: u16 = 15_000;
const LAST: u16 = 31_999;
const TRIES: usize = 2_000;

/// One port of 127.0.0.1, kept from other stacks until it is dropped.
#[derive(Debug)]
pub struct PortReservation {
    port: u16,
    listener: Option<TcpListener>,
    _mark: UnixListener,
}

impl PortReservation {
    /// A free port chosen by chance, occupied until [`Self::open`].
    ///
    /// # Errors
    /// [`StackError::NoFreePort`] after a great many occupied ones.
    pub fn any() -> Result<Self, StackError> {
        for _ in 0..TRIES {
            let mut bytes = [0; 2];
            rand::fill(&mut bytes).map_err(|_| StackError::Key { what: "random port" })?;
            let port = FIRST + u16::from_be_bytes(bytes) % (LAST - FIRST + 1);
            let name = SocketAddr::from_abstract_name(format!("trustfleet-port-{port}"));
            let Ok(mark) = name.and_then(|name| UnixListener::bind_addr(&name)) else { continue };
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                return Ok(Self { port, listener: Some(listener), _mark: mark });
            }
        }
        Err(StackError::NoFreePort { first: FIRST, last: LAST })
    }

    /// The port's number.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Makes way for the process that is to listen on the port; other stacks still keep off.
    pub fn open(&mut self) {
        self.listener = None;
    }
}

/// One free port of 127.0.0.1, for a listener that starts at once.
///
/// # Errors
/// [`StackError::NoFreePort`] after a great many occupied ones.
pub fn free_port() -> Result<u16, StackError> {
    Ok(PortReservation::any()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_differ_and_stay_below_the_ephemeral_range() {
        let mut held: Vec<_> = (0..50).map(|_| PortReservation::any().unwrap()).collect();
        held.iter_mut().for_each(PortReservation::open);
        held.extend((0..50).map(|_| PortReservation::any().unwrap()));
        let mut ports: Vec<_> = held.iter().map(PortReservation::port).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 100);
        assert!(ports.iter().all(|port| (FIRST..=LAST).contains(port)));
        TcpListener::bind((Ipv4Addr::LOCALHOST, held[0].port())).unwrap();
    }
}
