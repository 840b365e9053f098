//! What is wanted at the same time is asked for together: while some statements are on their way the next requests gather, so that
//! a lone one waits for nobody, and thousands cost hundreds of statements.

use std::{fmt, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot},
};

use crate::db::DbError;

/// Most requests of one statement.
const BATCH_MAX: usize = 256;
/// Requests that may wait; whoever asks waits behind them.
const QUEUE_MAX: usize = 4096;

/// The answers to a batch, in the order of its requests.
pub(crate) type Answers<V> = Result<Vec<Result<V, DbError>>, DbError>;

struct Wanted<K, V> {
    key: K,
    answer: oneshot::Sender<Result<V, DbError>>,
}

/// Where requests are handed in. Cheap to clone.
pub(crate) struct Gather<K, V> {
    wanted: mpsc::Sender<Wanted<K, V>>,
}

impl<K, V> Clone for Gather<K, V> {
    fn clone(&self) -> Self {
        Self { wanted: self.wanted.clone() }
    }
}

impl<K, V> fmt::Debug for Gather<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gather")
    }
}

impl<K: Send + 'static, V: Send + 'static> Gather<K, V> {
    /// Starts to answer with `ask`, `at_once` batches at a time; ends with the last handle.
    pub(crate) fn start<F: Future<Output = Answers<V>> + Send + 'static>(
        backend: &Handle,
        at_once: usize,
        ask: impl Fn(Vec<K>) -> F + Send + Sync + 'static,
    ) -> Self {
        let (wanted, received) = mpsc::channel(QUEUE_MAX);
        backend.spawn(run(received, at_once, Arc::new(ask)));
        Self { wanted }
    }

    /// The answer to a request, of a moment after this was called.
    ///
    /// # Errors
    /// The request's own, or its batch's.
    pub(crate) async fn ask(&self, key: K) -> Result<V, DbError> {
        let gone = || DbError::Unavailable { source: "what answers requests together has ended".into() };
        let (answer, answered) = oneshot::channel();
        self.wanted.send(Wanted { key, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn run<K: Send + 'static, V: Send + 'static, F: Future<Output = Answers<V>> + Send + 'static>(
    mut received: mpsc::Receiver<Wanted<K, V>>,
    at_once: usize,
    ask: Arc<impl Fn(Vec<K>) -> F + Send + Sync + 'static>,
) {
    let places = Arc::new(Semaphore::new(at_once));
    // Only who has a place takes a batch: until then it may grow.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let mut batch = Vec::new();
        if received.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        let ask = Arc::clone(&ask);
        tokio::spawn(async move {
            answer(batch, &*ask).await;
            drop(place);
        });
    }
}

async fn answer<K, V, F: Future<Output = Answers<V>>>(batch: Vec<Wanted<K, V>>, ask: &impl Fn(Vec<K>) -> F) {
    let (keys, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|wanted| (wanted.key, wanted.answer)).unzip();
    match ask(keys).await {
        Ok(answers) => {
            for (waiting, answer) in waiting.into_iter().zip(answers) {
                // Who died meanwhile needs no answer.
                let _ = waiting.send(answer);
            }
        }
        Err(error) => {
            for waiting in waiting {
                let _ = waiting.send(Err(error.again()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_is_wanted_while_a_batch_is_on_its_way_goes_together_in_the_next_and_each_has_its_own_answer() {
        let (batches, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, opened) = (Arc::clone(&batches), Arc::clone(&gate));
        let gather = Gather::start(&Handle::current(), 1, move |keys: Vec<u32>| {
            let (counted, opened) = (Arc::clone(&counted), Arc::clone(&opened));
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
                opened.acquire().await.unwrap().forget();
                let double = |key| if key == 7 { Err(DbError::NotFound { kind: "device" }) } else { Ok(key * 2) };
                Ok(keys.into_iter().map(double).collect())
            }
        });
        let asked: Vec<_> = (0..50)
            .map(|key| {
                let gather = gather.clone();
                tokio::spawn(async move { gather.ask(key).await })
            })
            .collect();
        tokio::task::yield_now().await;
        gate.add_permits(50);
        for (key, answer) in (0_u32..).zip(asked) {
            match answer.await.unwrap() {
                Ok(double) => assert_eq!(double, key * 2),
                Err(error) => assert!(key == 7 && matches!(error, DbError::NotFound { .. }), "{key}: {error}"),
            }
        }
        assert!(batches.load(Ordering::Relaxed) <= 3, "{batches:?} batches");
    }

    #[tokio::test]
    async fn a_batch_that_fails_fails_for_all_of_it() {
        let fails = |_: Vec<u32>| async { Err(DbError::Unavailable { source: "away".into() }) };
        let gather = Gather::<u32, u32>::start(&Handle::current(), 2, fails);
        assert!(matches!(gather.ask(1).await, Err(DbError::Unavailable { .. })));
    }
}
