//! Where the fuzzers begin: messages of foreign implementations, and runs that go as they should or nearly so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use der::{
    Decode, Encode, Reader, SliceReader,
    asn1::{Any, AnyRef},
};
use trustfleet_cmp::codec::{
    BodyKind, CertOrEncCert, CertRepMessage, CertResponse, CertifiedKeyPair, PkiMessage, PkiStatus, PkiStatusInfo,
    RawSequence, info::RootCaKeyUpdateContent, response::EncryptedKey,
};
use trustfleet_wire::{envelope::Envelope, v1::Blob};

use crate::{
    decode::ENTRIES,
    play::{Content, Dress, HeaderChange, KINDS, Move, Setup, records_of, write},
    world::{CERTIFICATES, CRL, CSR, SEALED},
};

/// Most seeds of one entry point of `decode`.
const MAX_OF_ENTRY: usize = 16;

/// The seeds of a target, each once.
///
/// # Panics
/// Where the repository's vectors and samples are not there.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let seeds = match target {
        "answers" => runs(),
        "decode" => values(),
        "records" => runs().iter().flat_map(|run| records_of(run)).map(String::into_bytes).collect(),
        _ => texts(),
    };
    seeds.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// A folder of this repository.
pub fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").join(path)
}

/// The files of a folder whose names end so, in the order of their names.
///
/// # Panics
/// When it cannot be read.
pub fn files(folder: &Path, ending: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let named = paths.map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path));
    let wanted: BTreeMap<_, _> = named.filter(|(name, _)| name.ends_with(ending)).collect();
    wanted.into_iter().map(|(name, path)| (name, fs::read(path).expect("a file"))).collect()
}

fn vectors() -> Vec<Vec<u8>> {
    files(&folder("shared/cmp/tests/vectors"), ".der").into_iter().map(|(_, bytes)| bytes).collect()
}

/// Every value in every message, for each entry point that decodes it.
fn values() -> Vec<Vec<u8>> {
    let mut all = BTreeSet::new();
    let vectors = vectors();
    let sources = vectors.iter().map(Vec::as_slice).chain(CERTIFICATES).chain(SEALED).chain([CRL, CSR]);
    sources.for_each(|source| elements(source, &mut all));
    // from short to long, but not the shortest only
    let mut by_length: Vec<&Vec<u8>> = all.iter().collect();
    by_length.sort_by_key(|element| element.len());
    let mut seeds = vec![];
    for (number, (_, entry)) in (0_u8..).zip(ENTRIES) {
        let fit: Vec<_> = by_length.iter().filter(|element| entry(element)).collect();
        let step = fit.len().div_ceil(MAX_OF_ENTRY).max(1);
        seeds.extend(fit.iter().step_by(step).map(|element| [&[number][..], element].concat()));
    }
    seeds
}

/// The element and all inside it.
fn elements(der: &[u8], all: &mut BTreeSet<Vec<u8>>) {
    const CONSTRUCTED: u8 = 0x20;
    if !all.insert(der.to_vec()) || der.first().is_none_or(|tag| tag & CONSTRUCTED == 0) {
        return;
    }
    let Ok(any) = AnyRef::from_der(der) else { return };
    let Ok(mut reader) = SliceReader::new(any.value()) else { return };
    while let Ok(element) = reader.tlv_bytes() {
        elements(element, all);
    }
}

fn texts() -> Vec<Vec<u8>> {
    let samples = files(&folder("shared/wire/tests/golden/v1"), ".json");
    let envelopes = samples.iter().map(|(_, payload)| {
        let envelope =
            Envelope { v: 1, key: "k".to_owned(), payload: Blob(payload.clone()), signature: Blob(vec![0; 64]) };
        envelope.to_bytes().expect("it can be written")
    });
    let plain = [
        "/C=DE/O=Trustfleet/CN=ap-1",
        "CN=ap-1+serialNumber=4711,OU=#0c0161,O=Example\\, Inc.",
        "2.5.4.3=#1303616263",
        "dev1.example",
        "*.dev1.example",
        "2001:db8::1",
        "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "somebody@example.com",
        "\u{1b}[31m no\r\n2027-01-01 ERROR forged\0\u{202e}",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ];
    envelopes.chain(plain.map(|text| text.as_bytes().to_vec())).collect()
}

