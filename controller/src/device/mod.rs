//! The device aggregate, pure: `decide(&state, command, now) -> Decision | Rejection`.
//!
//! No runtime, SQL, broker or clock may be imported here. What a decision changes is written in one statement, guarded
//! by the device's version; nothing happens before it is committed.

mod command;
mod decide;
mod effect;
mod state;

pub use crate::audit::Requester;

pub use self::{
    command::{
        Activate, AddTrustpoint, Adopt, ArmRecovery, Bound, Command, DisarmRecovery, DistributeAnchors, Enroll,
        EnrollContext, IssuedCertificate, JobFacts, PutBack, Rebind, Reissue, RemoveTrustpoint, Renew, Reply, Report,
        ReportEvent, ResetStatistics, Revoke, RevokeContext, SetAutoUpdate, SetMac, SetServices, Stop, Unbind,
        Undeliverable,
    },
    decide::{
        Rejection, decide,
        lease::{Digest, Give, Given, Keeper, LeaseStep, NoLease, Subject, emergency_at, lease_step},
    },
    effect::{
        AuditEntry, CertificateInsert, Changes, Decision, JobInsert, JobTold, JobUpdate, RevocationChange, SlotChange,
        StopNote, TrustpointChange,
    },
    state::{Condemned, DeviceState, JobKind, OpenJob},
};
