//! How a CA is asked for what is to be fresh, and what counts of its answers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use trustfleet_cmp::entropy::SystemEntropy;
use trustfleet_cmp::request::Credentials;
use trustfleet_cmp::transaction::{Input, Step, Transaction};
use trustfleet_cmp::{Conclusion, Crl, CrlOf, InfoRequest, Information, Question, Request};
use trustfleet_model::clock::Clock as _;
use trustfleet_model::field::Violations;
use trustfleet_model::ids::TrustpointId;
use trustfleet_pki::Certificate;
use trustfleet_pki::chain::verify_signer;
use trustfleet_wire::v1::{Blob, RootOffered};

use super::record::Record;
use crate::core::Core;
use crate::exchange::{Halt, blocking};
use crate::order::{Order, Place, Talk};
use crate::slots::{Slot, Slots};

/// Longest wait for a CA that answers `waiting` to a question.
const WAIT_MOST_S: u64 = 60;
/// Most distribution points that are asked.
const POINTS_MAX: usize = 4;

/// How a CA is asked for one trustpoint.
pub(super) struct Asking {
    core: Arc<Core>,
    talk: Talk,
    credentials: Credentials,
    certificate: Certificate,
    chain: Vec<Certificate>,
}

impl Asking {
    pub(super) fn of(core: &Arc<Core>, record: &Record) -> Result<Option<Self>, String> {
        let words = |violations: Violations| violations.to_string();
        let place = Place::named(&record.device, &record.trustpoint).map_err(words)?;
        let talk = Order::of(&record.enroll).map_err(words)?.talk;
        core.accept.check(&talk).map_err(words)?;
        let slots = core.slots(&place);
        let current = slots.certificate(Slot::Current).map_err(|error| error.to_string())?;
        let (Some((certificate, _)), Some(folder)) = (current, slots.folder(Slot::Current)) else { return Ok(None) };
        let signer = core.keys.load(&folder).map_err(|error| error.to_string())?;
        let chain = slots.chain(Slot::Current);
        let credentials = Credentials::Signature { signer, certificate: certificate.clone(), chain: chain.clone() };
        Ok(Some(Self { core: Arc::clone(core), talk, credentials, certificate, chain }))
    }

    fn anchors(&self) -> &[Certificate] {
        &self.talk.acceptance.anchors
    }

    /// The CA certificates that it names, as far as they lead to an anchor.
    pub(super) async fn ca_certificates(&self, now: Timestamp) -> Result<Result<Vec<Certificate>, String>, Halt> {
        Ok(self.ask(Question::CaCerts).await?.map(|information| match information {
            Information::CaCerts(found) => leading(&found, self.anchors(), now),
            _ => Vec::new(),
        }))
    }

