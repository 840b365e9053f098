//! A job message made into values that are safe to act on.
//!
//! The controller has checked all of this before. The agent checks again: a name becomes a folder here, a URL is called
//! from here. Everything that is wrong is named at once (S32), and then nothing is sent.

use trustfleet_cmp::key::KeyType;
use trustfleet_cmp::protection::MacPolicy;
use trustfleet_cmp::protection::mac::Hash;
use trustfleet_cmp::request::RequestKind;
use trustfleet_model::field::{ObjectName, TrustpointName, Violations};
use trustfleet_pki::{Name, San};
use trustfleet_wire::seal::SealedSecret;
use trustfleet_wire::v1::{Enroll, Job, Request};

use self::talk::Said;
pub use self::{errand::Errand, revocation::RevocationOrder, talk::Talk};
use crate::slots::FileFormat;

mod errand;
mod revocation;
mod talk;

/// Most URLs, names or certificates in one list of a job.
const LIST_MAX: usize = 64;

/// Which trustpoint a job is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Name of the device.
    pub device: ObjectName,
    /// Name of the trustpoint.
    pub trustpoint: TrustpointName,
}

impl Place {
    /// The place of a job.
    ///
    /// # Errors
    /// Both names, where both are wrong.
    pub fn of(job: &Job) -> Result<Self, Violations> {
        Self::named(&job.device, &job.trustpoint)
    }

    /// The place of a trustpoint on a device.
    ///
    /// # Errors
    /// Both names, where both are wrong.
    pub fn named(device: &str, trustpoint: &str) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        let device = violations.check("device", "S1", device.parse::<ObjectName>());
        let trustpoint = violations.check("trustpoint", "S17", trustpoint.parse::<TrustpointName>());
        match (device, trustpoint) {
            (Some(device), Some(trustpoint)) => Ok(Self { device, trustpoint }),
            _ => Err(violations),
        }
    }
}

/// An enrolment, checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// ir, cr or kur.
    pub kind: RequestKind,
    /// Subject, its order as written (S5).
    pub subject: Name,
    /// Alternative names.
    pub sans: Vec<San>,
    /// Believe the time in verified answers of the CA, where the device knows no better (V13).
    pub ca_time: bool,
    /// Serial number of the certificate that an update is to replace.
    pub replaces: Option<String>,
    /// Kind of a new key.
    pub key_type: KeyType,
    /// New key in an update (S3).
    pub regenerate_key: bool,
    /// Reference and sealed secret.
    pub mac: Option<OrderMac>,
    /// PKI domain whose identity signs an ir or cr (S14).
    pub identity_domain: Option<ObjectName>,
    /// Sender in MAC mode (S19).
    pub sender: Option<Name>,
    /// Ask for implicit confirmation.
    pub implicit_confirm: bool,
    /// Put into use at once (S33, S34).
    pub activate: bool,
    /// Form of the file (S15).
    pub file_format: FileFormat,
    /// Whom to talk to.
    pub talk: Talk,
}

/// MAC credentials with the secret still sealed.
#[derive(Clone, Debug)]
pub struct OrderMac {
    /// Reference value (S12).
    pub reference: String,
    /// The secret (S13).
    pub secret: SealedSecret,
    /// Hashes and iterations to send.
    pub policy: MacPolicy,
}

