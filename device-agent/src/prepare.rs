//! What a transaction needs from the device: its key, its credentials, its first message. Blocks; called beside the loop.
//!
//! The key is on the disk before its public half is in any message. A sealed secret is opened here, in memory only, and
//! again after a restart: its sealed form lies in the job message, the open one nowhere.

use std::sync::Arc;

use jiff::Timestamp;
use trustfleet_cmp::entropy::SystemEntropy;
use trustfleet_cmp::key::{Signer, SoftwareKey};
use trustfleet_cmp::request::{Credentials, EnrollRequest, Request, RequestKind};
use trustfleet_cmp::revoke::RevokeRequest;
use trustfleet_cmp::transaction::{Step, Transaction, TransactionRecord};
use trustfleet_model::field::ObjectName;
use trustfleet_model::job::REPLACED_ALREADY;
use trustfleet_pki::{Certificate, Name};
use trustfleet_wire::seal::SealContext;
use trustfleet_wire::v1::{Failed, Job};
use zeroize::Zeroizing;

use crate::core::Core;
use crate::domains::{Domains, Identity};
use crate::order::{Errand, Order, Place, RevocationOrder, Talk};
use crate::outcome;
use crate::slots::{Slot, Slots};

/// What a transaction needs from the device.
#[derive(Debug)]
pub struct Prepare {
    core: Arc<Core>,
    job: Job,
    errand: Errand,
    slots: Slots,
}

impl Prepare {
    /// Gathers for a job.
    pub fn of(core: &Arc<Core>, job: &Job, place: &Place, errand: &Errand) -> Self {
        Self { core: Arc::clone(core), job: job.clone(), errand: errand.clone(), slots: core.slots(place) }
    }

    /// Makes the first message, and before it the key where one is to be certified (on the disk before its public half
    /// leaves). Also says the public key: the one to be certified, or the one that signs a revocation.
    ///
    /// # Errors
    /// What is missing or wrong here; nothing has left the device then.
    pub fn start(&self, now: Timestamp) -> Result<(Transaction, Vec<u8>, Vec<u8>), Box<Failed>> {
        self.core.http.check_source(&self.errand.talk().source).map_err(|error| outcome::of_source(&error))?;
        match &self.errand {
            Errand::Enroll(order) => self.enroll(order, now),
            Errand::Revoke(order) => self.revoke(order, now),
        }
    }

    fn enroll(&self, order: &Order, now: Timestamp) -> Result<(Transaction, Vec<u8>, Vec<u8>), Box<Failed>> {
        self.check_replaced(order)?;
        let credentials = self.credentials(order)?;
        self.first_message(order, credentials, self.key(order)?, now)
    }

    /// The first message as it would be sent, with a key that is made for it alone and kept nowhere; where an update keeps its
    /// key, with that one. What signs or protects it is the real thing.
    ///
    /// # Errors
    /// What is missing or wrong here.
    pub fn sample(&self, order: &Order, now: Timestamp) -> Result<Vec<u8>, Box<Failed>> {
        let credentials = self.credentials(order)?;
        let key: Arc<dyn Signer> = match self.slots.folder(Slot::Current) {
            Some(current) if keeps_key(order) => {
                self.core.keys.load(&current).map_err(|error| outcome::of_keys(&error))?
            }
            _ => {
                let key = SoftwareKey::generate(order.key_type);
                Arc::new(key.map_err(|error| outcome::of_configuration("key_not_made", &error.to_string()))?)
            }
        };
        self.first_message(order, credentials, key, now).map(|(_, message, _)| message)
    }

    fn first_message(
        &self,
        order: &Order,
        credentials: Credentials,
        key: Arc<dyn Signer>,
        now: Timestamp,
    ) -> Result<(Transaction, Vec<u8>, Vec<u8>), Box<Failed>> {
        let update = order.kind == RequestKind::Kur;
        let old_certificate = match &credentials {
            Credentials::Signature { certificate, .. } if update => Some(certificate.clone()),
            _ => None,
        };
        // The same name may be written with other string types in the certificate: it is taken from there then (S5).
        let subject = match &old_certificate {
            Some(old) if old.subject().to_string() == order.subject.to_string() => Name::null(),
            _ => order.subject.clone(),
        };
        let request = EnrollRequest {
            kind: order.kind,
            subject,
            sans: order.sans.clone(),
            recipient: order.talk.recipient.clone(),
            sender: order.sender.clone(),
            old_certificate,
            implicit_confirm: order.implicit_confirm,
            extra_certs: self.roots(&credentials, &order.talk),
            extensions: Vec::new(),
            cert_profile: None,
            validity: None,
        };
        let spki = key.public_key_der().to_vec();
        let acceptance = order.talk.acceptance.clone();
        Transaction::start(request, credentials, acceptance, key, &mut SystemEntropy, now)
            .map(|(transaction, message)| (transaction, message, spki))
            .map_err(|error| outcome::of_cmp(&error, false, None))
    }