    /// Roots that follow the anchors, verified by them (V12).
    pub(super) async fn following(
        &self,
        trustpoint_id: TrustpointId,
    ) -> Result<Result<Vec<RootOffered>, String>, Halt> {
        let mut found = Vec::new();
        for old in self.anchors().iter().filter(|anchor| anchor.is_self_issued()) {
            match self.ask(Question::RootCaUpdate { old: old.clone() }).await? {
                Ok(Information::RootCaUpdate(Some(update))) => found.push(RootOffered {
                    trustpoint_id,
                    root: Blob(update.new_root.as_der().to_vec()),
                    with_old: Blob(update.new_with_old.as_der().to_vec()),
                }),
                Ok(_) => {}
                Err(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(found))
    }

    /// A CRL that is newer than the one at hand, of the CA that issued the certificate in use, verified.
    pub(super) async fn crl(
        &self,
        slots: &Slots,
        held: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Result<Option<(Crl, (Timestamp, Timestamp))>, String>, Halt> {
        let held = held.filter(|_| slots.crl_file().exists());
        let known: Vec<Certificate> = self.chain.iter().chain(self.anchors()).cloned().collect();
        let issuers: Vec<Certificate> = leading(&known, self.anchors(), now);
        let judge = |crl: Crl| judge(crl, &self.certificate, &issuers, held, now);
        let mut troubles = Vec::new();
        for url in self.certificate.crl_urls().into_iter().take(POINTS_MAX) {
            match self.fetch(url.clone()).await?.and_then(|der| Crl::from_der(&der)).and_then(&judge) {
                Ok(found) => return Ok(Ok(found)),
                Err(reason) => troubles.push(format!("{url}: {reason}")),
            }
        }
        let question = Question::CrlUpdate { source: CrlOf::Issuer(self.certificate.issuer()), this_update: held };
        let asked = match self.ask(question).await? {
            Ok(information) => Ok(information),
            // Older servers know the older question only.
            Err(_) => self.ask(Question::CurrentCrl).await?,
        };
        let found = asked.and_then(|information| match information {
            Information::Crls(crls) => match crls.into_iter().find(|crl| *crl.issuer() == self.certificate.issuer()) {
                Some(crl) => judge(crl),
                None if held.is_some() => Ok(None),
                None => Err("the CA has no CRL to give".to_owned()),
            },
            _ => Err("the CA answered something else".to_owned()),
        });
        Ok(found.map_err(|reason| {
            troubles.push(reason);
            troubles.join("; ")
        }))
    }

    async fn fetch(&self, url: String) -> Result<Result<Vec<u8>, String>, Halt> {
        if !self.core.accept.covers(&url) {
            return Ok(Err("accept.ca_urls of the agent's configuration does not list it".to_owned()));
        }
        let (http, timeout) = (self.core.http.coming_from(&self.talk.source), self.talk.message_timeout);
        Ok(blocking(move || http.get(&url, timeout)).await?.map_err(|error| error.to_string()))
    }

    /// One question and its verified answer.
    async fn ask(&self, question: Question) -> Result<Result<Information, String>, Halt> {
        let request =
            InfoRequest { question, recipient: self.talk.recipient.clone(), sender: None, extra_certs: Vec::new() };
        let (core, acceptance) = (Arc::clone(&self.core), self.talk.acceptance.clone());
        let (http, credentials) = (core.http.coming_from(&self.talk.source), self.credentials.clone());
        let (urls, timeout) = (self.talk.urls.clone(), self.talk.message_timeout);
        blocking(move || {
            let now = || core.identity.clock.now();
            let begun = Transaction::begin(
                Request::Info(Box::new(request)),
                credentials,
                acceptance,
                &mut SystemEntropy,
                now(),
            );
            let (transaction, message) = begun.map_err(|error| error.to_string())?;
            let mut step = Step::Send { transaction: Box::new(transaction), message };
            loop {
                step = match step {
                    Step::Send { transaction, message } => {
                        let mut last = Err("no server is configured".to_owned());
                        for url in &urls {
                            last = http.post(url, &message, timeout).map_err(|error| error.to_string());
                            if last.is_ok() {
                                break;
                            }
                        }
                        transaction.handle(Input::Response(&last?), &mut SystemEntropy, now())
                    }
                    Step::Wait { transaction, seconds } if seconds <= WAIT_MOST_S => {
                        std::thread::sleep(Duration::from_secs(seconds));
                        transaction.handle(Input::TimerFired, &mut SystemEntropy, now())
                    }
                    Step::Wait { .. } => return Err("the CA lets us wait for an answer".to_owned()),
                    Step::Concluded(conclusion) => match *conclusion {
                        Conclusion::Informed(informed) => return Ok(informed.information),
                        Conclusion::Revoked(_) => return Err("the CA answered something else".to_owned()),
                    },
                    Step::Done(_) => return Err("the CA answered something else".to_owned()),
                    Step::Failed { error, .. } => return Err(error.to_string()),
                };
            }
        })
        .await
    }
}

/// The CA certificates that lead to an anchor at this moment, each once.
fn leading(found: &[Certificate], anchors: &[Certificate], now: Timestamp) -> Vec<Certificate> {
    let mut leading: Vec<Certificate> = Vec::new();
    for ca in found.iter().filter(|ca| ca.is_ca()) {
        if !leading.contains(ca) && verify_signer(ca, found, anchors, now).is_ok() {
            leading.push(ca.clone());
        }
    }
    leading
}

type Fresh = Option<(Crl, (Timestamp, Timestamp))>;

/// Whether a CRL counts; none: it is no newer than the one at hand.
fn judge(
    crl: Crl,
    certificate: &Certificate,
    issuers: &[Certificate],
    held: Option<Timestamp>,
    now: Timestamp,
) -> Result<Fresh, String> {
    let issuer = certificate.issuer();
    if *crl.issuer() != issuer {
        return Err(format!("the CRL is of {}, the certificate of {issuer}", crl.issuer()));
    }
    let signed = issuers.iter().any(|ca| ca.subject() == issuer && crl.verify_signed_by(ca).is_ok());
    if !signed {
        return Err("the CRL is not signed by the certificate's CA".to_owned());
    }
    let (Some(this_update), Some(next_update)) = (crl.this_update(), crl.next_update()) else {
        return Err("the CRL does not say until when it counts".to_owned());
    };
    if next_update <= now {
        return Err(format!("the CRL counted until {next_update}"));
    }
    Ok(held.is_none_or(|held| this_update > held).then_some((crl, (this_update, next_update))))
}
