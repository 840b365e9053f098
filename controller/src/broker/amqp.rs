//! The only file that names lapin.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    tcp::{AsyncTcpStream, RustlsConnector},
    types::{AMQPValue, FieldTable},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::{
    net::lookup_host,
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use trustfleet_model::ids::AgentId;
use trustfleet_wire::routing::{
    DEAD_LETTER_QUEUE, JOBS_EXCHANGE, REPORT_SHARDS, REPORTS_EXCHANGE, agent_queue, report_binding, report_queue,
};

use super::{BrokerError, Outgoing, Published};
use crate::{config::BrokerConfig, entropy, metrics::Metrics, tls::ClientTls};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Without it lapin takes 8 MB of memory for each connection.
const FRAME_MAX: &str = "131072";
/// Queues of agents that are not seen for 30 days go away; PostgreSQL keeps their jobs.
const AGENT_QUEUE_EXPIRES_MS: i64 = 30 * 24 * 3600 * 1000;
const DEAD_LETTERS_MAX: i64 = 10_000;
/// Header that counts how often a message was taken in vain. Classic queues do not count.
const DELIVERIES: &str = "x-trustfleet-deliveries";
/// Header by which controllers before this one said why a letter was laid aside.
const REASON: &str = "x-reason";
/// Where RabbitMQ publishes its log (`log.exchange`).
const LOG_EXCHANGE: &str = "amq.rabbitmq.log";
/// Lines of the broker's log that wait for somebody to read them, and how long their queue is kept without.
const LOG_LINES_MAX: i64 = 1_000;
const LOG_QUEUE_EXPIRES_MS: i64 = 24 * 3600 * 1000;

/// The connection as of now. Cheap to clone; it goes on living behind a lost connection.
#[derive(Clone)]
pub struct BrokerHandle {
    live: watch::Receiver<Option<Arc<Live>>>,
    backend: Handle,
}

/// One connection, from its making to its loss.
struct Live {
    connection: Connection,
    publish: Channel,
}

impl Live {
    fn is_up(&self) -> bool {
        self.connection.status().connected() && self.publish.status().connected()
    }
}

impl fmt::Debug for BrokerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerHandle(connected: {})", self.is_ready())
    }
}

impl BrokerHandle {
    /// Keeps a connection on `backend` until `shutdown`; returns at once, connected or not. `tls` verifies the broker at
    /// `amqps://`, which cannot be reached without.
    pub fn start(
        config: &BrokerConfig,
        tls: Option<Arc<ClientTls>>,
        backend: &Handle,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let mut url = config.url.expose().clone();
        if !url.query_pairs().any(|(key, _)| key == "frame_max") {
            url.query_pairs_mut().append_pair("frame_max", FRAME_MAX);
        }
        let (sender, live) = watch::channel(None);
        let task =
            backend.spawn(keep_connected(url.to_string(), tls, Topology::House, sender, Some(metrics), shutdown));
        (Self { live, backend: backend.clone() }, task)
    }

    /// Keeps a connection to where RabbitMQ publishes its log, whose lines go to the queue of this name.
    pub fn start_log(
        url: &url::Url,
        queue: &str,
        tls: Option<Arc<ClientTls>>,
        backend: &Handle,
        shutdown: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let mut url = url.clone();
        if !url.query_pairs().any(|(key, _)| key == "frame_max") {
            url.query_pairs_mut().append_pair("frame_max", FRAME_MAX);
        }
        let (sender, live) = watch::channel(None);
        let topology = Topology::Log(queue.to_owned());
        let task = backend.spawn(keep_connected(url.to_string(), tls, topology, sender, None, shutdown));
        (Self { live, backend: backend.clone() }, task)
    }

    /// Whether there is a connection with all exchanges and queues declared.
    pub fn is_ready(&self) -> bool {
        self.live.borrow().as_ref().is_some_and(|live| live.is_up())
    }

    /// Waits until there is a connection.
    pub async fn ready(&self) {
        let mut live = self.live.clone();
        // The sender lives as long as the process; without it there is nothing to wait for.
        let _ = live.wait_for(|live| live.as_ref().is_some_and(|live| live.is_up())).await;
    }

    /// Publishes and waits for the broker's confirmation.
    ///
    /// # Errors
    /// The broker is away, or has not confirmed: the message may be in its queue all the same.
    pub async fn publish(&self, message: Outgoing) -> Result<Published, BrokerError> {
        let live = self.live()?;
        self.on_backend(async move {
            let mut properties =
                BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
            if message.deliveries > 0 {
                let mut headers = FieldTable::default();
                headers.insert(DELIVERIES.into(), AMQPValue::LongUInt(message.deliveries));
                properties = properties.with_headers(headers);
            }
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let confirm = live
                .publish
                .basic_publish(message.exchange.into(), message.routing_key.into(), options, &message.body, properties)
                .await
                .map_err(refused)?;
            match timeout(CONFIRM_TIMEOUT, confirm).await {
                Ok(Ok(Confirmation::Ack(None))) => Ok(Published::Confirmed),
                Ok(Ok(Confirmation::Ack(Some(_)))) => Ok(Published::Returned),
                Ok(Ok(Confirmation::Nack(_) | Confirmation::NotRequested)) | Err(_) => Err(BrokerError::Unconfirmed),
                Ok(Err(error)) => Err(refused(error)),
            }
        })
        .await
    }

