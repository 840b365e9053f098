//! What an activation does to services: reload them, and look at them.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use trustfleet_cmp::text::sanitise;
use trustfleet_model::service::ServiceResult;
use trustfleet_wire::v1::{InService, ServiceStep};

use super::activate::Giving;
use super::command::{Ended, Program};
use super::config::{Probe, Service};
use super::probe::Wanted;
use super::template::Template;
use crate::backoff::Backoff;
use crate::exchange::{Halt, blocking};

/// Waits between two looks of a probe.
const LOOK_AGAIN: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(2) };

impl Giving<'_> {
    /// Reloads a service and looks whether it has taken the certificate; on failure the code and a sentence.
    pub(super) async fn reload_and_probe(
        &self,
        service: &Service,
        done: &mut InService,
    ) -> Result<Result<ServiceResult, (&'static str, String)>, Halt> {
        if let Err(detail) = self.reload(service, "reload", done).await? {
            let message = format!("the service {} was not reloaded: {detail}", service.name);
            return Ok(Err(("reload_failed", message)));
        }
        let Some(how) = &service.probe else { return Ok(Ok(ServiceResult::Unverifiable)) };
        let begun = Instant::now();
        let seen = self.probe(service, how, &Wanted::Serial(self.serial.clone())).await?;
        let detail = seen.clone().unwrap_or_else(|detail| detail);
        done.steps.push(step(service, "probe", seen.is_ok(), begun, detail));
        Ok(seen.map(|_| ServiceResult::Verified).map_err(|detail| {
            let seconds = service.probe_timeout.as_secs();
            let message = format!("the service {} was not seen with it within {seconds} s: {detail}", service.name);
            ("probe_failed", message)
        }))
    }

    /// Reloads a service; on failure what was said.
    pub(super) async fn reload(
        &self,
        service: &Service,
        word: &'static str,
        done: &mut InService,
    ) -> Result<Result<(), String>, Halt> {
        if service.reload.is_empty() {
            return Ok(Ok(()));
        }
        let begun = Instant::now();
        let ended = self.run(service, &service.reload, service.reload_timeout).await?;
        done.steps.push(step(service, word, ended.ok, begun, ended.detail.clone()));
        Ok(if ended.ok { Ok(()) } else { Err(ended.detail) })
    }

    async fn run(&self, service: &Service, words: &[Template], limit: Duration) -> Result<Ended, Halt> {
        let program = Program {
            words: words.iter().map(|word| word.fill(self.place)).collect(),
            environment: vec![
                ("TRUSTFLEET_SERVICE", service.name.to_string()),
                ("TRUSTFLEET_DEVICE", self.place.device.to_string()),
                ("TRUSTFLEET_TRUSTPOINT", self.place.trustpoint.to_string()),
                ("TRUSTFLEET_SERIAL", self.serial.clone()),
            ],
            run_as: service.run_as,
            limit,
        };
        tokio::select! {
            ended = program.run() => Ok(ended),
            () = self.core.stopping() => Err(Halt::Stopping),
        }
    }

    /// Looks until what is wanted is seen or the time is over; then what was seen last.
    pub(super) async fn probe(
        &self,
        service: &Service,
        how: &Probe,
        wanted: &Wanted,
    ) -> Result<Result<String, String>, Halt> {
        let begun = Instant::now();
        let mut looks = 0_u32;
        loop {
            let left = service.probe_timeout.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
            let seen = self.look(service, how, wanted, left).await?;
            looks = looks.saturating_add(1);
            let wait = LOOK_AGAIN.wait(looks, self.core.identity.random_u64());
            if seen.is_ok() || begun.elapsed() + wait >= service.probe_timeout {
                return Ok(seen);
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = self.core.stopping() => return Err(Halt::Stopping),
            }
        }
    }

    async fn look(
        &self,
        service: &Service,
        how: &Probe,
        wanted: &Wanted,
        left: Duration,
    ) -> Result<Result<String, String>, Halt> {
        let wanted = wanted.clone();
        match how {
            Probe::Tls { address, sni } => {
                let (address, name) = (address.fill(self.place), sni.as_ref().map(|name| name.fill(self.place)));
                blocking(move || wanted.in_handshake(&address, name.as_deref())).await
            }
            Probe::File(path) => {
                let path = path.fill(self.place);
                blocking(move || wanted.in_file(&path)).await
            }
            Probe::Command(words) => {
                let ended = self.run(service, words, left).await?;
                Ok(if ended.ok { wanted.in_output(&ended.stdout) } else { Err(ended.detail) })
            }
        }
    }
}

/// One step as it is reported: what others said is made harmless.
pub(super) fn step(service: &Service, word: &str, ok: bool, begun: Instant, detail: String) -> ServiceStep {
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    ServiceStep { service: service.name.to_string(), step: word.to_owned(), ok, duration_ms, detail: sanitise(&detail) }
}
