//! Whether the CA can be reached at all, before a first request and a key for it (S31a).

use jiff::{SignedDuration, Timestamp};
use trustfleet_cmp::request::RequestKind;
use trustfleet_model::clock::Clock as _;
use trustfleet_model::transcript::Transcript;

use super::{Halt, Running, blocking};
use crate::cmp_http::{CmpHttp, HttpError};
use crate::lifecycle::{CA_BACKOFF, Patience};
use crate::{outcome, recorder};

impl Running<'_> {
    /// Makes sure that one of the servers can be connected to, before a first request: until then no key is made and
    /// nothing is sent (S31a). An update or a revocation goes to a CA that has answered before. What was tried in vain is the beginning
    /// of the transcript.
    pub(super) async fn reach(&self) -> Result<Transcript, Halt> {
        let mut transcript = Transcript::default();
        if matches!(self.errand.kind(), RequestKind::Kur | RequestKind::Rr) {
            return Ok(transcript);
        }
        let (http, source) = (self.core.http.clone(), self.errand.talk().source.clone());
        blocking(move || http.check_source(&source)).await?.map_err(|error| outcome::of_source(&error))?;
        let begun_at = self.core.identity.clock.now();
        let total = i64::try_from(self.errand.talk().acceptance.total_seconds).unwrap_or(i64::MAX);
        let ends_at = begun_at.checked_add(SignedDuration::from_secs(total)).unwrap_or(Timestamp::MAX);
        let mut failures = 0_u32;
        loop {
            let (http, urls) = (self.http(), self.errand.talk().urls.clone());
            let last = match blocking(move || reach_one(&http, &urls)).await? {
                Ok(()) => return Ok(transcript),
                Err(error) => error,
            };
            let now = self.core.identity.clock.now();
            recorder::not_reached(&mut transcript, self.errand.kind().request().name(), &last, now);
            failures = failures.saturating_add(1);
            if !Patience::Request.goes_on(failures, now, ends_at) {
                let mut failed = outcome::of_http(&last, false, self.errand.kind());
                failed.transcript = outcome::told(&transcript);
                return Err(failed.into());
            }
            let wait = CA_BACKOFF.wait(failures, self.core.identity.random_u64());
            tracing::warn!(job.id = %self.job.job_id, error = %last, wait_s = wait.as_secs(), "no ca can be reached yet");
            self.pause(wait, true).await?;
        }
    }
}

/// Whether one of the servers can be connected to; why not the last of them.
fn reach_one(http: &CmpHttp, urls: &[String]) -> Result<(), HttpError> {
    let mut last = HttpError::NotConnected { url: String::new(), detail: "no server is configured".to_owned() };
    for url in urls {
        match http.reach(url) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
