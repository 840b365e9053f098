//! The server of a run: it reads what the client says, as strictly as the responder does, and answers what the moves say.
//!
//! It notes for which headers and bodies somebody vouched whom the client believes, so that the rules can tell what must
//! be refused.

use std::{collections::HashSet, sync::Arc};

use der::{Decode, asn1::OctetString};
use jiff::Timestamp;
use trustfleet_cmp::{
    FailureBit, PkiStatus, RequestKind, Signer, SoftwareKey,
    codec::{
        BodyKind, InfoTypeAndValue, PeerText, PkiBody, PkiHeader, PkiMessage, RawSequence, TimeText, oids,
        raw::directory_name,
    },
    protection::{Hash, MacPolicy},
    responder::{
        Answer, CertificateRequest, Client, Received, ReplyProtection, ReplyTo, Request, ResponderPolicy, Trust,
        answer_shaped, receive,
    },
};
use trustfleet_pki::{Certificate, ObjectIdentifier};
use zeroize::Zeroizing;

use super::moves::{Content, Dress, HeaderChange, Patch, Setup};
use crate::world::{Counted, REFERENCE, SECRET, World, begin, ca_name, pbm, pbmac1, world};

/// The kinds of bodies by number; the numbers stand in the corpus.
pub(crate) const KINDS: [BodyKind; 27] = [
    BodyKind::Ir,
    BodyKind::Ip,
    BodyKind::Cr,
    BodyKind::Cp,
    BodyKind::P10cr,
    BodyKind::Popdecc,
    BodyKind::Popdecr,
    BodyKind::Kur,
    BodyKind::Kup,
    BodyKind::Krr,
    BodyKind::Krp,
    BodyKind::Rr,
    BodyKind::Rp,
    BodyKind::Ccr,
    BodyKind::Ccp,
    BodyKind::Ckuann,
    BodyKind::Cann,
    BodyKind::Rann,
    BodyKind::CrlAnn,
    BodyKind::PkiConf,
    BodyKind::Nested,
    BodyKind::Genm,
    BodyKind::Genp,
    BodyKind::Error,
    BodyKind::CertConf,
    BodyKind::PollReq,
    BodyKind::PollRep,
];

/// Whom the server believes.
struct Known;

impl Trust for Known {
    fn secret(&self, reference: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        (reference == REFERENCE).then(|| Zeroizing::new(SECRET.to_vec()))
    }

    fn anchors(&self) -> Vec<Certificate> {
        vec![world().ca().clone()]
    }
}

/// The server's half of a run.
pub(crate) struct Server {
    world: &'static World,
    setup: Setup,
    by_mac: bool,
    entropy: Counted,
    /// The request, once it was read.
    first: Option<Request>,
    /// The client's messages, read.
    heard: Vec<Received>,
    /// The protected parts that somebody vouched for.
    vouched: HashSet<Vec<u8>>,
}

impl Server {
    pub(crate) fn new(setup: Setup, by_mac: bool) -> Self {
        let mut entropy = Counted::default();
        entropy.apart();
        Self { world: world(), setup, by_mac, entropy, first: None, heard: vec![], vouched: HashSet::new() }
    }

    /// Reads a message of the client; it must be one that an honest server takes. Certificates are judged by the begin of
    /// the run: it is the client's clock that is moved.
    pub(crate) fn read(message: &[u8]) -> Received {
        receive(message, &Known, &ResponderPolicy::default(), begin())
            .unwrap_or_else(|rejected| panic!("the client sent what a server refuses: {}", rejected.error))
    }

    /// Remembers what is to be answered.
    pub(crate) fn hear(&mut self, message: &[u8]) {
        let received = Self::read(message);
        if self.first.is_none() {
            self.first = Some(received.request.clone());
        }
        self.heard.push(received);
    }

    /// Did somebody vouch for the header and body of this message whom the client believes?
    pub(crate) fn vouches_for(&self, message: &PkiMessage) -> bool {
        message.protected_part().is_ok_and(|part| self.vouched.contains(&part))
    }

    /// Are the bytes in anything that was vouched for?
    pub(crate) fn vouched_bytes(&self, bytes: &[u8]) -> bool {
        self.vouched.iter().any(|part| part.windows(bytes.len()).any(|window| window == bytes))
    }

