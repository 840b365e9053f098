//! Connections that come from a chosen address or through a chosen interface (S7).
//!
//! The HTTP library leaves that out, so this is its TCP connector once more, with a socket that is bound before it
//! connects; proxy and TLS stay the library's.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, RustlsConnector,
    Transport,
};

/// Longest wait of one socket operation where the library names none.
const OPERATION_MAX: Duration = Duration::from_secs(60);

/// Where connections come from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Source {
    /// Local address; only servers of its family can be reached.
    pub address: Option<IpAddr>,
    /// Network interface, by its name.
    pub interface: Option<String>,
}

/// The library's connectors around ours.
pub(super) fn connector(source: Source) -> impl Connector {
    ().chain(ConnectProxyConnector::default()).chain(Bound(source)).chain(RustlsConnector::default())
}

#[derive(Debug)]
struct Bound(Source);

impl<In: Transport> Connector<In> for Bound {
    type Out = Either<In, Tcp>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A)); // through a proxy, which we have connected to before
        }
        let config = details.config;
        let mut last =
            io::Error::new(io::ErrorKind::AddrNotAvailable, "the server has no address of the local one's family");
        for address in &details.addrs {
            if self.0.address.is_some_and(|local| local.is_ipv4() != address.is_ipv4()) {
                continue;
            }
            match self.0.connect(*address, limit(details.timeout)) {
                Ok(stream) => {
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Either::B(Tcp { stream, buffers })));
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(ureq::Error::Timeout(ureq::Timeout::Connect));
                }
                Err(error) => last = error,
            }
        }
        Err(ureq::Error::Io(last))
    }
}

impl Source {
    fn connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        // A local address or interface that is not there is as good as a network that is down: nothing has left.
        let unbound =
            |error: io::Error| io::Error::new(io::ErrorKind::AddrNotAvailable, format!("the local side: {error}"));
        if let Some(name) = &self.interface {
            socket.bind_device(Some(name.as_bytes())).map_err(unbound)?;
        }
        if let Some(local) = self.address {
            socket.bind(&SocketAddr::new(local, 0).into()).map_err(unbound)?;
        }
        socket.connect_timeout(&to.into(), timeout)?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }
}

fn limit(timeout: NextTimeout) -> Duration {
    if timeout.after.is_not_happening() || timeout.after.is_zero() { OPERATION_MAX } else { *timeout.after }
}

#[derive(Debug)]
struct Tcp {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.set_write_timeout(Some(limit(timeout)))?;
        self.stream.write_all(&self.buffers.output()[..amount]).map_err(|error| late(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.set_read_timeout(Some(limit(timeout)))?;
        let read = self.stream.read(self.buffers.input_append_buf()).map_err(|error| late(error, timeout))?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        false // connections are never kept
    }
}

fn late(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ureq::Error::Timeout(timeout.reason),
        _ => ureq::Error::Io(error),
    }
}
