//! A door that stands before another one: it counts who knocks, second by second, and can be told to turn some away.
//!
//! Before the broker it tells how a fleet comes back; before a CA it loses some exchanges. Behind a door without anything
//! [`StandIn`] answers at once, as a CA that does nothing.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Longest wait for the answer of a stand-in.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const ASKED: &[u8] = b"POST /pkix/ HTTP/1.1\r\nhost: ca\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const ANSWERED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How many knocked in each tenth of a second since a beginning.
#[derive(Clone, Debug)]
pub struct Arrivals {
    begin: Instant,
    tenths: Arc<Mutex<BTreeMap<u64, u32>>>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { begin: Instant::now(), tenths: Arc::default() }
    }
}

impl Arrivals {
    fn note(&self) {
        let tenth = u64::try_from(self.begin.elapsed().as_millis() / 100).unwrap_or(u64::MAX);
        *self.tenths.lock().unwrap_or_else(PoisonError::into_inner).entry(tenth).or_default() += 1;
    }

    /// Forgets everybody until now.
    pub fn clear(&self) {
        self.tenths.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many in all.
    pub fn count(&self) -> u64 {
        self.tenths.lock().unwrap_or_else(PoisonError::into_inner).values().map(|count| u64::from(*count)).sum()
    }

    /// The most within any second, looked at ten times a second; and the seconds between the first and the last arrival, at
    /// least one.
    pub fn peak_and_span(&self) -> (u64, f64) {
        peak_and_span(&self.tenths.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn peak_and_span(tenths: &BTreeMap<u64, u32>) -> (u64, f64) {
    let within = |from: u64| tenths.range(from..from + 10).map(|(_, count)| u64::from(*count)).sum();
    let peak = tenths.keys().map(|from| within(*from)).max().unwrap_or(0);
    let span = match (tenths.keys().next(), tenths.keys().next_back()) {
        (Some(first), Some(last)) => (last - first + 1) as f64 / 10.0,
        _ => 0.0,
    };
    (peak, span.max(1.0))
}

/// A door before another one.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    /// Who knocks.
    pub arrivals: Arrivals,
    refused: Arc<AtomicU32>,
    cut: Arc<Notify>,
    inside: Arc<()>,
    task: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    /// Opens a door on a free port of 127.0.0.1 that leads to `behind`. What is turned away follows from `seed`.
    ///
    /// # Errors
    /// No port.
    pub async fn open(behind: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let arrivals = Arrivals::default();
        let (refused, cut, inside) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()), Arc::new(()));
        let keeper = Keeper {
            behind,
            arrivals: arrivals.clone(),
            refused: Arc::clone(&refused),
            cut: Arc::clone(&cut),
            inside: Arc::clone(&inside),
        };
        let task = tokio::spawn(keeper.keep(listener, seed));
        Ok(Self { address, arrivals, refused, cut, inside, task })
    }

    /// How many have come through and are still there.
    pub fn inside(&self) -> usize {
        // This one's and the keeper's are of nobody inside.
        Arc::strong_count(&self.inside).saturating_sub(2)
    }

    /// Where to knock.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Turns away so many of a thousand from now on.
    pub fn refuse(&self, of_thousand: u32) {
        self.refused.store(of_thousand, Ordering::Relaxed);
    }

    /// Cuts every connection that is open.
    pub fn cut_all(&self) {
        self.cut.notify_waiters();
    }
}

/// What stands at the door.
struct Keeper {
    behind: SocketAddr,
    arrivals: Arrivals,
    refused: Arc<AtomicU32>,
    cut: Arc<Notify>,
    inside: Arc<()>,
}

impl Keeper {
    async fn keep(self, listener: TcpListener, seed: u64) {
        let chance = Chance::new(seed);
        while let Ok((mut inside, _)) = listener.accept().await {
            self.arrivals.note();
            if chance.of_thousand(self.refused.load(Ordering::Relaxed)) {
                continue;
            }
            let (cut, behind, counted) = (Arc::clone(&self.cut), self.behind, Arc::clone(&self.inside));
            tokio::spawn(async move {
                let Ok(mut outside) = TcpStream::connect(behind).await else { return };
                let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
                tokio::select! {
                    _ = copy_bidirectional(&mut inside, &mut outside) => {}
                    () = cut.notified() => {}
                }
                drop(counted);
            });
        }
    }
}

/// Answers every request at once and does nothing.
#[derive(Debug)]
pub struct StandIn {
    address: SocketAddr,
    /// Who asked.
    pub arrivals: Arrivals,
    task: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StandIn {
    /// On a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port.
    pub async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, arrivals) = (listener.local_addr()?, Arrivals::default());
        let seen = arrivals.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                seen.note();
                tokio::spawn(async move {
                    let mut request = [0; ASKED.len()];
                    if socket.read_exact(&mut request).await.is_ok() {
                        let _ = socket.write_all(ANSWERED).await;
                    }
                });
            }
        });
        Ok(Self { address, arrivals, task })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Asks a stand-in once, over a connection of its own, as an exchange with a CA does.
