//! What a run is made of: what is asked and how, then one move after the other, as bytes that libFuzzer changes.
//!
//! Every input is a run: choices beyond the last begin anew, and what is missing at the end is zero. The numbers stand in
//! the corpus: new choices go to the end of their lists, so that old inputs keep most of their meaning.

/// Most moves of a run.
const MAX_MOVES: usize = 24;

/// What is asked and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// 0 to 4: ir, cr, kur, p10cr, rr; from 5 on genm, with the question of that number.
    pub(crate) ask: u8,
    /// 0, 1: PBM and PBMAC1, where the request can have a MAC; otherwise a signature.
    pub(crate) means: u8,
    /// See the constants.
    pub(crate) flags: u8,
    /// The total time: 0 a week, otherwise so many times ten minutes.
    pub(crate) time: u8,
}

impl Setup {
    pub(crate) const IMPLICIT: u8 = 1;
    pub(crate) const RETRY_ID: u8 = 2;
    pub(crate) const REFUSE_MODIFICATIONS: u8 = 4;
    pub(crate) const ACCEPT_MODIFICATIONS: u8 = 8;
    pub(crate) const RSA_AND_DECRYPTER: u8 = 16;
    pub(crate) const SHA1: u8 = 32;
    pub(crate) const NO_ANCHORS: u8 = 64;
    pub(crate) const EXPECT_CMP: u8 = 128;

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// One move.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    /// The server answers the last message.
    Answer(Content, Dress),
    /// Bytes that nobody vouches for.
    Raw(Vec<u8>),
    /// The clock moves by so many seconds, then the timer fires.
    Timer(i32),
    /// The clock moves by so many seconds.
    Clock(i32),
    /// The device is restarted: the transaction goes on from its record.
    Restart,
    /// An operator stops it.
    Stop,
}

/// What an answer says.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// What an honest server answers.
    Honest,
    /// waiting, as the request wants it.
    Waiting,
    /// error with waiting.
    ErrorWaiting,
    /// pollRep with checkAfter.
    PollRep(i64),
    /// A refusal in the form of the request, with failInfo bits.
    Refused(u32),
    /// error with failInfo bits.
    Error(u32),
    /// pkiConf.
    PkiConf,
    /// Certificate by number, grantedWithMods, and CA certificates by bits.
    Grant { certificate: u8, with_mods: bool, ca_pubs: u16 },
    /// genp with the type that was asked for and this value.
    Info(Vec<u8>),
    /// rp with this status for the certificate of this number.
    Revoked { status: u8, certificate: u8 },
    /// A body of this kind with this content.
    Body(u8, Vec<u8>),
}

/// How an answer comes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dress {
    /// Who protects it; 0: as the client did, or the CA's signer.
    pub(crate) protection: u8,
    pub(crate) header: Vec<HeaderChange>,
    /// Changes of the body before it is protected.
    pub(crate) before: Vec<Patch>,
    /// Changes of the whole message afterwards.
    pub(crate) after: Vec<Patch>,
    /// More extraCerts, by bits.
    pub(crate) extra: u16,
}

/// A change of the header, before it is protected.
#[derive(Clone, Debug)]
pub(crate) enum HeaderChange {
    Pvno(u8),
    TransactionId(Vec<u8>),
    SenderNonce(Vec<u8>),
    RecipNonce(Vec<u8>),
    /// The nonce of the message so many before the last.
    RecipNonceOf(u8),
    RecipKid(Vec<u8>),
    Time(Vec<u8>),
    /// The subject of a certificate.
    Sender(u8),
    /// A name of any kind.
    SenderName(u8, Vec<u8>),
    /// An InfoTypeAndValue.
    Info(Vec<u8>),
    ImplicitConfirm,
    FreeText(Vec<u8>),
}

/// A change at an offset, which begins anew behind the end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patch {
    Xor(u16, u8),
    Insert(u16, u8),
    Remove(u16, u8),
}