fn runs() -> Vec<Vec<u8>> {
    let mut runs = vec![];
    for ask in 0..6 {
        for means in 0..3 {
            for flags in [0, Setup::IMPLICIT, Setup::RSA_AND_DECRYPTER | Setup::SHA1] {
                let setup = Setup { ask, means, flags, time: 0 };
                runs.extend(courses().iter().map(|moves| write(setup, moves)));
            }
        }
    }
    // every other question at once, and after a delay
    for ask in 6..16 {
        runs.extend(courses().iter().step_by(2).map(|moves| write(Setup { ask, ..Setup::default() }, moves)));
    }
    let plain = |ask| Setup { ask, ..Setup::default() };
    for ask in [0, 2, 3, 4, 5] {
        runs.extend(dresses().into_iter().map(|dress| write(plain(ask), &[Move::Answer(Content::Honest, dress)])));
        runs.extend((0..14).map(|certificate| {
            let grant = Content::Grant { certificate, with_mods: certificate % 2 == 1, ca_pubs: 0x401 };
            let flags = if certificate % 3 == 0 { Setup::REFUSE_MODIFICATIONS } else { Setup::NO_ANCHORS };
            write(Setup { flags, ..plain(ask) }, &[bare(grant), bare(Content::PkiConf)])
        }));
    }
    runs.extend((0..7).map(|status| write(plain(4), &[bare(Content::Revoked { status, certificate: 3 })])));
    runs.extend(anew());
    runs.extend(sealed());
    runs.extend(informed());
    runs.extend(bodies());
    runs
}

fn bare(content: Content) -> Move {
    Move::Answer(content, Dress::default())
}

/// How it goes: at once, with delays and restarts, refused, stopped, out of time, with lost answers.
fn courses() -> Vec<Vec<Move>> {
    let honest = || bare(Content::Honest);
    vec![
        vec![honest(), honest()],
        vec![honest(), bare(Content::Error(1 << 11))],
        vec![Move::Timer(0)],
        vec![
            bare(Content::Waiting),
            bare(Content::PollRep(10)),
            Move::Restart,
            Move::Timer(10),
            honest(),
            bare(Content::ErrorWaiting),
            bare(Content::PollRep(5)),
            Move::Timer(2),
            Move::Timer(3),
            Move::Restart,
            honest(),
        ],
        vec![bare(Content::ErrorWaiting), bare(Content::ErrorWaiting), Move::Timer(10), honest(), honest()],
        vec![bare(Content::Refused(0x0400_0201))],
        vec![bare(Content::Error(1))],
        vec![honest(), bare(Content::Error(1))],
        vec![Move::Timer(0), Move::Restart, honest(), Move::Timer(5), honest()],
        vec![Move::Clock(-3600), Move::Restart, honest(), Move::Stop],
        vec![bare(Content::Waiting), bare(Content::PollRep(i64::MAX)), Move::Timer(700_000)],
        vec![bare(Content::PkiConf)],
    ]
}

/// Everybody who may protect, and every field of the header.
fn dresses() -> Vec<Dress> {
    let protected = (1..13).map(|protection| Dress { protection, extra: 0x0402, ..Dress::default() });
    let changes = [
        HeaderChange::Pvno(3),
        HeaderChange::Pvno(1),
        HeaderChange::TransactionId(vec![7; 16]),
        HeaderChange::SenderNonce(vec![7; 15]),
        HeaderChange::SenderNonce(vec![7; 300]),
        HeaderChange::RecipNonce(vec![7; 16]),
        HeaderChange::RecipNonceOf(1),
        HeaderChange::RecipKid(b"dev2".to_vec()),
        HeaderChange::Time(b"20270101000000Z".to_vec()),
        HeaderChange::Sender(2),
        HeaderChange::SenderName(0x82, b"ca.example".to_vec()),
        HeaderChange::Info(vec![0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 4, 14]),
        HeaderChange::ImplicitConfirm,
        HeaderChange::FreeText(b"\x1b[1m".to_vec()),
    ];
    let changed = changes.into_iter().map(|change| Dress { header: vec![change], ..Dress::default() });
    protected.chain(changed).collect()
}