impl Order {
    /// Checks an enrolment.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn of(enroll: &Enroll) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        let v = &mut violations;
        let subject = v.check("subject", "S18", Name::parse(&enroll.subject));
        let sans =
            list(v, "sans", &enroll.sans, |v, field, san| v.check(field, "S22", San::parse(&san.kind, &san.value)));
        let key_type = match enroll.key_algorithm.as_str() {
            "rsa-2048" => Some(KeyType::Rsa2048),
            "rsa-3072" => Some(KeyType::Rsa3072),
            "rsa-4096" => Some(KeyType::Rsa4096),
            "ecdsa-p256" => Some(KeyType::P256),
            "ecdsa-p384" => Some(KeyType::P384),
            "ed25519" => Some(KeyType::Ed25519),
            other => {
                v.add(
                    "key_algorithm",
                    "S25",
                    format!("is {other:?}; known are rsa-2048, rsa-3072, rsa-4096, ecdsa-p256, ecdsa-p384, ed25519"),
                );
                None
            }
        };
        let file_format = match enroll.file_format.as_str() {
            "pem" => Some(FileFormat::Pem),
            "der" => Some(FileFormat::Der),
            other => {
                v.add("file_format", "S15", format!("is {other:?}; known are pem and der"));
                None
            }
        };
        let talk = Talk::of(
            v,
            &Said {
                recipient: &enroll.recipient,
                urls: &enroll.urls,
                source: enroll.source.as_ref(),
                accept_sha1_answers: enroll.accept_sha1_answers,
                trust_anchors: &enroll.trust_anchors,
                verification_certificates: &enroll.verification_certificates,
                message_timeout_s: enroll.message_timeout_s,
                total_timeout_s: enroll.total_timeout_s,
                no_polling: enroll.no_polling,
                root_in_extra_certs: enroll.root_in_extra_certs,
            },
        );
        let mac = enroll.mac.as_ref().and_then(|mac| {
            let policy = match mac.algorithm.as_str() {
                "hmac-sha256" => MacPolicy::of(Hash::Sha256),
                "hmac-sha384" => MacPolicy::of(Hash::Sha384),
                "hmac-sha512" => MacPolicy::of(Hash::Sha512),
                "pbmac1-sha256" => MacPolicy::pbmac1(Hash::Sha256),
                "pbmac1-sha384" => MacPolicy::pbmac1(Hash::Sha384),
                "pbmac1-sha512" => MacPolicy::pbmac1(Hash::Sha512),
                "hmac-sha1" => MacPolicy { weak_allowed: true, ..MacPolicy::of(Hash::Sha1) },
                other => {
                    let known = "hmac-sha256, -sha384, -sha512, pbmac1-sha256, -sha384, -sha512 and hmac-sha1";
                    v.add("mac.algorithm", "S8", format!("is {other:?}; known are {known}"));
                    return None;
                }
            };
            // The tenant's permission for weak algorithms was checked where it is known: by the controller, whose
            // signature is on the job.
            let policy = MacPolicy { iterations: mac.iterations, ..policy };
            Some(OrderMac { reference: mac.reference.clone(), secret: mac.secret.clone(), policy })
        });
        let identity_domain = enroll
            .identity_domain
            .as_ref()
            .and_then(|name| v.check("identity_domain", "S14", name.parse::<ObjectName>()));
        let sender = enroll.sender.as_ref().and_then(|name| v.check("sender", "S19", Name::parse(name)));
        match (subject, key_type, file_format, talk) {
            (Some(subject), Some(key_type), Some(file_format), Some(talk)) if violations.is_empty() => Ok(Self {
                kind: match enroll.request {
                    Request::Ir => RequestKind::Ir,
                    Request::Cr => RequestKind::Cr,
                    Request::Kur => RequestKind::Kur,
                },
                subject,
                sans,
                ca_time: enroll.ca_time,
                replaces: enroll.replaces.clone(),
                key_type,
                regenerate_key: enroll.regenerate_key,
                mac,
                identity_domain,
                sender,
                implicit_confirm: enroll.implicit_confirm,
                activate: enroll.activate,
                file_format,
                talk,
            }),
            _ => Err(violations),
        }
    }
}

fn list<T, U>(
    violations: &mut Violations,
    field: &str,
    values: &[T],
    read: impl Fn(&mut Violations, &str, &T) -> Option<U>,
) -> Vec<U> {
    if values.len() > LIST_MAX {
        violations.add(field, "limit", format!("has {} entries; at most {LIST_MAX} are allowed", values.len()));
        return Vec::new();
    }
    let entries = values.iter().enumerate();
    entries.filter_map(|(i, value)| read(violations, &format!("{field}[{i}]"), value)).collect()
}

#[cfg(test)]
mod tests {
    use trustfleet_wire::v1::{Blob, Task, ToAgent};

    use super::*;

    fn job() -> Job {
        let text = include_str!("../../shared/wire/tests/golden/v1/to_agent_job_enroll_mac.json");
        match serde_json::from_str(text).unwrap() {
            ToAgent::Job(job) => *job,
            _ => panic!("not a job"),
        }
    }

    fn enroll() -> Enroll {
        match job().task {
            Task::Enroll(enroll) => *enroll,
            Task::Activate { .. } | Task::Revoke(_) | Task::DryRun(_) | Task::Anchors(_) => panic!("not an enrolment"),
        }
    }

    #[test]
    fn s1_a_name_from_the_controller_never_becomes_a_path() {
        for bad in ["../../etc", "a/b", "", ".ssh", "a\0b"] {
            let job = Job { device: bad.to_owned(), trustpoint: bad.to_owned(), ..job() };
            let violations = Place::of(&job).unwrap_err();
            assert_eq!(violations.as_slice().len(), 2, "{bad:?}");
        }
    }

    #[test]
    fn s32_everything_that_is_missing_or_wrong_is_named_at_once() {
        let mut bad = enroll();
        bad.subject = "no name".to_owned();
        bad.urls = vec!["ftp://ca/".to_owned()];
        bad.key_algorithm = "rsa-512".to_owned();
        bad.trust_anchors = vec![Blob(b"rubbish".to_vec())];
        bad.file_format = "p12".to_owned();
        let violations = Order::of(&bad).unwrap_err().to_string();
        for field in ["subject", "urls[0]", "urls: has no", "key_algorithm", "trust_anchors[0]", "file_format"] {
            assert!(violations.contains(field), "{field} missing in: {violations}");
        }
    }

    #[test]
    fn s10_an_order_without_an_anchor_is_refused() {
        let bad = Enroll { trust_anchors: Vec::new(), verification_certificates: Vec::new(), ..enroll() };
        assert!(Order::of(&bad).unwrap_err().to_string().contains("trust_anchors: is empty"));
    }

    #[test]
    fn a_list_without_end_is_not_worked_through() {
        let bad = Enroll { urls: vec!["http://ca/".to_owned(); 10_000], ..enroll() };
        assert!(Order::of(&bad).unwrap_err().to_string().contains("at most 64"));
    }
}