///
/// # Errors
/// No answer.
pub async fn ask_once(address: SocketAddr) -> io::Result<()> {
    let asked = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(ASKED).await?;
        let mut answer = [0; ANSWERED.len()];
        socket.read_exact(&mut answer).await.map(drop)
    };
    timeout(ANSWER_MAX, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Chance that can be had again: numbers that follow from a seed (splitmix64). Nothing secret depends on them.
#[derive(Debug)]
pub struct Chance(AtomicU64);

impl Chance {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn number(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True so often of a thousand times.
    pub fn of_thousand(&self, often: u32) -> bool {
        often > 0 && self.number() % 1000 < u64::from(often)
    }

    /// A moment within `most`.
    pub fn within(&self, most: Duration) -> Duration {
        most.mul_f64((self.number() % 1_000_000) as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_any_second_also_across_the_clock() {
        let tenths = BTreeMap::from([(0, 5), (8, 3), (9, 4), (12, 6), (17, 2), (40, 1)]);
        assert_eq!(peak_and_span(&tenths), (15, 4.1), "from 0.8 to 1.7");
        assert_eq!(peak_and_span(&BTreeMap::new()), (0, 1.0));
    }

    #[test]
    fn a_seed_gives_the_same_chances_again_and_about_as_often_as_asked() {
        let (one, two) = (Chance::new(7), Chance::new(7));
        let first: Vec<u64> = (0..5).map(|_| one.number()).collect();
        assert_eq!(first, (0..5).map(|_| two.number()).collect::<Vec<_>>());
        let often = (0..10_000).filter(|_| one.of_thousand(100)).count();
        assert!((800..1_200).contains(&often), "{often}");
        assert!((0..100).all(|_| !one.of_thousand(0)));
    }

    #[tokio::test]
    async fn a_gate_counts_lets_through_refuses_and_cuts() {
        let ca = StandIn::open().await.unwrap();
        let gate = Gate::open(ca.address(), 1).await.unwrap();
        ask_once(gate.address()).await.unwrap();
        assert_eq!((gate.arrivals.count(), ca.arrivals.count()), (1, 1));
        gate.refuse(1000);
        assert!(ask_once(gate.address()).await.is_err());
        assert_eq!((gate.arrivals.count(), ca.arrivals.count()), (2, 1), "counted, and not let through");
        gate.refuse(0);
        let mut open = TcpStream::connect(gate.address()).await.unwrap();
        // Until something has come through, the way to what is behind may not stand yet.
        open.write_all(&ASKED[..10]).await.unwrap();
        crate::testkit::eventually(Duration::from_secs(10), "the way stands", async || {
            (ca.arrivals.count() == 2).then_some(())
        })
        .await
        .unwrap();
        tokio::task::yield_now().await;
        gate.cut_all();
        assert_eq!(open.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}