    /// The answer to the last message.
    pub(crate) fn answer(&mut self, content: &Content, dress: &Dress, now: Timestamp) -> Vec<u8> {
        let (protection, believed) = self.protection(dress.protection);
        let mut answer = self.content(content);
        let implicit = matches!(answer, Answer::Granted { implicit_confirm: true, .. });
        let to = self.heard.last().map(|received| received.reply_to.clone()).unwrap_or_default();
        if !dress.before.is_empty() {
            let plain = self.seal(&to, &answer, &ReplyProtection::Nothing, &|_| {}, now);
            if let Ok(message) = PkiMessage::from_der(&plain) {
                answer = Answer::Body(Box::new(patched(&message.body, &dress.before)));
            }
        }
        let mut entropy = std::mem::take(&mut self.entropy);
        let shape = |header: &mut PkiHeader| {
            if implicit && !header.has_implicit_confirm() {
                header.general_info.get_or_insert_default().push(InfoTypeAndValue::implicit_confirm());
            }
            dress.header.iter().for_each(|change| self.change(header, change));
        };
        let reply = answer_shaped(&to, &answer, &protection, &ca_name(), &shape, &mut entropy, now);
        self.entropy = entropy;
        let Ok(reply) = reply else { return Vec::new() }; // a body that does not encode
        let mut der = reply.der;
        if let Ok(mut message) = PkiMessage::from_der(&der) {
            if believed && let Ok(part) = message.protected_part() {
                self.vouched.insert(part);
            }
            if dress.extra != 0 {
                let more =
                    self.some(dress.extra).into_iter().filter_map(|more| RawSequence::from_tlv(more.as_der()).ok());
                message.extra_certs.extend(more);
                der = message.to_der().unwrap_or(der);
            }
        }
        dress.after.iter().for_each(|patch| patch.apply(&mut der));
        der
    }

    fn seal(
        &mut self,
        to: &ReplyTo,
        answer: &Answer,
        protection: &ReplyProtection,
        shape: &dyn Fn(&mut PkiHeader),
        now: Timestamp,
    ) -> Vec<u8> {
        let sealed = answer_shaped(to, answer, protection, &ca_name(), shape, &mut self.entropy, now);
        sealed.map(|reply| reply.der).unwrap_or_default()
    }

    /// By number: who protects an answer, and whether the client must believe it.
    fn protection(&self, choice: u8) -> (ReplyProtection, bool) {
        let believes_signatures = !self.setup.has(Setup::NO_ANCHORS);
        let mac = |mac: MacPolicy, reference: &[u8], secret: &[u8]| ReplyProtection::Mac {
            reference: reference.to_vec(),
            secret: Zeroizing::new(secret.to_vec()),
            mac,
        };
        let signature = |signer: &Arc<SoftwareKey>, certificate: &Certificate| {
            let signer: Arc<dyn Signer> = Arc::<SoftwareKey>::clone(signer);
            let chain = vec![self.world.ca().clone()];
            ReplyProtection::Signature { signer, certificate: certificate.clone(), chain }
        };
        let (world, by_mac) = (self.world, self.by_mac);
        match choice % 13 {
            0 if by_mac => (mac(pbm(Hash::Sha256), REFERENCE, SECRET), true),
            1 => (mac(pbm(Hash::Sha384), REFERENCE, SECRET), by_mac),
            2 => (mac(pbmac1(Hash::Sha512), REFERENCE, SECRET), by_mac),
            3 => (mac(pbm(Hash::Sha1), REFERENCE, SECRET), by_mac && self.setup.has(Setup::SHA1)),
            4 => (mac(pbm(Hash::Sha256), REFERENCE, b"another secret"), false),
            6 => (signature(&world.ca, world.ca()), believes_signatures && !self.setup.has(Setup::EXPECT_CMP)),
            7 => (signature(&world.sibling, world.certificate(2)), false),
            8 => (signature(&world.stranger, world.certificate(10)), false),
            9 => (ReplyProtection::Nothing, false),
            10 => (mac(pbm(Hash::Sha256), b"srv1", SECRET), by_mac),
            11 => (mac(MacPolicy { iterations: 5_000, ..pbm(Hash::Sha256) }, REFERENCE, SECRET), false),
            12 => (signature(&world.sibling, world.cmp()), false),
            _ => (signature(&world.cmp, world.cmp()), believes_signatures),
        }
    }