impl Patch {
    pub(crate) fn apply(self, bytes: &mut Vec<u8>) {
        let (Self::Xor(at, _) | Self::Insert(at, _) | Self::Remove(at, _)) = self;
        let at = usize::from(at) % (bytes.len() + 1);
        match self {
            Self::Xor(_, change) => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= change),
            Self::Insert(_, byte) => bytes.insert(at, byte),
            Self::Remove(_, count) => drop(bytes.drain(at..bytes.len().min(at + usize::from(count)))),
        }
    }
}

/// Reads a run.
pub(crate) fn read(input: &[u8]) -> (Setup, Vec<Move>) {
    let mut from = Cursor(input);
    let setup = Setup { ask: from.byte(), means: from.byte(), flags: from.byte(), time: from.byte() };
    let mut moves = Vec::new();
    while !from.0.is_empty() && moves.len() < MAX_MOVES {
        moves.push(from.next_move());
    }
    (setup, moves)
}

/// Writes a run, for seeds: what [`read`] makes of it is the same run.
pub(crate) fn write(setup: Setup, moves: &[Move]) -> Vec<u8> {
    let mut to = Pen(vec![setup.ask, setup.means, setup.flags, setup.time]);
    moves.iter().for_each(|step| to.next_move(step));
    to.0
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.short()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }

    fn next_move(&mut self) -> Move {
        match self.byte() % 16 {
            11 => Move::Raw(self.bytes()),
            12 => Move::Timer(i32::from_be_bytes(self.array())),
            13 => Move::Clock(i32::from_be_bytes(self.array())),
            14 => Move::Restart,
            15 => Move::Stop,
            content => Move::Answer(self.content(content), self.dress()),
        }
    }

    fn content(&mut self, choice: u8) -> Content {
        match choice {
            1 => Content::Waiting,
            2 => Content::ErrorWaiting,
            3 => Content::PollRep(i64::from_be_bytes(self.array())),
            4 => Content::Refused(u32::from_be_bytes(self.array())),
            5 => Content::Error(u32::from_be_bytes(self.array())),
            6 => Content::PkiConf,
            7 => Content::Grant { certificate: self.byte(), with_mods: self.byte() & 1 != 0, ca_pubs: self.short() },
            8 => Content::Info(self.bytes()),
            9 => Content::Revoked { status: self.byte(), certificate: self.byte() },
            10 => Content::Body(self.byte(), self.bytes()),
            _ => Content::Honest,
        }
    }

    fn dress(&mut self) -> Dress {
        let what = self.byte();
        let mut dress = Dress::default();
        if what & 1 != 0 {
            dress.protection = self.byte();
        }
        if what & 2 != 0 {
            dress.header = (0..self.byte() % 4).map(|_| self.header_change()).collect();
        }
        if what & 4 != 0 {
            dress.before = self.patches();
        }
        if what & 8 != 0 {
            dress.after = self.patches();
        }
        if what & 16 != 0 {
            dress.extra = self.short();
        }
        dress
    }

    fn header_change(&mut self) -> HeaderChange {
        match self.byte() % 12 {
            0 => HeaderChange::Pvno(self.byte()),
            1 => HeaderChange::TransactionId(self.bytes()),
            2 => HeaderChange::SenderNonce(self.bytes()),
            3 => HeaderChange::RecipNonce(self.bytes()),
            4 => HeaderChange::RecipNonceOf(self.byte()),
            5 => HeaderChange::RecipKid(self.bytes()),
            6 => HeaderChange::Time(self.bytes()),
            7 => HeaderChange::Sender(self.byte()),
            8 => HeaderChange::SenderName(self.byte(), self.bytes()),
            9 => HeaderChange::Info(self.bytes()),
            10 => HeaderChange::ImplicitConfirm,
            _ => HeaderChange::FreeText(self.bytes()),
        }
    }

    fn patches(&mut self) -> Vec<Patch> {
        (0..self.byte() % 8)
            .map(|_| match self.byte() % 4 {
                0 => Patch::Insert(self.short(), self.byte()),
                1 => Patch::Remove(self.short(), self.byte()),
                _ => Patch::Xor(self.short(), self.byte()),
            })
            .collect()
    }
}

