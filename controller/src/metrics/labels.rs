//! The values that labels can have: every one comes from an enumeration here or in the shared crates, never from a
//! device, a CA or a caller.

use trustfleet_model::job::Culprit;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$about])* $variant,)* }

        impl $name {
            /// All values, for series that must exist at zero.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word in the metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

words! {
    /// How a database transaction ended.
    TxOutcome {
        /// Committed.
        Committed = "committed",
        /// Given up by our own decision, or refused by the database.
        RolledBack = "rolled_back",
        /// Lost too many races, or the connection.
        GaveUp = "gave_up",
    }
}

words! {
    /// What became of a message to an agent.
    PublishOutcome {
        /// In the agent's queue.
        Confirmed = "confirmed",
        /// The agent has no queue yet.
        Returned = "returned",
        /// Not confirmed; it will be sent again.
        Failed = "failed",
        /// It can never be sent.
        Undeliverable = "undeliverable",
        /// Its agent is in quarantine; it waits.
        Quarantined = "quarantined",
    }
}

words! {
    /// What came of a trustpoint on which something was due without being asked.
    RenewalOutcome {
        /// Its device has a job for it.
        Asked = "asked",
        /// A condition is missing; the trustpoint tells which.
        NotReady = "not_ready",
        /// Something changed meanwhile.
        NotDue = "not_due",
        /// The device could not be asked; it will be again.
        PutOff = "put_off",
    }
}

words! {
    /// What became of a message about a lease.
    LeaseOutcome {
        /// A lease is in its agent's queue.
        Given = "given",
        /// The end of one is.
        Ended = "ended",
        /// The agent has no queue, or the broker did not confirm: it will be offered again.
        Returned = "returned",
        /// It could not be made or written; it is tried again.
        Failed = "failed",
    }
}

words! {
    /// Why an agent's message was laid aside; also the dead letter's reason.
    Refusal {
        /// Not an envelope, or not a payload.
        Unreadable = "unreadable",
        /// Of a version that this program does not know.
        UnknownVersion = "unknown_version",
        /// From an agent that is not registered.
        UnknownAgent = "unknown_agent",
        /// The signature does not fit.
        NotAuthentic = "not_authentic",
        /// About a job or device that does not exist.
        UnknownJob = "unknown_job",
        /// About a job of another agent, device or trustpoint.
        ForeignJob = "foreign_job",
        /// About a job begun by a lease that was never given.
        UnknownLease = "unknown_lease",
        /// About something that its job cannot lead to.
        WrongKind = "wrong_kind",
        /// From an agent in quarantine.
        Quarantined = "quarantined",
        /// In the name of another agent than the one whose routing key it came by.
        ForeignSender = "foreign_sender",
        /// Longer than any message of an agent.
        TooLong = "too_long",
        /// Authentic, and a fault of ours or a row that cannot be read stood in the way.
        Failed = "failed",
        /// Tried many times, and each time something was in the way for the moment.
        GaveUp = "gave_up",
        /// More than one agent may send at a time; dropped, not laid aside.
        TooMany = "too_many",
    }
}

words! {
    /// Why a dead letter was dropped without anybody's word.
    LetterLoss {
        /// Its agent has more than are kept of one.
        AgentLimit = "agent_limit",
        /// There are more than are kept of all.
        TotalLimit = "total_limit",
        /// It was kept as long as letters are.
        Age = "age",
    }
}

words! {
    /// Why an agent was not let in at its doors.
    DoorRefusal {
        /// The join token is unknown, used up, expired, or of another controller.
        BadToken = "bad_token",
        /// The token is for another name, or the name is taken.
        Name = "name",
        /// The signature does not prove possession of the key.
        BadProof = "bad_proof",
        /// The challenge is none of ours, or too old.
        BadChallenge = "bad_challenge",
        /// The challenge, or a newer one, has opened a session already.
        Replayed = "replayed",
        /// No such agent.
        UnknownAgent = "unknown_agent",
        /// The agent is in quarantine.
        Quarantined = "quarantined",
        /// More agents announce a serial number than are remembered.
        TooMany = "too_many",
    }
}

words! {
    /// What the broker denied to an agent.
    Denial {
        /// Something that its token does not allow: another's queue, another's key, to declare, bind or delete.
        Operation = "operation",
        /// To come in: a token has ended, or is none of ours. Whose it was is not known.
        Login = "login",
    }
}

words! {
    /// What became of an order to close an agent's connections.
    CutOffOutcome {
        /// There were some, and they are closed.
        Closed = "closed",
        /// There were none.
        NothingOpen = "nothing_open",
        /// The broker or its management could not be reached, or refused.
        Failed = "failed",
    }
}

words! {
    /// How much time a certificate in use has left: the narrowest band that holds it.
    TimeLeft {
        /// Its last moment of validity has passed.
        Expired = "expired",
        /// Less than a day.
        Day = "1d",
        /// Less than 7 days, but a day.
        Week = "7d",
        /// Less than 30 days, but 7.
        Month = "30d",
        /// Less than 90 days, but 30.
        Quarter = "90d",
        /// 90 days or more.
        Longer = "longer",
    }
}

impl TimeLeft {
    /// Where each band but the last ends and the next begins, seconds, in the order of [`TimeLeft::ALL`].
    pub const LIMITS_S: [f64; 5] = [0.0, DAY_S, 7.0 * DAY_S, 30.0 * DAY_S, 90.0 * DAY_S];
}

words! {
    /// Where a certificate in use stands with its renewal.
    Renewal {
        /// There is time, and nothing is under way.
        NotDue = "not_due",
        /// Less than a third of its lifetime is left ([`Renewal::DUE_SHARE`]), and nothing is under way.
        Due = "due",
        /// Its trustpoint has a job that has not ended.
        UnderWay = "under_way",
        /// As due, and the last attempt on its trustpoint failed.
        Failed = "failed",
    }
}

impl Renewal {
    /// A renewal is due when less than one of so many equal parts of the certificate's lifetime is left.
    pub const DUE_SHARE: f64 = 3.0;
}

words! {
    /// How long ago an agent was heard of: the narrowest band that holds it.
    LastSeen {
        /// Less than 30 minutes.
        HalfHour = "30m",
        /// Less than 2 hours, but 30 minutes.
        TwoHours = "2h",
        /// Less than a day, but 2 hours.
        Day = "1d",
        /// A day or longer.
        Longer = "longer",
    }
}

impl LastSeen {
    /// Where each band but the last ends and the next begins, seconds, in the order of [`LastSeen::ALL`].
    pub const LIMITS_S: [f64; 3] = [1_800.0, 7_200.0, DAY_S];
}

const DAY_S: f64 = 86_400.0;

words! {
    /// What a connection to the database is doing.
    ConnectionState {
        /// Open, and nobody uses it.
        Idle = "idle",
        /// A transaction has it.
        InUse = "in_use",
    }
}

words! {
    /// The database role that a connection is of.
    ConnectionRole {
        /// `trustfleet_api`.
        Api = "api",
        /// `trustfleet_system`.
        System = "system",
    }
}

words! {
    /// The first digit of an HTTP status.
    StatusClass {
        /// Done.
        Success = "2xx",
        /// Elsewhere.
        Redirection = "3xx",
        /// The caller's mistake.
        CallersFault = "4xx",
        /// Our fault, or something is away.
        ServersFault = "5xx",
    }
}

impl StatusClass {
    /// The class of a status.
    pub const fn of(status: u16) -> Self {
        match status {
            0..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::CallersFault,
            _ => Self::ServersFault,
        }
    }
}

/// Requests of no operation in the route table: unknown paths and methods, the browsable documentation.
pub const OTHER_OPERATION: &str = "other";

/// How an exchange with a CA ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeResult {
    /// With a certificate.
    Issued,
    /// Without one, and who is to blame.
    Failed(Culprit),
}