    fn content(&self, content: &Content) -> Answer {
        let (kind, cert_req_id) = match &self.first {
            Some(Request::Certificate(asked)) => (asked.kind, asked.cert_req_id),
            Some(Request::Revoke(_)) => (RequestKind::Rr, -1),
            _ => (RequestKind::Genm, -1),
        };
        let polled = match self.heard.last().map(|received| &received.request) {
            Some(Request::Poll { cert_req_id }) => *cert_req_id,
            _ => cert_req_id,
        };
        match content {
            Content::Honest => self.honest(),
            Content::Waiting => Answer::Waiting { kind, cert_req_id },
            Content::ErrorWaiting => Answer::ErrorWaiting,
            Content::PollRep(check_after) => {
                Answer::PollRep { cert_req_id: polled, check_after: *check_after, reason: String::new() }
            }
            Content::Refused(set) => {
                Answer::Refused { kind, cert_req_id, failure: bits(*set), text: "no\u{1b}[1m\n".to_owned() }
            }
            Content::Error(set) => Answer::Error { failure: bits(*set), text: "no\r\nyes".to_owned() },
            Content::PkiConf => Answer::PkiConf,
            Content::Grant { certificate, with_mods, ca_pubs } => Answer::Granted {
                kind,
                cert_req_id,
                certificate: self.world.certificate(*certificate).clone(),
                with_mods: *with_mods,
                ca_pubs: self.some(*ca_pubs),
                extra_certs: vec![],
                implicit_confirm: self.heard.first().is_some_and(|first| first.implicit_confirm),
            },
            Content::Info(value) => Answer::Info(vec![InfoTypeAndValue {
                info_type: self.info_type(),
                info_value: der::asn1::Any::from_der(value).ok(),
            }]),
            Content::Revoked { status, certificate } => {
                const STATUSES: [PkiStatus; 7] = [
                    PkiStatus::Accepted,
                    PkiStatus::GrantedWithMods,
                    PkiStatus::Rejection,
                    PkiStatus::Waiting,
                    PkiStatus::RevocationWarning,
                    PkiStatus::RevocationNotification,
                    PkiStatus::KeyUpdateWarning,
                ];
                let revoked = self.world.certificate(*certificate);
                Answer::Revoked {
                    status: STATUSES[usize::from(*status) % STATUSES.len()],
                    issuer: revoked.issuer(),
                    serial: revoked.serial_der_bytes().to_vec(),
                    crls: vec![crate::world::CRL.to_vec()],
                }
            }
            Content::Body(kind, body) => {
                Answer::Body(Box::new(PkiBody::Other(KINDS[usize::from(*kind) % KINDS.len()], body.clone())))
            }
        }
    }

    /// What the request deserves, whatever came in between; pkiConf for anything about it later.
    fn honest(&self) -> Answer {
        let last = self.heard.last().map(|received| &received.request);
        match (last, &self.first) {
            (Some(Request::Certificate(asked)), _) => self.grant(asked),
            (Some(Request::Poll { .. }), Some(Request::Certificate(asked))) if !self.confirming() => self.grant(asked),
            (Some(Request::Poll { .. } | Request::Revoke(_)), Some(Request::Revoke(asked))) => Answer::Revoked {
                status: PkiStatus::Accepted,
                issuer: asked.issuer.clone(),
                serial: asked.serial.clone(),
                crls: vec![],
            },
            (Some(Request::Poll { .. } | Request::Info(_)), Some(Request::Info(_))) => {
                Answer::Info(vec![InfoTypeAndValue { info_type: self.info_type(), info_value: None }])
            }
            _ => Answer::PkiConf,
        }
    }

    fn confirming(&self) -> bool {
        self.heard.iter().any(|received| matches!(received.request, Request::CertConf(_)))
    }

    fn grant(&self, asked: &CertificateRequest) -> Answer {
        let rsa = asked.public_key.spki_der() == self.world.rsa.public_key_der();
        Answer::Granted {
            kind: asked.kind,
            cert_req_id: asked.cert_req_id,
            certificate: self.world.issued(rsa).clone(),
            with_mods: false,
            ca_pubs: vec![self.world.ca().clone()],
            extra_certs: vec![],
            implicit_confirm: self.heard.first().is_some_and(|first| first.implicit_confirm),
        }
    }

