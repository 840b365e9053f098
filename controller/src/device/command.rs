//! What can be asked of a device. Every command carries what deciding it needs: ids that are to be used, configuration
//! as it was read, facts parsed from a report.

use trustfleet_model::ids::{JobId, TrustpointId};

mod configure;
mod report;
mod request;

pub use self::configure::{
    AddTrustpoint, ArmRecovery, Bound, DisarmRecovery, Rebind, RemoveTrustpoint, ResetStatistics, SetAutoUpdate,
    SetMac, SetServices, Unbind,
};
pub use self::report::{IssuedCertificate, JobFacts, Report, ReportEvent};
pub use self::request::{
    Activate, Adopt, DistributeAnchors, Enroll, EnrollContext, PutBack, Reissue, Renew, Revoke, RevokeContext, Stop,
    Undeliverable,
};

/// One command to one device.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make a trustpoint.
    AddTrustpoint(Box<AddTrustpoint>),
    /// Give a trustpoint other MAC credentials.
    SetMac(Box<SetMac>),
    /// Arm a recovery.
    ArmRecovery(Box<ArmRecovery>),
    /// Disarm a recovery.
    DisarmRecovery(DisarmRecovery),
    /// Bind a trustpoint to other services of its device (S40).
    SetServices(SetServices),
    /// Remove a trustpoint that has nothing under way.
    RemoveTrustpoint(RemoveTrustpoint),
    /// Have a trustpoint follow its binding, which was changed.
    Rebind(Box<Rebind>),
    /// Leave a trustpoint to itself: its binding goes.
    Unbind(Unbind),
    /// Get a certificate (S27 to S30).
    Enroll(Box<Enroll>),
    /// Renew the certificate in use, or get the first one: it is due (S31).
    Renew(Box<Renew>),
    /// Renew a trustpoint by itself from now on, or not, over what its policy says (S41, S42).
    SetAutoUpdate(Box<SetAutoUpdate>),
    /// Try on the device everything that an enrolment needs.
    DryRun(Box<Enroll>),
    /// A new certificate, by another CA server or policy where that is said, for a campaign (S58).
    Reissue(Box<Reissue>),
    /// Take back what a campaign did to a trustpoint.
    PutBack(Box<PutBack>),
    /// Have a trustpoint trust other anchors, and its services load them (S57).
    DistributeAnchors(Box<DistributeAnchors>),
    /// Put the staged certificate into use (S33).
    Activate(Activate),
    /// Have a certificate revoked.
    Revoke(Box<Revoke>),
    /// An agent tells of a job that it began by itself, by a lease; signature and lease are verified already.
    Adopt(Box<Adopt>),
    /// An agent says what happened to a job; signature and sender are verified already.
    Report(Box<Report>),
    /// End a job that has no certificate yet (S37).
    Stop(Stop),
    /// Set the statistics of one trustpoint, or of all of the device, to nothing (S48).
    ResetStatistics(ResetStatistics),
    /// A job cannot be sent: its secret or configuration cannot be read.
    Undeliverable(Undeliverable),
}

/// Answer to a command that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The trustpoint is there.
    Trustpoint {
        /// Its id.
        id: TrustpointId,
    },
    /// The trustpoint is gone.
    Removed,
    /// The job that does what was asked: a new one, the one under way, or the one of the same idempotency key.
    Job {
        /// Its id.
        job_id: JobId,
    },
    /// The report changed something.
    Taken,
    /// The report was known, or came too late to matter: nothing changed.
    Known,
}