    /// Rebuilds a kept transaction with its credentials.
    ///
    /// # Errors
    /// The key or the credentials are gone or others.
    pub fn resume(&self, record: TransactionRecord, now: Timestamp) -> Result<Step, Box<Failed>> {
        let acceptance = self.errand.talk().acceptance.clone();
        let resumed = match &self.errand {
            Errand::Enroll(order) => {
                let key = self.core.keys.load(&self.slots.version(self.job.job_id));
                let key = key.map_err(|error| outcome::of_keys(&error))?;
                Transaction::resume(record, self.credentials(order)?, acceptance, key.as_ref(), now)
            }
            Errand::Revoke(order) => {
                Transaction::resume_keyless(record, self.revocation_credentials(order)?.0, acceptance, now)
            }
        };
        resumed.map_err(|error| outcome::of_cmp(&error, true, None))
    }

    fn revoke(&self, order: &RevocationOrder, now: Timestamp) -> Result<(Transaction, Vec<u8>, Vec<u8>), Box<Failed>> {
        let (credentials, spki) = self.revocation_credentials(order)?;
        let recipient = order.talk.recipient.clone();
        let extra_certs = self.roots(&credentials, &order.talk);
        let request = RevokeRequest { recipient, extra_certs, ..RevokeRequest::of(&order.certificate, order.reason) };
        let request = Request::Revoke(Box::new(request));
        Transaction::begin(request, credentials, order.talk.acceptance.clone(), &mut SystemEntropy, now)
            .map(|(transaction, message)| (transaction, message, spki))
            .map_err(|error| outcome::of_cmp(&error, false, None))
    }

    /// A revocation is signed with the certificate itself, wherever it stands, or as a registration authority with the one
    /// in use of the trustpoint that the order names (P9). Also says the signer's public key.
    fn revocation_credentials(&self, order: &RevocationOrder) -> Result<(Credentials, Vec<u8>), Box<Failed>> {
        let (slots, slot) = match &order.signer {
            Some(place) => (self.core.slots(place), Slot::Current),
            None => {
                let is_meant = |slot: &Slot| {
                    let found = self.slots.certificate(*slot).ok().flatten();
                    found.is_some_and(|(certificate, _)| certificate == order.certificate)
                };
                let slot = Slot::ALL.into_iter().find(is_meant).ok_or_else(|| {
                    let message = "the device does not keep the certificate and its key any more, so that it cannot sign: \
                                   name a registration authority for this CA, or revoke it at the CA by hand";
                    outcome::of_configuration("certificate_not_kept", message)
                })?;
                (self.slots.clone(), slot)
            }
        };
        let found = slots.certificate(slot).map_err(|error| outcome::of_store(&error, false))?;
        let (Some((certificate, _)), Some(folder)) = (found, slots.folder(slot)) else {
            let place = order.signer.as_ref().map(|place| format!("{}/{}", place.device, place.trustpoint));
            let message = format!(
                "the registration authority {} has no certificate in use on this agent: enrol it first",
                place.unwrap_or_default()
            );
            return Err(outcome::of_configuration("no_registration_authority", &message));
        };
        let signer = self.core.keys.load(&folder).map_err(|error| outcome::of_keys(&error))?;
        let spki = signer.public_key_der().to_vec();
        Ok((Credentials::Signature { signer, certificate, chain: slots.chain(slot) }, spki))
    }

    /// The root of the signer's certificate, for CAs that want it among extraCerts (X2): found among the order's anchors and
    /// the CA certificates of the device's own domains.
    fn roots(&self, credentials: &Credentials, talk: &Talk) -> Vec<Certificate> {
        let Credentials::Signature { certificate, chain, .. } = credentials else { return Vec::new() };
        if !talk.root_in_extra_certs {
            return Vec::new();
        }
        let last = chain.last().unwrap_or(certificate);
        let own = Domains::new(&self.core.store, &self.core.identity.config.factory_identity).all_cas();
        let known: Vec<&Certificate> = talk.acceptance.anchors.iter().chain(&own).collect();
        root_of(last, &known).into_iter().filter(|root| !chain.contains(root)).collect()
    }

