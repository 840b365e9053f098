//! What the broker alone can do: the messages of a job, as many and as long, with confirms and acks, and nothing between.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use tokio::task::JoinSet;
use url::Url;

use super::super::BenchError;

/// Queues of agents, and of reports.
const AGENTS: usize = 100;
const SHARDS: usize = 4;
/// Jobs under way at a time.
const UNDER_WAY: usize = 256;
/// Reports of a job: begun, issued, in use.
const REPORTS: usize = 3;
const JOB: u8 = b'j';
const RECEIPT: u8 = b'r';

impl From<lapin::Error> for BenchError {
    fn from(error: lapin::Error) -> Self {
        Self::Odd(format!("the broker: {error}"))
    }
}

/// Jobs in a second whose messages have all gone to and fro; a message to an agent has `to_agent` bytes, a report `report`.
///
/// # Errors
/// The broker's.
pub(crate) async fn jobs_per_s(
    broker: &Url,
    to_agent: usize,
    report: usize,
    during: Duration,
) -> Result<f64, BenchError> {
    let open = async || Connection::connect(broker.as_str(), ConnectionProperties::default()).await;
    let (controller, agents) = (open().await?, open().await?);
    let (publish, consume) = channels(&controller, 64).await?;
    let (report_back, listen) = channels(&agents, 16).await?;
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for n in 0..SHARDS {
        let consumer = queue(&consume, &format!("floor.reports.{n}")).await?;
        tasks.spawn(controller_side(publish.clone(), consumer, to_agent, Arc::clone(&done)));
    }
    for n in 0..AGENTS {
        let consumer = queue(&listen, &format!("floor.agent.{n}")).await?;
        tasks.spawn(agent_side(report_back.clone(), consumer, n, report));
    }
    for n in 0..UNDER_WAY {
        let (publish, done) = (publish.clone(), Arc::clone(&done));
        tasks.spawn(async move {
            let mut body = vec![JOB; to_agent.max(2)];
            body[1] = u8::try_from(n % AGENTS).unwrap_or(0);
            let key = format!("floor.agent.{}", n % AGENTS);
            for round in 0_u64.. {
                send(&publish, &key, &body).await?;
                // The next one when about as many are done as were sent.
                while done.load(Ordering::Relaxed) / (REPORTS * UNDER_WAY) as u64 + 1 < round + 1 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            Ok(())
        });
    }
    tokio::time::sleep(during / 5).await;
    let (before, from) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(during).await;
    let finished = done.load(Ordering::Relaxed) - before;
    let took = from.elapsed();
    tasks.abort_all();
    Ok(finished as f64 / REPORTS as f64 / took.as_secs_f64())
}

async fn channels(connection: &Connection, prefetch: u16) -> Result<(Channel, Channel), lapin::Error> {
    let publish = connection.create_channel().await?;
    publish.confirm_select(ConfirmSelectOptions::default()).await?;
    let consume = connection.create_channel().await?;
    consume.basic_qos(prefetch, BasicQosOptions::default()).await?;
    Ok((publish, consume))
}

async fn queue(channel: &Channel, name: &str) -> Result<Consumer, lapin::Error> {
    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    channel.basic_consume(name.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

async fn send(channel: &Channel, key: &str, body: &[u8]) -> Result<(), lapin::Error> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish("".into(), key.into(), options, body, properties).await?.await.map(drop)
}

async fn controller_side(
    publish: Channel,
    mut consumer: Consumer,
    to_agent: usize,
    done: Arc<AtomicU64>,
) -> Result<(), lapin::Error> {
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let (publish, done) = (publish.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let agent = delivery.data.get(1).copied().unwrap_or(0);
            send(&publish, &format!("floor.agent.{agent}"), &vec![RECEIPT; to_agent]).await?;
            delivery.acker.ack(BasicAckOptions::default()).await?;
            done.fetch_add(1, Ordering::Relaxed);
            Ok::<_, lapin::Error>(())
        });
    }
    Ok(())
}

async fn agent_side(
    publish: Channel,
    mut consumer: Consumer,
    number: usize,
    report: usize,
) -> Result<(), lapin::Error> {
    let mut body = vec![0; report.max(2)];
    body[1] = u8::try_from(number).unwrap_or(0);
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        if delivery.data.first() == Some(&JOB) {
            for n in 0..REPORTS {
                send(&publish, &format!("floor.reports.{}", (number + n) % SHARDS), &body).await?;
            }
        }
        delivery.acker.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}
