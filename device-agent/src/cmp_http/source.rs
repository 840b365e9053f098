//! Connections that come from a chosen address or through a chosen interface (S7).
//!
//! The HTTP library leaves that out, so this is its TCP connector once more, with a socket that is bound before it
//! connects; proxy and TLS stay the library's.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpSocket;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, RustlsConnector,
    Transport,
};

/// Longest wait of one socket operation where the library names none.
const OPERATION_MAX: Duration = Duration::from_secs(60);

/// Where connections come from.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Local address; only servers of its family can be reached.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Network interface, by its name.
    #[serde(default)]
    pub interface: Option<String>,
}

/// Why connections cannot come from there (S7).
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No such interface.
    #[error("source.interface: there is no network interface {name:?} here; there are {there}")]
    NoInterface {
        /// The one that was asked for.
        name: String,
        /// Those that are here.
        there: String,
    },
    /// A port of a bridge or bond: frames pass, but no IP packet comes from it.
    #[error("source.interface: {name} is no layer-3 interface but a port of {master}: name {master}")]
    Port {
        /// The one that was asked for.
        name: String,
        /// What it belongs to.
        master: String,
    },
    /// No address.
    #[error("source.interface: {name} has no IP address (link-local ones do not count)")]
    NoAddress {
        /// The one that was asked for.
        name: String,
    },
    /// The address is no address of this device, or of this interface.
    #[error("source.address: {address} is no address {of}; there are {there}")]
    NotHere {
        /// The one that was asked for.
        address: IpAddr,
        /// Of what.
        of: String,
        /// Those that are here.
        there: String,
    },
    /// The system does not say.
    #[error("source: the network interfaces of this device cannot be read: {0}")]
    Unreadable(io::Error),
}

/// A network interface, as far as it matters here.
#[derive(Clone, Debug, Default)]
struct Device {
    name: String,
    /// The bridge or bond that it is a port of.
    port_of: Option<String>,
    addresses: Vec<IpAddr>,
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
        let (mut last, begin, most) = (nothing_fits(), Instant::now(), limit(details.timeout));
        let fitting: Vec<_> = details.addrs.iter().filter(|address| self.0.is_of_family(address)).collect();
        for (n, address) in fitting.iter().enumerate() {
            // One that does not answer leaves their share to the others.
            let others = u32::try_from(fitting.len() - n).unwrap_or(u32::MAX);
            let share = most.saturating_sub(begin.elapsed()) / others;
            match self.0.connect(**address, share.max(Duration::from_millis(1))) {
                Ok(stream) => {
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Either::B(Tcp { stream, buffers })));
                }
                Err(error) => last = error,
            }
        }
        if last.kind() == io::ErrorKind::TimedOut {
            return Err(ureq::Error::Timeout(ureq::Timeout::Connect));
        }
        Err(ureq::Error::Io(last))
    }
}

impl Source {
    /// Whether this device has what is asked for, before anything is sent.
    ///
    /// # Errors
    /// What is missing, and what there is instead.
    pub fn check(&self) -> Result<(), SourceError> {
        if *self == Self::default() {
            return Ok(());
        }
        let devices = devices(Path::new("/sys/class/net")).map_err(SourceError::Unreadable)?;
        // More addresses are local than an interface lists: all of 127.0.0.0/8 is.
        self.judge(&devices, |address| UdpSocket::bind((address, 0)).is_ok())
    }

    fn judge(&self, devices: &[Device], is_local: impl Fn(IpAddr) -> bool) -> Result<(), SourceError> {
        let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        let (mut of, mut among) = ("of this device".to_owned(), devices.to_vec());
        if let Some(name) = &self.interface {
            let Some(device) = devices.iter().find(|device| device.name == *name) else {
                let there = list(devices.iter().map(|device| device.name.clone()).collect());
                return Err(SourceError::NoInterface { name: name.clone(), there });
            };
            if let Some(master) = device.port_of.clone() {
                return Err(SourceError::Port { name: name.clone(), master });
            }
            if device.addresses.is_empty() {
                return Err(SourceError::NoAddress { name: name.clone() });
            }
            (of, among) = (format!("of {name}"), vec![device.clone()]);
        }
        let addresses: Vec<IpAddr> = among.into_iter().flat_map(|device| device.addresses).collect();
        match self.address {
            Some(address) if !addresses.contains(&address) && (self.interface.is_some() || !is_local(address)) => {
                let there = list(addresses.iter().map(ToString::to_string).collect());
                Err(SourceError::NotHere { address, of, there })
            }
            _ => Ok(()),
        }
    }