/// H2, E4.
fn anew() -> Vec<Vec<u8>> {
    let honest = || bare(Content::Honest);
    let version = Dress { header: vec![HeaderChange::Pvno(3)], ..Dress::default() };
    let moves = vec![Move::Answer(Content::Error(1 << 22), version), honest(), honest()];
    let in_use = vec![bare(Content::Error(1 << 21)), honest(), honest()];
    let setup = |ask| Setup { ask, flags: Setup::RETRY_ID, ..Setup::default() };
    [0, 1, 3, 4, 6].into_iter().flat_map(|ask| [write(setup(ask), &moves), write(setup(ask), &in_use)]).collect()
}

/// S24a.
fn sealed() -> Vec<Vec<u8>> {
    let run = |(ask, kind, envelope): (u8, BodyKind, &[u8])| {
        let envelope = EncryptedKey::EnvelopedData(RawSequence::from_tlv(envelope).expect("committed"));
        let pair = CertifiedKeyPair {
            cert_or_enc_cert: CertOrEncCert::EncryptedCert(envelope),
            private_key: None,
            publication_info: None,
        };
        let response = CertResponse {
            cert_req_id: 0,
            status: PkiStatusInfo::plain(PkiStatus::Accepted),
            certified_key_pair: Some(pair),
            rsp_info: None,
        };
        let body = CertRepMessage { ca_pubs: None, response: vec![response] }.to_der().expect("a value");
        let setup = Setup { ask, flags: Setup::RSA_AND_DECRYPTER, ..Setup::default() };
        write(setup, &[bare(Content::Body(number(kind), body)), bare(Content::PkiConf)])
    };
    [(0, BodyKind::Ip, SEALED[0]), (1, BodyKind::Cp, SEALED[1])].map(run).into()
}

/// Answers to questions.
fn informed() -> Vec<Vec<u8>> {
    let raw = |der: &[u8]| RawSequence::from_tlv(der).expect("committed");
    let list = |ders: &[&[u8]]| ders.iter().map(|der| raw(der)).collect::<Vec<_>>().to_der().expect("a value");
    let update = RootCaKeyUpdateContent {
        new_with_new: raw(CERTIFICATES[11]),
        new_with_old: Some(raw(CERTIFICATES[12])),
        old_with_new: Some(raw(CERTIFICATES[13])),
    };
    // SEQUENCE OF { ecPublicKey, P-256 }
    let key_types = b"\x30\x15\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let answers: [(u8, Vec<u8>); 10] = [
        (0, list(&[CERTIFICATES[0], CERTIFICATES[11]])),
        (1, update.to_der().expect("a value")),
        (3, list(&[CRL])),
        (4, CRL.to_vec()),
        (5, key_types.to_vec()),
        (6, key_types.to_vec()),
        (7, key_types[2..].to_vec()),
        (8, b"\x30\x04\x0c\x02en".to_vec()),
        (9, b"\x18\x0f20270101000000Z".to_vec()),
        (10, b"\x04\x03any".to_vec()),
    ];
    let run = |(question, value)| write(Setup { ask: 5 + question, ..Setup::default() }, &[bare(Content::Info(value))]);
    answers.map(run).into()
}

/// The bodies of the vectors, in answer to what they might answer.
fn bodies() -> Vec<Vec<u8>> {
    let mut runs = vec![];
    for message in vectors().iter().filter_map(|vector| PkiMessage::from_der(vector).ok()) {
        let kind = message.body.kind();
        let asks: &[u8] = match kind {
            BodyKind::Ip => &[0],
            BodyKind::Cp => &[1, 3],
            BodyKind::Kup => &[2],
            BodyKind::Rp => &[4],
            BodyKind::Genp => &[6, 7],
            BodyKind::Error | BodyKind::PollRep => &[0, 4],
            _ => &[1],
        };
        let content = message.body.to_der().ok().and_then(|der| Any::from_der(&der).ok());
        let content = content.map(|content| content.value().to_vec()).unwrap_or_default();
        for ask in asks {
            let body = bare(Content::Body(number(kind), content.clone()));
            let before = if kind == BodyKind::PollRep { vec![bare(Content::Waiting)] } else { vec![] };
            let setup = Setup { ask: *ask, ..Setup::default() };
            runs.push(write(setup, &[before, vec![body]].concat()));
        }
    }
    runs
}

fn number(kind: BodyKind) -> u8 {
    (0..).zip(KINDS).find(|(_, known)| *known == kind).map_or(0, |(number, _)| number)
}
