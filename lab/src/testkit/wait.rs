//! Patience: asking again until something is so.

use std::time::{Duration, Instant};

use super::TestkitError;

const PAUSE: Duration = Duration::from_millis(25);

/// Calls `probe` every 25 ms until it gives something, which is returned.
///
/// `what` completes the sentence "it never came true that …".
///
/// # Errors
/// [`TestkitError::NotInTime`] after `at_most`; the probe is always called at least once.
pub async fn eventually<T>(
    at_most: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T, TestkitError> {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if begin.elapsed() >= at_most {
            return Err(TestkitError::NotInTime { what: what.to_owned(), after: at_most });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_true_late_is_returned_and_what_never_does_is_named() {
        let mut asked = 0;
        let found = eventually(Duration::from_secs(5), "it is the third time", async || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(found.await.unwrap(), 3);
        let error = eventually(Duration::ZERO, "pigs fly", async || None::<()>).await.unwrap_err();
        assert!(error.to_string().ends_with("that pigs fly"), "{error}");
    }
}