impl ExchangeResult {
    /// All results, for counters that must exist at zero.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Issued).chain(Culprit::ALL.into_iter().map(Self::Failed))
    }

    /// The word in the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Failed(culprit) => culprit.as_str(),
        }
    }
}

words! {
    /// What a CA named as the reason of its refusal: the bits of PKIFailureInfo in the RFC's own words (RFC 9810
    /// section 5.2.3).
    FailInfo {
        /// Unrecognised or unsupported algorithm.
        BadAlg = "badAlg",
        /// Integrity check failed.
        BadMessageCheck = "badMessageCheck",
        /// Transaction not permitted or supported.
        BadRequest = "badRequest",
        /// messageTime too far from the CA's clock.
        BadTime = "badTime",
        /// No certificate matches the given criteria.
        BadCertId = "badCertId",
        /// Wrong format of the data.
        BadDataFormat = "badDataFormat",
        /// Another authority is meant than the one that answers.
        WrongAuthority = "wrongAuthority",
        /// The requester's data is incorrect.
        IncorrectData = "incorrectData",
        /// The time stamp is missing.
        MissingTimeStamp = "missingTimeStamp",
        /// Proof of possession failed.
        BadPop = "badPOP",
        /// The certificate is already revoked.
        CertRevoked = "certRevoked",
        /// The certificate is already confirmed.
        CertConfirmed = "certConfirmed",
        /// MAC where a signature is wanted, or the other way round.
        WrongIntegrity = "wrongIntegrity",
        /// recipNonce missing or wrong.
        BadRecipientNonce = "badRecipientNonce",
        /// The time source is not available.
        TimeNotAvailable = "timeNotAvailable",
        /// The policy is not supported.
        UnacceptedPolicy = "unacceptedPolicy",
        /// The extension is not supported.
        UnacceptedExtension = "unacceptedExtension",
        /// The additional information is not available.
        AddInfoNotAvailable = "addInfoNotAvailable",
        /// senderNonce missing or of the wrong size.
        BadSenderNonce = "badSenderNonce",
        /// Template invalid or lacking what must be there.
        BadCertTemplate = "badCertTemplate",
        /// The signer is unknown or not trusted.
        SignerNotTrusted = "signerNotTrusted",
        /// The transactionID is in use.
        TransactionIdInUse = "transactionIdInUse",
        /// The version is not supported.
        UnsupportedVersion = "unsupportedVersion",
        /// The sender may not do that.
        NotAuthorized = "notAuthorized",
        /// The system is unavailable.
        SystemUnavail = "systemUnavail",
        /// The system failed.
        SystemFailure = "systemFailure",
        /// A duplicate certificate exists.
        DuplicateCertReq = "duplicateCertReq",
        /// A bit without a name, or a word that this program does not know.
        Other = "other",
        /// The CA refused without a reason.
        None = "none",
    }
}

