//! A type for every kind of id, so that no bare UUID crosses a function.
//!
//! Ids are UUIDv7: they sort by the time they were made, which keeps indexes dense. Time and randomness are given by
//! the caller.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh UUIDv7 from the given moment (milliseconds are kept) and ten random bytes.
            pub fn fresh(now: Timestamp, random: [u8; 10]) -> Self {
                Self(uuid_v7(now, random))
            }

            /// The id that nothing has: all bits zero.
            pub const fn nil() -> Self {
                Self(Uuid::nil())
            }

            /// The UUID as stored in PostgreSQL.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(value: Uuid) -> Self {
                Self(value)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

id!(/// A tenant: nothing of one tenant is visible to another.
    TenantId);
id!(/// A device agent: one process with its own keys, one broker queue, one or many devices.
    AgentId);
id!(/// A device: owner of trustpoints.
    DeviceId);
id!(/// A trustpoint on a device (S17).
    TrustpointId);
id!(/// A PKI entity: subject and alternative names (S2).
    EntityId);
id!(/// A CA server: name, endpoints, anchors.
    CaServerId);
id!(/// A binding: which devices get which trustpoint by their labels.
    BindingId);
id!(/// A CMP policy: the settings of a CMP session (S1 to S26).
    PolicyId);
id!(/// An enrolment job.
    JobId);
id!(/// A lease: an agent's leave to renew a trustpoint by itself.
    LeaseId);
id!(/// An issued certificate known to the controller.
    CertificateId);
id!(/// A secret encrypted at rest.
    SecretId);
id!(/// A bearer token or join token.
    TokenId);
id!(/// A subject of an identity provider that is let in no more.
    BlockId);
id!(/// A change that waits for approval.
    ChangeId);
id!(/// A campaign: a change of many trustpoints, in waves.
    CampaignId);
id!(/// A freeze: windows in which devices are not changed.
    FreezeId);
id!(/// A message of an agent that could not be processed.
    DeadLetterId);
id!(/// A message between agent and controller.
    MessageId);
id!(/// One process of an agent, from its start to its end.
    InstanceId);
id!(/// A CA whose factory identities let agents in.
    FactoryCaId);
id!(/// A serial number that an operator expects.
    ExpectedId);
id!(/// A roll-over of the trust anchors of a CA server.
    RolloverId);
id!(/// An agent that asked to be let in.
    ApplicantId);

fn uuid_v7(now: Timestamp, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let early = JobId::fresh(Timestamp::from_second(1_000).unwrap(), [255; 10]);
        let late = JobId::fresh(Timestamp::from_second(1_001).unwrap(), [0; 10]);
        assert!(early < late);
    }

    #[test]
    fn an_id_reads_back_from_its_text_and_from_json() {
        let id = DeviceId::fresh(Timestamp::from_second(1_000).unwrap(), [7; 10]);
        assert_eq!(id.to_string().parse::<DeviceId>().unwrap(), id);
        assert_eq!(serde_json::from_str::<DeviceId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }
}
