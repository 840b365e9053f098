//! What a transaction needs from the device: its key, its credentials, its first message. Blocks; called beside the loop.
//!
//! The key is on the disk before its public half is in any message. A sealed secret is opened here, in memory only, and
//! again after a restart: its sealed form lies in the job message, the open one nowhere.

use std::sync::Arc;

use jiff::Timestamp;
use trustfleet_cmp::entropy::SystemEntropy;
use trustfleet_cmp::key::Signer;
use trustfleet_cmp::request::{Credentials, EnrollRequest, RequestKind};
use trustfleet_cmp::transaction::{Step, Transaction, TransactionRecord};
use trustfleet_model::field::ObjectName;
use trustfleet_pki::Name;
use trustfleet_wire::seal::SealContext;
use trustfleet_wire::v1::{Failed, Job};
use zeroize::Zeroizing;

use crate::core::Core;
use crate::domains::{Domains, Identity};
use crate::order::{Order, Place};
use crate::outcome;
use crate::slots::{Slot, Slots};

/// What a transaction needs from the device.
#[derive(Debug)]
pub struct Prepare {
    core: Arc<Core>,
    job: Job,
    order: Arc<Order>,
    slots: Slots,
}

impl Prepare {
    /// Gathers for a job.
    pub fn of(core: &Arc<Core>, job: &Job, place: &Place, order: &Arc<Order>) -> Self {
        Self { core: Arc::clone(core), job: job.clone(), order: Arc::clone(order), slots: core.slots(place) }
    }

    /// Makes the key (on the disk before its public half leaves) and the first message; also says the public key.
    ///
    /// # Errors
    /// What is missing or wrong here; nothing has left the device then.
    pub fn start(&self, now: Timestamp) -> Result<(Transaction, Vec<u8>, Vec<u8>), Box<Failed>> {
        self.order.source.check().map_err(|error| outcome::of_source(&error))?;
        let credentials = self.credentials()?;
        let key = self.key()?;
        let order = &self.order;
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
            recipient: order.recipient.clone(),
            sender: order.sender.clone(),
            old_certificate,
            implicit_confirm: order.implicit_confirm,
            extra_certs: Vec::new(),
            extensions: Vec::new(),
            cert_profile: None,
            validity: None,
        };
        let spki = key.public_key_der().to_vec();
        let acceptance = order.acceptance.clone();
        Transaction::start(request, credentials, acceptance, key, &mut SystemEntropy, now)
            .map(|(transaction, message)| (transaction, message, spki))
            .map_err(|error| outcome::of_cmp(&error, false, None))
    }

    /// Rebuilds a kept transaction with its credentials.
    ///
    /// # Errors
    /// The key or the credentials are gone or others.
    pub fn resume(&self, record: TransactionRecord, now: Timestamp) -> Result<Step, Box<Failed>> {
        let key = self.core.keys.load(&self.slots.version(self.job.job_id));
        let key = key.map_err(|error| outcome::of_keys(&error))?;
        Transaction::resume(record, self.credentials()?, self.order.acceptance.clone(), key.as_ref(), now)
            .map_err(|error| outcome::of_cmp(&error, true, None))
    }

    fn key(&self) -> Result<Arc<dyn Signer>, Box<Failed>> {
        let version = self.slots.make_version(self.job.job_id).map_err(|error| outcome::of_store(&error, false))?;
        let keeps_key = self.order.kind == RequestKind::Kur && !self.order.regenerate_key;
        let key = match self.slots.folder(Slot::Current) {
            Some(current) if keeps_key => self.core.keys.carry_over(&current, &version),
            _ => self.core.keys.make(&version, self.order.key_type),
        };
        key.map_err(|error| outcome::of_keys(&error))
    }

    /// A kur is signed with the certificate that it replaces (P9, S30); ir and cr go by MAC where the job has one, or by the
    /// identity of a PKI domain where it names one.
    fn credentials(&self) -> Result<Credentials, Box<Failed>> {
        match &self.order.mac {
            Some(mac) if self.order.kind != RequestKind::Kur => {
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
            None if self.order.kind != RequestKind::Kur => match &self.order.identity_domain {
                Some(domain) => self.identity(domain),
                None => self.signature(),
            },
            _ => self.signature(),
        }
    }

    /// An identity that somebody else has issued to the device (S14, S28, S29).
    fn identity(&self, domain: &ObjectName) -> Result<Credentials, Box<Failed>> {
        let found = Domains::new(&self.core.store, &self.core.identity.config.factory_identity).identity(domain);
        let Identity { certificate, chain, key } = found
            .map_err(|error| outcome::of_configuration("identity_missing", &format!("{error}; nothing was sent")))?;
        Ok(Credentials::Signature { signer: Arc::new(key), certificate, chain })
    }

    fn signature(&self) -> Result<Credentials, Box<Failed>> {
        let current = self.slots.certificate(Slot::Current).map_err(|error| outcome::of_store(&error, false))?;
        let (Some((certificate, _)), Some(folder)) = (current, self.slots.folder(Slot::Current)) else {
            return Err(if self.order.kind == RequestKind::Kur {
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