impl FailInfo {
    /// The reasons of a refusal, from the words in an agent's report: each once.
    pub fn of_words(words: &[String]) -> Vec<Self> {
        if words.is_empty() {
            return vec![Self::None];
        }
        let of = |word: &String| Self::ALL.iter().copied().find(|reason| reason.as_str() == word);
        let mut reasons: Vec<Self> = words.iter().map(|word| of(word).unwrap_or(Self::Other)).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_word_never_becomes_a_label() {
        let words = ["badPOP", "<script>", "badAlg", "badPOP", "bit 27"].map(str::to_owned);
        let reasons: Vec<_> = FailInfo::of_words(&words).into_iter().map(FailInfo::as_str).collect();
        assert_eq!(reasons, ["badAlg", "badPOP", "other"]);
        assert_eq!(FailInfo::of_words(&[]), [FailInfo::None]);
    }

    #[test]
    fn every_band_but_the_last_has_a_limit_and_limits_grow() {
        assert_eq!(TimeLeft::LIMITS_S.len() + 1, TimeLeft::ALL.len());
        assert_eq!(LastSeen::LIMITS_S.len() + 1, LastSeen::ALL.len());
        assert!(TimeLeft::LIMITS_S.is_sorted() && LastSeen::LIMITS_S.is_sorted());
    }

    #[test]
    fn every_status_has_a_class() {
        let classes = [101, 200, 304, 404, 503, 999].map(|status| StatusClass::of(status).as_str());
        assert_eq!(classes, ["2xx", "2xx", "3xx", "4xx", "5xx", "5xx"]);
    }
}