    /// Connects to one of the addresses, and closes the connection.
    pub(super) fn reach(&self, addresses: &[SocketAddr], timeout: Duration) -> io::Result<()> {
        let mut last = nothing_fits();
        for address in addresses.iter().filter(|address| self.is_of_family(address)) {
            match self.connect(*address, timeout) {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to the first of the addresses that can be reached, without blocking.
    ///
    /// # Errors
    /// The last one's, when none can; and when none is of the local address's family.
    pub async fn connect_one(&self, addresses: &[SocketAddr]) -> io::Result<tokio::net::TcpStream> {
        let mut last = nothing_fits();
        for address in addresses.iter().filter(|address| self.is_of_family(address)) {
            let connecting = async {
                let socket = self.socket(*address)?;
                socket.set_nonblocking(true)?;
                TcpSocket::from_std_stream(socket.into()).connect(*address).await
            };
            match connecting.await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn is_of_family(&self, to: &SocketAddr) -> bool {
        self.address.is_none_or(|local| local.is_ipv4() == to.is_ipv4())
    }

    fn connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let socket = self.socket(to)?;
        socket.connect_timeout(&to.into(), timeout)?;
        Ok(socket.into())
    }

    /// A socket for a connection to this address, bound to the local side.
    fn socket(&self, to: SocketAddr) -> io::Result<Socket> {
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
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    }
}

fn nothing_fits() -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, "the server has no address, or none of the local one's family")
}

/// The interfaces of this device, those without an address too. `listing`: `/sys/class/net`.
fn devices(listing: &Path) -> io::Result<Vec<Device>> {
    let mut devices: Vec<Device> = Vec::new();
    for entry in fs::read_dir(listing).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        let folder = entry.path();
        let is_port = folder.join("brport").exists() || folder.join("bonding_slave").exists();
        let master =
            || fs::read_link(folder.join("master")).ok()?.file_name().map(|name| name.to_string_lossy().into());
        let name = entry.file_name().to_string_lossy().into_owned();
        let port_of = is_port.then(|| master().unwrap_or_else(|| "another one".to_owned()));
        devices.push(Device { name, port_of, addresses: Vec::new() });
    }
    for found in if_addrs::get_if_addrs()? {
        let address = found.ip();
        if found.is_link_local() {
            continue;
        }
        match devices.iter_mut().find(|device| device.name == found.name) {
            Some(device) => device.addresses.push(address),
            None => devices.push(Device { name: found.name, port_of: None, addresses: vec![address] }),
        }
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(devices)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn source(interface: &str, address: &str) -> Source {
        Source {
            address: (!address.is_empty()).then(|| address.parse().unwrap()),
            interface: (!interface.is_empty()).then(|| interface.to_owned()),
        }
    }

    fn device(name: &str, port_of: Option<&str>, addresses: &[&str]) -> Device {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Device { name: name.to_owned(), port_of: port_of.map(str::to_owned), addresses }
    }

    #[test]
    fn s7_an_interface_must_exist_be_layer_3_and_carry_an_address_and_the_address_must_be_its_own() {
        let here = [
            device("br0", None, &["10.0.0.7", "2001:db8::7"]),
            device("eth0", Some("br0"), &[]),
            device("lo", None, &["127.0.0.1"]),
            device("wlan0", None, &[]),
        ];
        for (interface, address) in [("br0", ""), ("", "10.0.0.7"), ("br0", "2001:db8::7")] {
            source(interface, address).judge(&here, |_| false).unwrap();
        }
        let refusal = |interface, address| source(interface, address).judge(&here, |_| false).unwrap_err().to_string();
        assert!(refusal("eth1", "").ends_with("there are br0, eth0, lo, wlan0"));
        assert!(refusal("eth0", "").contains("no layer-3 interface but a port of br0"));
        assert!(refusal("wlan0", "").contains("wlan0 has no IP address"));
        assert!(refusal("", "10.0.0.8").contains("10.0.0.8 is no address of this device; there are 10.0.0.7"));
        assert!(refusal("lo", "10.0.0.7").contains("no address of lo; there are 127.0.0.1"));
    }

    #[test]
    fn s7_ports_of_a_bridge_and_interfaces_without_an_address_are_read_from_the_system() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["eth7/brport", "wlan7", "br7"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::os::unix::fs::symlink("../br7", dir.path().join("eth7/master")).unwrap();
        fs::write(dir.path().join("bonding_masters"), b"").unwrap();
        let devices = devices(dir.path()).unwrap();
        let of = |name| devices.iter().find(|device| device.name == name);
        assert_eq!(of("eth7").unwrap().port_of.as_deref(), Some("br7"));
        assert!(of("wlan7").unwrap().addresses.is_empty() && of("bonding_masters").is_none());
        assert!(of("lo").unwrap().addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{devices:?}");
    }

    #[tokio::test]
    async fn a_link_comes_from_the_address_that_was_named_and_from_no_other() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = [listener.local_addr().unwrap()];
        let (named, other) = (source("", "127.0.0.9"), source("", "192.0.2.1"));
        let connected = named.connect_one(&to).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!((peer.ip().to_string().as_str(), connected.local_addr().unwrap()), ("127.0.0.9", peer));
        let refused = other.connect_one(&to).await.unwrap_err().to_string();
        assert!(refused.starts_with("the local side: "), "{refused}");
        let refused = source("", "::1").connect_one(&to).await.unwrap_err().to_string();
        assert!(refused.contains("none of the local one's family"), "{refused}");
    }

    #[test]
    fn s7_what_this_device_has_is_accepted() {
        source("lo", "127.0.0.1").check().unwrap();
        source("", "127.0.0.9").check().unwrap();
        assert!(matches!(source("lo", "192.0.2.1").check(), Err(SourceError::NotHere { .. })));
        assert!(matches!(source("no-such-one", "").check(), Err(SourceError::NoInterface { .. })));
    }
}