    /// The type that answers the question.
    fn info_type(&self) -> ObjectIdentifier {
        match &self.first {
            Some(Request::Info(asked)) if asked.info_type == oids::IT_ROOT_CA_CERT => oids::IT_ROOT_CA_KEY_UPDATE,
            Some(Request::Info(asked)) if asked.info_type == oids::IT_CRL_STATUS_LIST => oids::IT_CRLS,
            Some(Request::Info(asked)) => asked.info_type,
            _ => oids::IT_CA_CERTS,
        }
    }

    fn some(&self, bits: u16) -> Vec<Certificate> {
        (0..16)
            .filter(|number| bits & (1 << number) != 0)
            .map(|number| self.world.certificate(number).clone())
            .collect()
    }

    fn change(&self, header: &mut PkiHeader, change: &HeaderChange) {
        let octets = |bytes: &[u8]| OctetString::new(bytes).ok();
        match change {
            HeaderChange::Pvno(pvno) => header.pvno = u64::from(*pvno),
            HeaderChange::TransactionId(bytes) => header.transaction_id = octets(bytes),
            HeaderChange::SenderNonce(bytes) => header.sender_nonce = octets(bytes),
            HeaderChange::RecipNonce(bytes) => header.recip_nonce = octets(bytes),
            HeaderChange::RecipNonceOf(before) => {
                let nth = self.heard.len().checked_sub(1 + usize::from(*before));
                let nonce = nth.and_then(|nth| self.heard.get(nth)).map(|heard| &heard.reply_to.sender_nonce);
                header.recip_nonce = nonce.and_then(|nonce| octets(nonce));
            }
            HeaderChange::RecipKid(bytes) => header.recip_kid = octets(bytes),
            HeaderChange::Time(bytes) => header.message_time = time(bytes),
            HeaderChange::Sender(certificate) => {
                let subject = self.world.certificate(*certificate).subject();
                if let Ok(name) = directory_name(subject.as_der()) {
                    header.sender = name;
                }
            }
            HeaderChange::SenderName(tag, bytes) => {
                let name = der::Tag::try_from(*tag).and_then(|tag| der::asn1::Any::new(tag, bytes.as_slice()));
                if let Ok(name) = name {
                    header.sender = name;
                }
            }
            HeaderChange::Info(bytes) => {
                if let Ok(info) = InfoTypeAndValue::from_der(bytes) {
                    header.general_info.get_or_insert_default().push(info);
                }
            }
            HeaderChange::ImplicitConfirm => {
                header.general_info.get_or_insert_default().push(InfoTypeAndValue::implicit_confirm());
            }
            HeaderChange::FreeText(bytes) => {
                header.free_text = Some(vec![PeerText::new(&String::from_utf8_lossy(bytes))]);
            }
        }
    }
}

/// Any bytes as a GeneralizedTime.
fn time(bytes: &[u8]) -> Option<TimeText> {
    let tlv = der::asn1::Any::new(der::Tag::GeneralizedTime, bytes).and_then(|any| der::Encode::to_der(&any)).ok()?;
    TimeText::from_der(&tlv).ok()
}

/// The body with bytes of its content changed.
fn patched(body: &PkiBody, patches: &[Patch]) -> PkiBody {
    let kind = body.kind();
    let content = body.to_der().ok().and_then(|der| der::asn1::Any::from_der(&der).ok());
    let mut content = content.map(|any| any.value().to_vec()).unwrap_or_default();
    patches.iter().for_each(|patch| patch.apply(&mut content));
    PkiBody::Other(kind, content)
}

fn bits(set: u32) -> Vec<FailureBit> {
    FailureBit::ALL.into_iter().filter(|bit| set & (1 << (*bit as u8)) != 0).collect()
}

impl Server {
    /// How the client speaks, for the rule that it never changes that (P7).
    pub(crate) fn client(&self) -> Option<&Client> {
        self.heard.first().map(|received| &received.client)
    }

    /// The client's messages so far.
    pub(crate) fn heard(&self) -> &[Received] {
        &self.heard
    }
}