    /// Declares the queue of an agent and binds it: at its join and at each of its sessions.
    ///
    /// # Errors
    /// The broker is away or refused.
    pub async fn declare_agent_queue(&self, agent: AgentId) -> Result<(), BrokerError> {
        let live = self.live()?;
        self.on_backend(async move {
            // A channel of its own: a refusal closes the channel it happens on.
            let channel = live.connection.create_channel().await.map_err(refused)?;
            let name = agent_queue(agent);
            let mut arguments = FieldTable::default();
            arguments.insert("x-expires".into(), AMQPValue::LongLongInt(AGENT_QUEUE_EXPIRES_MS));
            channel
                .queue_declare(name.as_str().into(), QueueDeclareOptions::durable(), arguments)
                .await
                .map_err(refused)?;
            bind(&channel, &name, JOBS_EXCHANGE, &name).await.map_err(refused)?;
            channel.close(200, "done".into()).await.map_err(refused)
        })
        .await
    }

    /// Deletes the queue of an agent with all that is in it: whoever reads from it reads no more. The jobs are in the
    /// database, and are offered again after its next session has declared it anew.
    ///
    /// # Errors
    /// The broker is away or refused.
    pub async fn delete_agent_queue(&self, agent: AgentId) -> Result<(), BrokerError> {
        let live = self.live()?;
        self.on_backend(async move {
            let channel = live.connection.create_channel().await.map_err(refused)?;
            let name = agent_queue(agent);
            channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.map_err(refused)?;
            channel.close(200, "done".into()).await.map_err(refused)
        })
        .await
    }

    /// Consumes a queue, with at most `prefetch` deliveries unanswered at a time; ends with the connection.
    ///
    /// # Errors
    /// The broker is away or refused.
    pub async fn subscribe(&self, queue: String, prefetch: u16) -> Result<Subscription, BrokerError> {
        let live = self.live()?;
        self.on_backend(async move {
            let channel = live.connection.create_channel().await.map_err(refused)?;
            channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(refused)?;
            let consumer = channel
                .basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
                .await
                .map_err(refused)?;
            Ok(Subscription { consumer, _channel: channel })
        })
        .await
    }

    fn live(&self) -> Result<Arc<Live>, BrokerError> {
        self.live.borrow().clone().filter(|live| live.is_up()).ok_or(BrokerError::Away)
    }

    /// Runs on the multi-thread runtime, also for callers on an HTTP worker's single thread.
    async fn on_backend<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.backend.spawn(work).await.unwrap_or(Err(BrokerError::Away))
    }
}

/// A consumed queue.
pub struct Subscription {
    consumer: Consumer,
    _channel: Channel,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

impl Subscription {
    /// The next delivery; none when the connection or the consumer ended.
    pub async fn next(&mut self) -> Option<Delivery> {
        match self.consumer.next().await? {
            Ok(delivery) => Some(Delivery { inner: delivery }),
            Err(error) => {
                tracing::warn!(error = %error, "consumer ended");
                None
            }
        }
    }
}

/// A message that waits for its answer.
pub struct Delivery {
    inner: lapin::message::Delivery,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivery({} bytes)", self.inner.data.len())
    }
}

impl Delivery {
    /// The message.
    pub fn body(&self) -> &[u8] {
        &self.inner.data
    }

    /// The key that it was published with.
    pub fn routing_key(&self) -> &str {
        self.inner.routing_key.as_str()
    }

    /// How often it was taken in vain before. Whoever may publish can claim what he likes, of his own messages.
    pub fn deliveries(&self) -> u32 {
        match self.header(DELIVERIES) {
            Some(AMQPValue::LongUInt(times)) => *times,
            _ => 0,
        }
    }

    /// Why a controller before this one laid it aside, if one did.
    pub fn reason(&self) -> Option<String> {
        match self.header(REASON) {
            Some(AMQPValue::LongString(reason)) => Some(String::from_utf8_lossy(reason.as_bytes()).into_owned()),
            _ => None,
        }
    }

    fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.inner.properties.headers().as_ref().and_then(|headers| headers.inner().get(name))
    }

    /// Done: the broker may forget it. A lost connection is no error: the message comes again.
    pub async fn ack(self) {
        if let Err(error) = self.inner.acker.ack(BasicAckOptions::default()).await {
            tracing::debug!(error = %error, "delivery not acknowledged, it will come again");
        }
    }

    /// Not done: the broker gives it again, to anybody.
    pub async fn requeue(self) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        if let Err(error) = self.inner.acker.nack(options).await {
            tracing::debug!(error = %error, "delivery not returned, it will come again");
        }
    }
}

/// What is declared on a connection.
enum Topology {
    /// Exchanges and queues of jobs and reports.
    House,
    /// A queue of the broker's log.
    Log(String),
}

async fn keep_connected(
    url: String,
    tls: Option<Arc<ClientTls>>,
    topology: Topology,
    live: watch::Sender<Option<Arc<Live>>>,
    metrics: Option<Arc<Metrics>>,
    shutdown: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        match timeout(CONNECT_TIMEOUT, connect(&url, tls.as_ref(), &topology)).await {
            Ok(Ok(connection)) => {
                tracing::info!("connected to the broker");
                pause = FIRST_PAUSE;
                let connection = Arc::new(connection);
                metrics.iter().for_each(|metrics| metrics.set_broker_connected(true));
                live.send_replace(Some(Arc::clone(&connection)));
                while connection.is_up() {
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = sleep(LOOK_EVERY) => {}
                    }
                }
                live.send_replace(None);
                metrics.iter().for_each(|metrics| metrics.set_broker_connected(false));
                if connection.connection.status().connected()
                    && let Err(error) = connection.connection.close(200, "bye".into()).await
                {
                    tracing::debug!(error = %error, "connection to the broker not closed in order");
                }
                if !shutdown.is_cancelled() {
                    tracing::warn!("connection to the broker lost");
                }
            }
            Ok(Err(error)) => tracing::warn!(error = %error, "broker cannot be reached"),
            Err(_) => tracing::warn!("broker does not answer"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(scattered(pause)) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Half to all of `pause`, so that replicas do not come back in step.
fn scattered(pause: Duration) -> Duration {
    let [random] = entropy::random::<1>().unwrap_or([255]);
    pause / 2 + pause.mul_f64(f64::from(random) / 510.0)
}

async fn connect(url: &str, tls: Option<&Arc<ClientTls>>, topology: &Topology) -> Result<Live, lapin::Error> {
    let properties = ConnectionProperties::default().with_connection_name("trustfleet controller".into());
    let uri: AMQPUri = url.parse().map_err(|error: String| std::io::Error::other(error))?;
    let tls = tls.cloned();
    // lapin's own way to TLS takes the system's roots besides those that it is given.
    let stream = async move |uri: AMQPUri, runtime| {
        let host = uri.authority.host.trim_matches(['[', ']']);
        let addresses: Vec<_> = lookup_host((host, uri.authority.port)).await?.collect();
        let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
        match (uri.scheme, &tls) {
            (AMQPScheme::AMQP, _) => Ok(stream),
            (AMQPScheme::AMQPS, Some(tls)) => {
                Ok(stream.into_rustls(&RustlsConnector::from(tls.config()), host).await?)
            }
            (AMQPScheme::AMQPS, None) => Err(std::io::Error::other("amqps:// without roots").into()),
        }
    };
    let runtime = lapin::runtime::default_runtime()?;
    let connection = Connection::connector(uri, runtime, stream, properties).await?;
    let channel = connection.create_channel().await?;
    match topology {
        Topology::House => declare_topology(&channel).await?,
        Topology::Log(queue) => declare_log(&channel, queue).await?,
    }
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(Live { connection, publish: channel })
}

async fn declare_topology(channel: &Channel) -> Result<(), lapin::Error> {
    for (exchange, kind) in [(JOBS_EXCHANGE, ExchangeKind::Direct), (REPORTS_EXCHANGE, ExchangeKind::Topic)] {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(exchange.into(), kind, options, FieldTable::default()).await?;
    }
    for shard in 0..REPORT_SHARDS {
        let queue = report_queue(shard);
        channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
        bind(channel, &queue, REPORTS_EXCHANGE, &report_binding(shard)).await?;
    }
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(DEAD_LETTERS_MAX));
    channel.queue_declare(DEAD_LETTER_QUEUE.into(), QueueDeclareOptions::durable(), arguments).await?;
    Ok(())
}

async fn declare_log(channel: &Channel, queue: &str) -> Result<(), lapin::Error> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(LOG_LINES_MAX));
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(LOG_QUEUE_EXPIRES_MS));
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
    bind(channel, queue, LOG_EXCHANGE, "#").await
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), lapin::Error> {
    channel
        .queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), FieldTable::default())
        .await
}

fn refused(error: lapin::Error) -> BrokerError {
    BrokerError::Refused { source: Box::new(error) }
}