    /// What the controller wants replaced may have been replaced since, by the agent itself.
    fn check_replaced(&self, order: &Order) -> Result<(), Box<Failed>> {
        let Some(meant) = &order.replaces else { return Ok(()) };
        let current = self.slots.certificate(Slot::Current).map_err(|error| outcome::of_store(&error, false))?;
        match current.map(|(certificate, _)| certificate.serial_hex()) {
            Some(serial) if serial != *meant => {
                let message = format!(
                    "the certificate {meant} was to be renewed, and {serial} is in use instead of it: nothing was sent"
                );
                Err(outcome::of_configuration(REPLACED_ALREADY, &message))
            }
            // That there is none is told by what looks for it.
            _ => Ok(()),
        }
    }

    fn key(&self, order: &Order) -> Result<Arc<dyn Signer>, Box<Failed>> {
        let version = self.slots.make_version(self.job.job_id).map_err(|error| outcome::of_store(&error, false))?;
        let key = match self.slots.folder(Slot::Current) {
            Some(current) if keeps_key(order) => self.core.keys.carry_over(&current, &version),
            _ => self.core.keys.make(&version, order.key_type),
        };
        key.map_err(|error| outcome::of_keys(&error))
    }

    /// A kur is signed with the certificate that it replaces (P9, S30); ir and cr go by MAC where the job has one, or by the
    /// identity of a PKI domain where it names one.
    fn credentials(&self, order: &Order) -> Result<Credentials, Box<Failed>> {
        match &order.mac {
            Some(mac) if order.kind != RequestKind::Kur => {
                let context = SealContext {
                    agent_id: self.job.agent_id,
                    job_id: self.job.job_id,
                    trustpoint_id: self.job.trustpoint_id,
                };
                let secret = self.core.identity.keys.open.open(&mac.secret, &context);
                let secret =
                    secret.map_err(|error| outcome::of_configuration("secret_unreadable", &error.to_string()))?;
                Ok(Credentials::Mac {
                    reference: mac.reference.clone().into_bytes(),
                    secret: Zeroizing::new(secret.expose().clone()),
                    mac: mac.policy,
                })
            }
            None if order.kind != RequestKind::Kur => match &order.identity_domain {
                Some(domain) => self.identity(domain),
                None => self.signature(order),
            },
            _ => self.signature(order),
        }
    }

    /// An identity that somebody else has issued to the device (S14, S28, S29).
    fn identity(&self, domain: &ObjectName) -> Result<Credentials, Box<Failed>> {
        let found = Domains::new(&self.core.store, &self.core.identity.config.factory_identity).identity(domain);
        let Identity { certificate, chain, key } = found
            .map_err(|error| outcome::of_configuration("identity_missing", &format!("{error}; nothing was sent")))?;
        Ok(Credentials::Signature { signer: Arc::new(key), certificate, chain })
    }

    fn signature(&self, order: &Order) -> Result<Credentials, Box<Failed>> {
        let current = self.slots.certificate(Slot::Current).map_err(|error| outcome::of_store(&error, false))?;
        let (Some((certificate, _)), Some(folder)) = (current, self.slots.folder(Slot::Current)) else {
            return Err(if order.kind == RequestKind::Kur {
                let message = "there is no certificate in use that could be updated: enrol with ir first";
                outcome::of_configuration("no_certificate_to_update", message)
            } else {
                let message = "neither a MAC secret nor a certificate in use is there to prove where the request comes from: give the trustpoint a MAC reference and secret";
                outcome::of_configuration("no_credentials", message)
            });
        };
        let signer = self.core.keys.load(&folder).map_err(|error| outcome::of_keys(&error))?;
        Ok(Credentials::Signature { signer, certificate, chain: self.slots.chain(Slot::Current) })
    }
}

/// Whether an update keeps its key (S3).
fn keeps_key(order: &Order) -> bool {
    order.kind == RequestKind::Kur && !order.regenerate_key
}

/// The self-signed certificate that certifies this one, over those in between; they are in the answer, too.
fn root_of(certificate: &Certificate, known: &[&Certificate]) -> Vec<Certificate> {
    let mut found: Vec<Certificate> = Vec::new();
    let mut last = certificate.clone();
    while last.subject() != last.issuer() {
        let issuer = known.iter().find(|ca| ca.subject() == last.issuer() && !found.contains(ca));
        let Some(issuer) = issuer else { break };
        last = (*issuer).clone();
        found.push(last.clone());
    }
    found
}