struct Pen(Vec<u8>);

impl Pen {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(u16::try_from(bytes.len()).expect("seeds are short").to_be_bytes());
        self.0.extend(bytes);
    }

    fn next_move(&mut self, step: &Move) {
        match step {
            Move::Answer(content, dress) => {
                self.content(content);
                self.dress(dress);
            }
            Move::Raw(bytes) => {
                self.0.push(11);
                self.bytes(bytes);
            }
            Move::Timer(seconds) => {
                self.0.push(12);
                self.0.extend(seconds.to_be_bytes());
            }
            Move::Clock(seconds) => {
                self.0.push(13);
                self.0.extend(seconds.to_be_bytes());
            }
            Move::Restart => self.0.push(14),
            Move::Stop => self.0.push(15),
        }
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Honest => self.0.push(0),
            Content::Waiting => self.0.push(1),
            Content::ErrorWaiting => self.0.push(2),
            Content::PollRep(seconds) => {
                self.0.push(3);
                self.0.extend(seconds.to_be_bytes());
            }
            Content::Refused(bits) => {
                self.0.push(4);
                self.0.extend(bits.to_be_bytes());
            }
            Content::Error(bits) => {
                self.0.push(5);
                self.0.extend(bits.to_be_bytes());
            }
            Content::PkiConf => self.0.push(6),
            Content::Grant { certificate, with_mods, ca_pubs } => {
                self.0.extend([7, *certificate, u8::from(*with_mods)]);
                self.0.extend(ca_pubs.to_be_bytes());
            }
            Content::Info(value) => {
                self.0.push(8);
                self.bytes(value);
            }
            Content::Revoked { status, certificate } => self.0.extend([9, *status, *certificate]),
            Content::Body(kind, body) => {
                self.0.extend([10, *kind]);
                self.bytes(body);
            }
        }
    }

    /// Seeds change no bytes: that is for the fuzzer.
    fn dress(&mut self, dress: &Dress) {
        let flag = |is: bool, bit: u8| if is { bit } else { 0 };
        self.0.push(flag(dress.protection != 0, 1) | flag(!dress.header.is_empty(), 2) | flag(dress.extra != 0, 16));
        if dress.protection != 0 {
            self.0.push(dress.protection);
        }
        if !dress.header.is_empty() {
            self.0.push(u8::try_from(dress.header.len()).expect("seeds are short"));
            dress.header.iter().for_each(|change| self.header_change(change));
        }
        if dress.extra != 0 {
            self.0.extend(dress.extra.to_be_bytes());
        }
    }

    fn header_change(&mut self, change: &HeaderChange) {
        let (number, bytes) = match change {
            HeaderChange::Pvno(pvno) => return self.0.extend([0, *pvno]),
            HeaderChange::RecipNonceOf(before) => return self.0.extend([4, *before]),
            HeaderChange::Sender(certificate) => return self.0.extend([7, *certificate]),
            HeaderChange::SenderName(tag, name) => {
                self.0.extend([8, *tag]);
                return self.bytes(name);
            }
            HeaderChange::ImplicitConfirm => return self.0.push(10),
            HeaderChange::TransactionId(bytes) => (1, bytes),
            HeaderChange::SenderNonce(bytes) => (2, bytes),
            HeaderChange::RecipNonce(bytes) => (3, bytes),
            HeaderChange::RecipKid(bytes) => (5, bytes),
            HeaderChange::Time(bytes) => (6, bytes),
            HeaderChange::Info(bytes) => (9, bytes),
            HeaderChange::FreeText(bytes) => (11, bytes),
        };
        self.0.push(number);
        self.bytes(bytes);
    }
}
