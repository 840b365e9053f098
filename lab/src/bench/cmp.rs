//! The CMP client beside `openssl cmp` at the same server, and beside its own cryptography.

mod client;
mod cpu;

use std::time::Instant;

use self::{client::Client, cpu::Recorded};
use super::{
    BenchError,
    figure::{Pair, median},
    harness::Harness,
    mock::Mock,
    process::Line,
    spec::{Limit, Pace, Spec},
};

/// The benchmarks of this group.
pub(crate) const SPECS: &[Spec] = &[
    Spec {
        id: "cmp.wall",
        what: "whole process `trustfleet-agent cmp ir` with a ready key, against `openssl cmp -port`",
        beside: "openssl cmp -cmd ir",
        unit: "ms",
        limits: &[Limit::ratio_at_most(0.60)],
        pace: Pace::Seconds,
    },
    Spec {
        id: "cmp.rss",
        what: "peak memory of the same process",
        beside: "openssl cmp -cmd ir",
        unit: "MB",
        limits: &[Limit::ratio_at_most(0.60)],
        pace: Pace::Seconds,
    },
    Spec {
        id: "cmp.exchange",
        what: "one exchange in process through the agent's HTTP client, without a store",
        beside: "openssl cmp -repeat 100, per exchange",
        unit: "ms",
        limits: &[Limit::ratio_at_most(0.40)],
        pace: Pace::Seconds,
    },
    Spec {
        id: "cmp.cpu",
        what: "the client's CPU time of one exchange without sockets: build, protect, decode, verify, check",
        beside: "its cryptographic operations alone, by the same library",
        unit: "us",
        limits: &[Limit::ratio_at_most(1.15)],
        pace: Pace::Seconds,
    },
];

/// What `openssl cmp -repeat` does in one process.
const REPEAT: u32 = 100;

/// Measures what was chosen.
///
/// # Errors
/// There is no server to measure at.
pub(crate) async fn run(harness: &mut Harness) -> Result<(), BenchError> {
    let mock = Mock::start().await?;
    let openssl = mock.openssl()?;
    openssl.output()?;
    if harness.wants("cmp.wall") || harness.wants("cmp.rss") {
        let agent = mock.agent()?;
        agent.output()?;
        let processes = harness.size(100, 10);
        harness.pairs("cmp.wall", async || in_turn(processes, || wall_ms(&agent), || wall_ms(&openssl))).await;
        let processes = harness.size(9, 3);
        harness.pairs("cmp.rss", async || in_turn(processes, || peak_mb(&agent), || peak_mb(&openssl))).await;
    }

    let client = Client::new(&mock)?;
    let repeated = openssl.and(&["-repeat", &REPEAT.to_string()]);
    let rounds = harness.size(5, 1);
    harness.pairs("cmp.exchange", async || in_turn(rounds, || exchange_ms(&client), || repeated_ms(&repeated))).await;

    if harness.wants("cmp.cpu") {
        let recorded = Recorded::of(&client)?;
        let rounds = harness.size(100, 10);
        harness
            .pairs("cmp.cpu", async || in_turn(rounds, || recorded.exchange_us(), || recorded.cryptography_us()))
            .await;
    }
    Ok(())
}

/// Subject and baseline one after the other, so many times; the median of each. What disturbs the machine for a moment
/// disturbs both, and neither much.
fn in_turn(
    times: usize,
    mut subject: impl FnMut() -> Result<f64, BenchError>,
    mut baseline: impl FnMut() -> Result<f64, BenchError>,
) -> Result<Pair, BenchError> {
    let (mut values, mut baselines) = (Vec::new(), Vec::new());
    for _ in 0..times {
        values.push(subject()?);
        baselines.push(baseline()?);
    }
    Ok(Pair { value: median(&values), baseline: median(&baselines) })
}

fn wall_ms(line: &Line) -> Result<f64, BenchError> {
    Ok(line.wall()?.as_secs_f64() * 1e3)
}

fn peak_mb(line: &Line) -> Result<f64, BenchError> {
    Ok(line.peak_bytes()? / 1e6)
}

/// As many exchanges as OpenSSL makes in one process, so that both see as much of the machine.
fn exchange_ms(client: &Client) -> Result<f64, BenchError> {
    let begin = Instant::now();
    for _ in 0..REPEAT {
        client.exchange()?;
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3 / f64::from(REPEAT))
}

fn repeated_ms(line: &Line) -> Result<f64, BenchError> {
    Ok(wall_ms(line)? / f64::from(REPEAT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_and_baseline_take_turns_and_one_bad_moment_does_not_count() {
        let mut order = Vec::new();
        let log = std::cell::RefCell::new(&mut order);
        let pair = in_turn(
            3,
            || {
                log.borrow_mut().push('a');
                Ok(if log.borrow().len() == 3 { 900.0 } else { 1.0 })
            },
            || {
                log.borrow_mut().push('b');
                Ok(2.0)
            },
        );
        assert_eq!(pair.unwrap(), Pair { value: 1.0, baseline: 2.0 });
        assert_eq!(order, ['a', 'b', 'a', 'b', 'a', 'b']);
    }

    #[tokio::test]
    async fn an_exchange_in_process_enrols_and_its_record_can_be_gone_through_again() {
        let mock = Mock::start().await.unwrap();
        let client = Client::new(&mock).unwrap();
        client.exchange().unwrap();
        let recorded = Recorded::of(&client).unwrap();
        assert!(recorded.exchange_us().unwrap() > 0.0 && recorded.cryptography_us().unwrap() > 0.0);
    }
}
