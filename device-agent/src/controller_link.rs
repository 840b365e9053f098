//! The agent's end of the broker: the only file that names lapin.
//!
//! One connection, kept up for ever: session, connect, hello, consume; after a loss again from the session, with growing
//! waits that no two agents share. The broker's token is renewed on the open connection before it ends. The link
//! declares nothing, computes no routing, and decides nothing about a message: it hands bytes over and acks when told.

use std::sync::Arc;
use std::time::Duration;

use async_compat::CompatExt as _;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Acker, BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use tokio::net::lookup_host;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use trustfleet_model::clock::Clock as _;
use trustfleet_model::ids::MessageId;
use trustfleet_wire::Envelope;
use trustfleet_wire::join::SessionAnswer;
use trustfleet_wire::sign::Purpose;
use trustfleet_wire::v1::{FromAgent, Hello};

use crate::backoff::Backoff;
use crate::core::stopping;
use crate::identity::Identity;
use crate::session::{Doors, SOFTWARE, SessionError};
use crate::tls_roots::TlsRoots;

/// Waits between tries to get a session and a connection.
const RECONNECT: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(120) };
/// Longest time to connect and to get ready.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// What was said of nodes of pairs is said again after so long: the controller lets pairs rest between two changes.
const NODES_AGAIN: Duration = Duration::from_secs(45);
/// Unacked messages at a time.
const PREFETCH: u16 = 16;
/// lapin holds 32 frames in each direction, and touches all of that in time: 512 KB. Brokers take nothing smaller; longer
/// messages go in several frames, only the token must fit into one.
const FRAME_MAX: u32 = 8_192;
/// Seconds between heartbeats: a dead connection shows after two.
const HEARTBEAT_S: u16 = 20;

/// What comes from the controller.
#[derive(Debug)]
pub enum Incoming {
    /// Connected: the hello is with the broker.
    Up,
    /// A message; the broker gets the verdict.
    Message {
        /// The message as it came.
        bytes: Vec<u8>,
        /// To be told once the message is safe, or not wanted.
        verdict: oneshot::Sender<Verdict>,
    },
    /// The connection is lost.
    Down,
    /// The controller has put this agent into quarantine: nothing new is begun until it is connected again.
    Quarantined,
}

/// What the broker is told about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Safe on the disk, or of no use to anybody.
    Ack,
    /// Nobody can read it: to the dead letters.
    Reject,
    /// Not now: again after the next connect.
    Later,
}

/// A message to be published.
#[derive(Debug)]
pub struct Publication {
    /// Routing key, as the controller said.
    pub routing_key: String,
    /// The message.
    pub bytes: Vec<u8>,
    /// Told whether the broker has it for sure.
    pub confirmed: oneshot::Sender<bool>,
}

/// Everything that a link needs.
#[derive(Clone, Debug)]
pub struct Link {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The controller's doors.
    pub doors: Arc<Doors>,
    /// Roots that verify the broker at `amqps://`.
    pub roots: TlsRoots,
}

