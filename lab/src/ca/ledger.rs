//! What the lab CA remembers: certificates it has issued, whether they were confirmed or revoked, and counters.
//!
//! In memory only, and gone with the process.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;
use trustfleet_cmp::{RevocationReason, request::RequestKind, responder::Client};
use trustfleet_pki::Certificate;

/// One issued certificate, as `GET /lab/issued` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Issued {
    /// Serial number in upper-case hexadecimal, as `openssl x509 -serial` prints it.
    pub serial: String,
    /// The subject as RFC 4514 has it.
    pub subject: String,
    /// The request that it answered: `ir`, `cr`, `kur` or `p10cr`.
    pub kind: &'static str,
    /// When it was issued.
    pub time: Timestamp,
    /// The end of its validity.
    pub not_after: Timestamp,
    /// The transaction in hexadecimal.
    #[serde(rename = "transactionID")]
    pub transaction_id: String,
    /// Whether the client has confirmed it (or did not have to).
    pub confirmed: bool,
    /// Whether the client has refused it by certConf, or somebody has revoked it here.
    pub revoked: bool,
    /// Why it was revoked, where a reason was given.
    pub reason: Option<RevocationReason>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Who asked: the reference value, or the signer's subject.
    pub requester: String,
    /// The certificate itself.
    #[serde(skip)]
    pub certificate: Certificate,
}

/// Counters since the start, as `GET /lab/stats` shows them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// HTTP requests with a CMP message.
    pub messages: u64,
    /// Messages that could not be read as CMP.
    pub unreadable: u64,
    /// Messages by kind (`ir`, `certConf`, ...).
    pub requests: BTreeMap<String, u64>,
    /// Refusals by failInfo (`badMessageCheck`, ...).
    pub refusals: BTreeMap<String, u64>,
    /// Certificates issued.
    pub issued: u64,
    /// Certificates confirmed by certConf.
    pub confirmed: u64,
    /// Certificates refused by certConf.
    pub rejected: u64,
    /// Certificates issued with implicit confirmation.
    pub implicitly_confirmed: u64,
    /// Certificates revoked by rr.
    pub revoked: u64,
}

/// All issued certificates in the order of their issue, and the counters.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    issued: Vec<Issued>,
    by_serial: HashMap<String, usize>,
    pub(super) stats: Stats,
}

impl Ledger {
    pub(super) fn record(&mut self, issued: Issued) {
        self.stats.issued += 1;
        if issued.confirmed {
            self.stats.implicitly_confirmed += 1;
        }
        self.by_serial.insert(issued.serial.clone(), self.issued.len());
        self.issued.push(issued);
    }

    pub(super) fn count_request(&mut self, kind: &str) {
        *self.stats.requests.entry(kind.to_owned()).or_default() += 1;
    }

    pub(super) fn count_refusal(&mut self, failure: &str) {
        *self.stats.refusals.entry(failure.to_owned()).or_default() += 1;
    }

    /// The client has taken the certificate.
    pub(super) fn confirm(&mut self, certificate: &Certificate) {
        self.stats.confirmed += 1;
        if let Some(issued) = self.find_mut(certificate) {
            issued.confirmed = true;
        }
    }

    /// The client has refused the certificate.
    pub(super) fn reject(&mut self, certificate: &Certificate) {
        self.stats.rejected += 1;
        if let Some(issued) = self.find_mut(certificate) {
            issued.revoked = true;
        }
    }

    /// Marks a certificate as revoked; false when none has this serial number.
    pub(super) fn revoke(&mut self, serial: &str) -> bool {
        let at = self.by_serial.get(&serial.to_ascii_uppercase()).copied();
        let found = at.and_then(|at| self.issued.get_mut(at));
        found.is_some_and(|issued| {
            issued.revoked = true;
            true
        })
    }

    /// Revokes by rr.
    pub(super) fn revoke_for(&mut self, serial: &str, reason: RevocationReason, now: Timestamp) {
        self.stats.revoked += 1;
        if let Some(issued) = self.by_serial.get(serial).and_then(|at| self.issued.get_mut(*at)) {
            (issued.revoked, issued.reason, issued.revoked_at) = (true, Some(reason), Some(now));
        }
    }

    /// Ends a hold.
    pub(super) fn release(&mut self, serial: &str) {
        if let Some(issued) = self.by_serial.get(serial).and_then(|at| self.issued.get_mut(*at)) {
            (issued.revoked, issued.reason, issued.revoked_at) = (false, None, None);
        }
    }

    pub(super) fn of_serial(&self, serial: &str) -> Option<&Issued> {
        self.by_serial.get(serial).and_then(|at| self.issued.get(*at))
    }

    pub(super) fn find(&self, certificate: &Certificate) -> Option<&Issued> {
        let at = self.by_serial.get(&certificate.serial_hex()).copied();
        at.and_then(|at| self.issued.get(at)).filter(|issued| issued.certificate == *certificate)
    }

    pub(super) fn issued(&self) -> &[Issued] {
        &self.issued
    }

    fn find_mut(&mut self, certificate: &Certificate) -> Option<&mut Issued> {
        let at = self.by_serial.get(&certificate.serial_hex()).copied();
        at.and_then(|at| self.issued.get_mut(at)).filter(|issued| issued.certificate == *certificate)
    }
}

/// The name of a request, as the list shows it.
pub(super) const fn kind_name(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Ir => "ir",
        RequestKind::Cr => "cr",
        RequestKind::Kur => "kur",
        RequestKind::P10cr => "p10cr",
        RequestKind::Rr => "rr",
        RequestKind::Genm => "genm",
    }
}

pub(super) fn requester(client: &Client) -> String {
    match client {
        Client::Mac { reference, .. } => String::from_utf8_lossy(reference).escape_debug().to_string(),
        Client::Signature { certificate } => certificate.subject().to_string(),
    }
}