/// A loss of the link; never the end of the agent.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the broker: {0}")]
    Broker(#[from] lapin::Error),
    #[error("the broker's URL: {0}")]
    Url(String),
    #[error("the broker did not answer in time")]
    Timeout,
    #[error("the broker has ended the consumer")]
    ConsumerEnded,
    #[error("the broker did not take the hello: {0}")]
    Hello(&'static str),
}

enum End {
    Stopped,
    Lost(LinkError),
}

/// A connection in service.
struct Up {
    connection: Connection,
    publisher: Channel,
    consumer: Consumer,
    session: SessionAnswer,
}

impl Link {
    /// Keeps the link up until `stop` turns true.
    pub async fn run(
        self,
        incoming: mpsc::Sender<Incoming>,
        mut outgoing: mpsc::Receiver<Publication>,
        stop: watch::Receiver<bool>,
    ) {
        let mut failures = 0_u32;
        loop {
            let connected = tokio::select! {
                () = stopping(&stop) => return,
                connected = self.connect() => connected,
            };
            let error = match connected {
                Ok(up) => {
                    failures = 0;
                    tracing::info!(queue = %up.session.queue, "connected to the broker");
                    if incoming.send(Incoming::Up).await.is_err() {
                        return;
                    }
                    match self.serve(up, &incoming, &mut outgoing, &stop).await {
                        End::Stopped => return,
                        End::Lost(error) => error,
                    }
                }
                Err(error) => error,
            };
            if incoming.send(Incoming::Down).await.is_err() {
                return;
            }
            // Publications that wait belong to the lost connection: their owners repeat them.
            while let Ok(publication) = outgoing.try_recv() {
                let _ = publication.confirmed.send(false);
            }
            failures = failures.saturating_add(1);
            let within_s = self.identity.config.reconnect_within_s;
            let wait = reconnect_wait(within_s, failures, self.identity.random_u64());
            let quarantined = matches!(&error, LinkError::Session(error) if error.is_quarantine());
            if quarantined && incoming.send(Incoming::Quarantined).await.is_err() {
                return;
            }
            let needs_a_person = matches!(&error, LinkError::Session(error) if !error.is_transient());
            if needs_a_person {
                tracing::error!(%error, wait_s = wait.as_secs(), "no link to the controller, and waiting alone will not help");
            } else {
                tracing::warn!(%error, wait_s = wait.as_secs(), "no link to the controller");
            }
            tokio::select! {
                () = stopping(&stop) => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn session(&self) -> Result<SessionAnswer, LinkError> {
        let (doors, identity) = (Arc::clone(&self.doors), Arc::clone(&self.identity));
        let opened = tokio::task::spawn_blocking(move || {
            doors.open_session(&identity.config, &identity.membership, &identity.keys, identity.instance)
        });
        let session = opened.await.map_err(|_| LinkError::Timeout)??;
        if let Some(off) = self.identity.clock.learn(session.now) {
            tracing::warn!(off_s = off.as_secs(), "the device's clock is off; reckoning with the controller's time");
        }
        Ok(session)
    }

    async fn connect(&self) -> Result<Up, LinkError> {
        let session = self.session().await?;
        let uri = uri(&session)?;
        let name = format!("trustfleet-agent {}", self.identity.membership.name);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime()?;
        let ready = async {
            let (roots, source) = (self.roots.clone(), self.identity.config.source.clone());
            // lapin's own way to TLS takes the system's roots besides those that it is given.
            let stream = async move |uri: AMQPUri, _| {
                let host = uri.authority.host.trim_matches(['[', ']']);
                let addresses: Vec<_> = lookup_host((host, uri.authority.port)).await?.collect();
                let stream = source.connect_one(&addresses).await?;
                let stream = AsyncTcpStream::Plain(stream.compat());
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => {
                        let tls = roots.broker().map_err(std::io::Error::other)?;
                        Ok(stream.into_rustls(&RustlsConnector::from(tls), host).await?)
                    }
                }
            };
            let connection = Connection::connector(uri, runtime, stream, properties).await?;
            let receiver = connection.create_channel().await?;
            receiver.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let consumer = receiver
                .basic_consume(
                    session.queue.as_str().into(),
                    "".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            let publisher = connection.create_channel().await?;
            publisher.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, LinkError>((connection, publisher, consumer))
        };
        let (connection, publisher, consumer) = timeout(CONNECT_MAX, ready).await.map_err(|_| LinkError::Timeout)??;
        let up = Up { connection, publisher, consumer, session };
        let hello = async { answered(self.hello(&up, false).await?).await };
        timeout(CONNECT_MAX, hello).await.map_err(|_| LinkError::Timeout)??;
        Ok(up)
    }

    /// Publishes a hello; `repeated`: not the first of this session.
    async fn hello(&self, up: &Up, repeated: bool) -> Result<lapin::PublisherConfirm, LinkError> {
        let now = self.identity.clock.now();
        let hello = FromAgent::Hello(Hello {
            tenant_id: self.identity.membership.tenant_id,
            agent_id: self.identity.membership.agent_id,
            message_id: MessageId::fresh(now, self.identity.random_id()),
            at: now,
            software: SOFTWARE.to_owned(),
            repeated,
            instance: Some(self.identity.instance),
            leases: self.identity.config.autonomy,
            clock_off_s: self.identity.clock.off_s(),
            nodes: self.identity.nodes.told(),
            roots: self.identity.roots.told(),
        });
        let sealed = Envelope::seal(&hello, Purpose::FromAgent, &self.identity.keys.sign);
        let bytes = sealed.and_then(|envelope| envelope.to_bytes());
        let bytes = bytes.map_err(|_| LinkError::Hello("it cannot be written"))?;
        let exchange = &up.session.reports_exchange;
        Ok(publish(&up.publisher, exchange, &up.session.hello_key, &bytes).await?)
    }

    async fn serve(
        &self,
        mut up: Up,
        incoming: &mpsc::Sender<Incoming>,
        outgoing: &mut mpsc::Receiver<Publication>,
        stop: &watch::Receiver<bool>,
    ) -> End {
        let mut renewal = Renewal::new(&up.session);
        let next_hello = || Instant::now() + hello_wait(self.identity.config.hello_s, self.identity.random_u64());
        let mut hello_due = next_hello();
        let mut nodes = self.identity.nodes.changes();
        let mut nodes_told = self.identity.nodes.told();
        let mut roots = self.identity.roots.changes();
        loop {
            tokio::select! {
                () = stopping(stop) => {
                    let _ = timeout(Duration::from_secs(3), up.connection.close(200, "stopping".into())).await;
                    return End::Stopped;
                }
                delivery = up.consumer.next() => match delivery {
                    Some(Ok(delivery)) => {
                        let (verdict, told) = oneshot::channel();
                        if incoming.send(Incoming::Message { bytes: delivery.data, verdict }).await.is_err() {
                            return End::Stopped;
                        }
                        tokio::spawn(answer(delivery.acker, told));
                    }
                    Some(Err(error)) => return End::Lost(error.into()),
                    None => return End::Lost(LinkError::ConsumerEnded),
                },
                publication = outgoing.recv() => {
                    let Some(publication) = publication else { return End::Stopped };
                    let Publication { routing_key, bytes, confirmed } = publication;
                    match publish(&up.publisher, &up.session.reports_exchange, &routing_key, &bytes).await {
                        Ok(confirm) => {
                            tokio::spawn(async move {
                                let _ = confirmed.send(confirm.await.is_ok_and(|confirmation| taken(&confirmation)));
                            });
                        }
                        Err(error) => {
                            let _ = confirmed.send(false);
                            return End::Lost(error.into());
                        }
                    }
                }
                // A node of a pair has become active, or stands by: told at once, and once more if the controller had to wait.
                Ok(()) = nodes.changed() => hello_due = Instant::now(),
                // The CA told of a root that follows another one.
                Ok(()) = roots.changed() => hello_due = Instant::now(),
                () = sleep_until(hello_due) => {
                    let lately = std::mem::take(&mut nodes_told) != self.identity.nodes.told();
                    nodes_told = self.identity.nodes.told();
                    hello_due = next_hello();
                    if lately {
                        hello_due = hello_due.min(Instant::now() + NODES_AGAIN);
                    }
                    match self.hello(&up, true).await {
                        Ok(confirm) => {
                            tokio::spawn(async move {
                                if let Err(error) = answered(confirm).await {
                                    tracing::debug!(%error, "a repeated hello is lost; the next one will do");
                                }
                            });
                        }
                        Err(error) => return End::Lost(error),
                    }
                }
                renewed = renewal.next(self) => match renewed {
                    Ok(session) => {
                        let update = up.connection.update_secret(session.amqp_token.as_str().into(), "renewal".into());
                        match timeout(CONNECT_MAX, update).await {
                            Ok(Ok(())) => {
                                tracing::debug!("broker token renewed on the open connection");
                                renewal = Renewal::new(&session);
                                up.session = session;
                            }
                            Ok(Err(error)) => return End::Lost(error.into()),
                            Err(_) => return End::Lost(LinkError::Timeout),
                        }
                    }
                    // Others with its keys may be let in no more, and nor is this one.
                    Err(LinkError::Session(error)) if error.is_quarantine() => return End::Lost(error.into()),
                    Err(error) => {
                        let wait = renewal.failed(self.identity.random_u64());
                        tracing::warn!(%error, wait_s = wait.as_secs(), "the broker token is not renewed yet");
                    }
                },
            }
        }
    }
}

/// When the token is renewed next: after two thirds of its life, then in growing steps.
struct Renewal {
    due: Instant,
    backoff: Backoff,
    failures: u32,
    running: Option<JoinHandle<Result<SessionAnswer, LinkError>>>,
}

impl Renewal {
    fn new(session: &SessionAnswer) -> Self {
        // Both moments are the controller's: the device's own clock does not matter.
        let life = session.token_expires_at.duration_since(session.now);
        let life = Duration::try_from(life).unwrap_or_default().max(Duration::from_secs(3));
        let backoff = Backoff { first: (life / 30).max(Duration::from_millis(500)), most: life / 6 };
        Self { due: Instant::now() + life * 2 / 3, backoff, failures: 0, running: None }
    }

    fn failed(&mut self, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = self.backoff.wait(self.failures, random);
        self.due = Instant::now() + wait;
        wait
    }

    /// Waits until due, then for the new session; can be dropped and called again at any point.
    async fn next(&mut self, link: &Link) -> Result<SessionAnswer, LinkError> {
        if self.running.is_none() {
            sleep_until(self.due).await;
            let link = link.clone();
            self.running = Some(tokio::spawn(async move { link.session().await }));
        }
        let result = match self.running.as_mut() {
            Some(running) => running.await.unwrap_or(Err(LinkError::Timeout)),
            None => Err(LinkError::Timeout),
        };
        self.running = None;
        result
    }
}

async fn answer(acker: Acker, told: oneshot::Receiver<Verdict>) {
    // A verdict that never comes means that the agent is stopping: the broker offers the message again.
    let done = match told.await {
        Ok(Verdict::Ack) => acker.ack(BasicAckOptions::default()).await,
        Ok(Verdict::Reject) => acker.nack(BasicNackOptions { requeue: false, multiple: false }).await,
        Ok(Verdict::Later) | Err(_) => return,
    };
    if let Err(error) = done {
        tracing::debug!(%error, "an ack did not reach the broker; the message will come again");
    }
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    bytes: &[u8],
) -> Result<lapin::PublisherConfirm, lapin::Error> {
    let properties = BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish(exchange.into(), key.into(), options, bytes, properties).await
}

async fn answered(confirm: lapin::PublisherConfirm) -> Result<(), LinkError> {
    if taken(&confirm.await?) { Ok(()) } else { Err(LinkError::Hello("it was returned or refused")) }
}

/// Nine tenths of `hello_s` seconds to eleven, by `random`, so that a fleet that was switched on together comes apart.
fn hello_wait(hello_s: u32, random: u64) -> Duration {
    let tenth_ms = u64::from(hello_s) * 100;
    Duration::from_millis(tenth_ms * 9 + random % (tenth_ms * 2 + 1))
}

/// How long to wait after the `failures`th failure in a row. With `within_s` seconds: after the loss some moment within them, by
/// `random`; from then on that long each time, unless the growing steps say longer. Each agent thus knocks once in `within_s` seconds,
/// at a moment of its own, so that agents that lost their broker together are as far apart at every further attempt as at the first:
/// a new moment each time would lay those who draw again over those who still wait.
fn reconnect_wait(within_s: u32, failures: u32, random: u64) -> Duration {
    let within_ms = u64::from(within_s) * 1_000;
    match failures {
        ..=1 if within_s > 0 => RECONNECT.first / 2 + Duration::from_millis(random % (within_ms + 1)),
        _ => RECONNECT.wait(failures, random).max(Duration::from_millis(within_ms)),
    }
}

/// A message without a queue is confirmed too, but returned first.
fn taken(confirmation: &Confirmation) -> bool {
    matches!(confirmation, Confirmation::Ack(None))
}

fn uri(session: &SessionAnswer) -> Result<AMQPUri, LinkError> {
    let mut uri: AMQPUri = session.amqp_url.parse().map_err(LinkError::Url)?;
    uri.authority.userinfo = AMQPUserInfo { username: session.amqp_user.clone(), password: session.amqp_token.clone() };
    uri.query.frame_max = Some(FRAME_MAX);
    uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;

    fn session(life_s: i64) -> SessionAnswer {
        let now = Timestamp::from_second(0).unwrap(); // a controller far away from this machine's clock
        SessionAnswer {
            agent_id: uuid::Uuid::from_u128(1).into(),
            amqp_url: "amqp://127.0.0.1:5672/%2f".to_owned(),
            amqp_user: "agent".to_owned(),
            amqp_token: "geheim".to_owned(),
            token_expires_at: now.checked_add(SignedDuration::from_secs(life_s)).unwrap(),
            queue: "agent.1".to_owned(),
            reports_exchange: "trustfleet.reports".to_owned(),
            hello_key: "agent.1.r1".to_owned(),
            now,
        }
    }

    #[tokio::test]
    async fn a_token_is_renewed_before_it_ends_whatever_the_devices_clock_says() {
        let renewal = Renewal::new(&session(900));
        let left = renewal.due - Instant::now();
        assert!(left > Duration::from_secs(590) && left < Duration::from_secs(610), "{left:?}");
    }

    #[test]
    fn an_agent_says_hello_again_every_ten_minutes_and_no_two_in_step() {
        for random in [0, 1, 77_777, u64::MAX] {
            let wait = hello_wait(600, random);
            assert!(wait >= Duration::from_secs(540) && wait <= Duration::from_secs(660), "{wait:?}");
        }
        assert_ne!(hello_wait(600, 10), hello_wait(600, 50_000));
    }

    /// When agents that lost their broker at 0 knock until the moment `back`, and once more.
    fn knocks(within_s: u32, back: Duration) -> Vec<Duration> {
        let mut all = Vec::new();
        for agent in 0..1_000_u64 {
            let mut at = Duration::ZERO;
            for failures in 1.. {
                let random = (agent * 64 + u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                at += reconnect_wait(within_s, failures, random);
                all.push(at);
                if at >= back {
                    break;
                }
            }
        }
        all
    }

    #[test]
    fn agents_that_lost_their_broker_together_never_knock_together_however_long_it_stays_away() {
        for back_s in [0, 10, 45, 100, 600] {
            let back = Duration::from_secs(back_s);
            let all = knocks(30, back);
            // After so long the growing steps are longer.
            let within = Duration::from_secs(if back_s > 100 { 120 } else { 30 }) + RECONNECT.first / 2;
            assert!(all.iter().all(|at| *at <= back + within), "{back_s} s: somebody is back too late");
            for tenth in 0..10 * (back_s + 120) {
                let from = Duration::from_millis(tenth * 100);
                let within = all.iter().filter(|at| (from..from + Duration::from_secs(1)).contains(*at)).count();
                assert!(within <= 2 * 33, "{back_s} s: {within} of 1,000 within a second from {from:?} on");
            }
        }
        assert!(
            reconnect_wait(0, 1, u64::MAX) <= Duration::from_secs(1),
            "nothing is waited for that is not configured"
        );
        assert!(reconnect_wait(1, 8, 0) >= Duration::from_secs(60), "the steps still grow");
    }

    #[tokio::test]
    async fn a_renewal_that_fails_is_tried_several_times_before_the_token_ends() {
        let mut renewal = Renewal::new(&session(900));
        let waits: Duration = (0..3).map(|_| renewal.failed(u64::MAX)).sum();
        assert!(waits < Duration::from_secs(300), "{waits:?}");
    }

    #[test]
    fn the_password_goes_into_the_connection_and_frames_are_bounded() {
        let uri = uri(&session(900)).unwrap();
        assert_eq!(uri.authority.userinfo.password, "geheim");
        assert_eq!((uri.vhost.as_str(), uri.query.frame_max), ("/", Some(FRAME_MAX)));
    }
}
