//! When a certificate is renewed by itself, and when a step that failed is tried again (S31, S41 to S44).
//!
//! Pure: the moments follow from the certificate, the policy and the trustpoint's id alone, so that every replica comes to
//! the same ones.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::certificate::CertificateFacts;
use crate::device::Duty;
use crate::field::Violations;
use crate::ids::TrustpointId;
use crate::policy::PolicySpec;
use crate::spread::Spread;
use crate::trustpoint::{RequestState, Trustpoint};

/// First wait after a failure; it doubles with each further one.
const RETRY_FIRST: SignedDuration = SignedDuration::from_mins(5);
/// Longest wait after a failure.
const RETRY_MOST: SignedDuration = SignedDuration::from_hours(24);
/// Code of the failure of what was due and could not be asked for.
pub const NOT_READY: &str = "not_ready";
/// A recovery that failed is tried again after no more failures' wait than these: the device is there now.
const RECOVERY_DOUBLINGS: u32 = 4;
/// No wait is shorter, however short-lived the certificate is.
const RETRY_LEAST: SignedDuration = SignedDuration::from_secs(10);

/// Automatic update: whether and when (S41, S43). Disabled unless it is switched on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoUpdate {
    /// Renew by key update request (S31).
    pub enabled: bool,
    /// Begin of the safe window: elapsed part of the validity period, percent, 1 to 95; 50 where neither this nor
    /// `days_before_expiry` is said (S43).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_percent: Option<u8>,
    /// Begin of the safe window, the other way: days before the certificate ends, 1 to 365 (S43). For a certificate that
    /// is valid for a shorter time, a tenth of its validity period after it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days_before_expiry: Option<u16>,
    /// End of the safe window, percent elapsed. Each trustpoint has its own moment in the window, so that a fleet that
    /// was enrolled together is not renewed together; with the window's begin here all are renewed at that moment.
    pub latest_percent: u8,
    /// Emergency mark, percent elapsed, `latest_percent` to 99: from then on an agent that is cut off from the controller
    /// renews by itself. Half of what is left after the safe window where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency_percent: Option<u8>,
    /// How long an agent may renew by itself after it was last told so, seconds; 0: never.
    #[serde(skip_serializing_if = "is_usual_lease")]
    pub lease_s: u32,
}

impl Default for AutoUpdate {
    fn default() -> Self {
        Self {
            enabled: false,
            elapsed_percent: None,
            days_before_expiry: None,
            latest_percent: 80,
            emergency_percent: None,
            lease_s: LEASE_S,
        }
    }
}

/// Life of a lease where nothing is said, seconds: 30 days.
pub const LEASE_S: u32 = 30 * 86_400;
/// Longest life of a lease, seconds: a year.
const LEASE_MOST_S: u32 = 366 * 86_400;
/// Shortest life of a lease, seconds.
const LEASE_LEAST_S: u32 = 10;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_usual_lease(seconds: &u32) -> bool {
    *seconds == LEASE_S
}

/// Begin of the safe window where nothing is said, percent elapsed (S43).
pub const ELAPSED_PERCENT: u8 = 50;

impl AutoUpdate {
    /// Whether it is as if nothing was said: not stored then, for older replicas.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the limits, also while it is disabled.
    pub fn check(&self, violations: &mut Violations) {
        let begin = self.elapsed_percent.unwrap_or(ELAPSED_PERCENT);
        if self.elapsed_percent.is_some() && self.days_before_expiry.is_some() {
            let message = "stands beside auto_update.elapsed_percent: give one of the two";
            violations.add("auto_update.days_before_expiry", "S43", message);
        }
        if !(1..=95).contains(&begin) {
            violations.add("auto_update.elapsed_percent", "S43", format!("is {begin}; allowed are 1 to 95 percent"));
        }
        if let Some(days) = self.days_before_expiry.filter(|days| !(1..=365).contains(days)) {
            violations.add("auto_update.days_before_expiry", "S43", format!("is {days}; allowed are 1 to 365 days"));
        }
        let least = if self.days_before_expiry.is_some() { 1 } else { begin };
        if !(least..=99).contains(&self.latest_percent) {
            let message =
                format!("is {}; allowed are {least} (the begin of the window) to 99 percent", self.latest_percent);
            violations.add("auto_update.latest_percent", "S43", message);
        } else if let Some(percent) = self.emergency_percent.filter(|it| !(self.latest_percent..=99).contains(it)) {
            let least = self.latest_percent;
            let message = format!("is {percent}; allowed are {least} (the end of the window) to 99 percent");
            violations.add("auto_update.emergency_percent", "autonomy", message);
        }
        if self.lease_s != 0 && !(LEASE_LEAST_S..=LEASE_MOST_S).contains(&self.lease_s) {
            let seconds = self.lease_s;
            let message = format!("is {seconds}; allowed are 0 (never) and {LEASE_LEAST_S} to {LEASE_MOST_S} seconds");
            violations.add("auto_update.lease_s", "autonomy", message);
        }
    }

    /// The emergency mark, percent elapsed.
    pub fn emergency(&self) -> u8 {
        self.emergency_percent.unwrap_or_else(|| self.latest_percent.saturating_add(100).div_ceil(2).min(99))
    }

    /// The safe window of a certificate: its begin and its end.
    pub fn window(&self, certificate: &CertificateFacts) -> (Timestamp, Timestamp) {
        let part = |percent: u8| part(certificate, f64::from(percent) / 100.0);
        let begin = match self.days_before_expiry {
            None => part(self.elapsed_percent.unwrap_or(ELAPSED_PERCENT)),
            Some(days) => {
                let before = SignedDuration::from_hours(24).saturating_mul(i32::from(days));
                minus(certificate.not_after, before).max(part(10))
            }
        };
        (begin, part(self.latest_percent).max(begin))
    }

    /// The trustpoint's own moment in the window: always the same one for the same certificate.
    pub fn moment(&self, certificate: &CertificateFacts, trustpoint: TrustpointId) -> Timestamp {
        let (begin, end) = self.window(certificate);
        plus(begin, end.duration_since(begin).mul_f64(fraction(trustpoint, &certificate.sha256)))
    }
}

/// What is due on a trustpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask for the first certificate.
    Enroll,
    /// Renew the certificate in use.
    Renew,
    /// Put the staged certificate into use: it should have been by itself, and that failed.
    Activate,
    /// Ask for a certificate by what was armed for this: the one in use has ended.
    Recover,
    /// Disarm that: its time is over.
    Disarm,
}

/// What is to be done next without being asked, and when; the moment may have passed. `None`: nothing, until something
/// changes. `spread`: another moment than the policy's that was found for the certificate in use; it counts inside the safe
/// window. An expired certificate cannot sign an update: only the active node of a pair then asks for a new one (S47), and whoever has a recovery armed.
pub fn next_action(
    trustpoint: &Trustpoint,
    policy: &PolicySpec,
    duty: Duty,
    spread: Option<&Spread>,
    now: Timestamp,
) -> Option<(Timestamp, Due)> {
    // By itself nothing is asked for below the floor under re-issue.
    let floor = trustpoint.reissue_reached(&policy.reissue, now).map(|reached| reached.again_at);
    let action = usual_action(trustpoint, policy, duty, spread, now).map(|(moment, due)| match floor {
        Some(again_at) if due != Due::Activate => (moment.max(again_at), due),
        _ => (moment, due),
    });
    let Some(recovery) = &trustpoint.recovery else { return action };
    let is_used = recovery.job_id.is_some() && recovery.job_id == trustpoint.request.job_id();
    let disarm = Some((recovery.until, Due::Disarm)).filter(|_| !is_used);
    let recover = recovery_at(trustpoint, duty, now).map(|moment| (moment, Due::Recover));
    // What was armed goes before what the policy would do with a certificate that has ended.
    let action = action.filter(|(_, due)| recover.is_none() || *due != Due::Enroll);
    [recover, action, disarm].into_iter().flatten().min_by_key(|(moment, _)| *moment)
}

/// When a certificate that has ended, or will, is recovered by what was armed. An update that waits for its agent is no
/// hindrance: it could only fail.
fn recovery_at(trustpoint: &Trustpoint, duty: Duty, now: Timestamp) -> Option<Timestamp> {
    let idle = matches!(trustpoint.request, RequestState::Nothing | RequestState::Agent { .. });
    let active = trustpoint.active.as_ref().filter(|active| !active.is_given_up());
    let ended_at = trustpoint.recovery.as_ref()?.due_at(active, now)?;
    let is_used = trustpoint.recovery.as_ref()?.job_id.is_some_and(|job| trustpoint.request.job_id() == Some(job));
    if !idle || is_used || duty == Duty::Standby || trustpoint.staged.is_some() {
        return None;
    }
    // What failed before it was armed, or was an update, says nothing of this.
    let recovery = trustpoint.recovery.as_ref()?;
    let tried =
        recovery.job_id.is_some() || trustpoint.last_failure.as_ref().is_some_and(|last| last.code == NOT_READY);
    let failed_at = trustpoint.last_failed_at.filter(|at| tried && *at > ended_at.max(recovery.armed_at));
    Some(
        failed_at.map_or(ended_at, |at| again_at(trustpoint.id, trustpoint.failures.min(RECOVERY_DOUBLINGS), at, None)),
    )
}

fn usual_action(
    trustpoint: &Trustpoint,
    policy: &PolicySpec,
    duty: Duty,
    spread: Option<&Spread>,
    now: Timestamp,
) -> Option<(Timestamp, Due)> {
    if !matches!(trustpoint.request, RequestState::Nothing) || duty == Duty::Standby {
        return None;
    }
    let has_none = trustpoint.active.as_ref().is_none_or(|active| active.not_after <= now) && duty == Duty::Active
        || trustpoint.active.is_none() && trustpoint.enrolls_by_itself;
    // What was revoked was revoked on purpose: whether its device gets another one is for whoever did that to say.
    if [&trustpoint.active, &trustpoint.staged].into_iter().flatten().any(CertificateFacts::is_given_up) {
        return None;
    }
    if has_none && trustpoint.staged.is_none() {
        let ready = policy.domain().is_some() || trustpoint.mac_secret_id.is_some();
        let moment = trustpoint.last_failed_at.map_or(now, |failed_at| retry(trustpoint, None, failed_at));
        return ready.then_some((moment, Due::Enroll));
    }
    let policy = &policy.auto_update;
    if !trustpoint.auto_update.unwrap_or(policy.enabled) {
        return None;
    }
    if let Some(staged) = &trustpoint.staged {
        // Staged on purpose, or because it could not be put into use.
        let failed_at = trustpoint.last_failed_at.filter(|_| trustpoint.activates_by_itself)?;
        return Some((retry(trustpoint, Some(staged), failed_at), Due::Activate));
    }
    let active = trustpoint.active.as_ref().filter(|active| active.not_after > now)?;
    let (begin, end) = policy.window(active);
    let spread = spread.filter(|spread| spread.serial == active.serial && (begin..=end).contains(&spread.at));
    let mut moment = spread.map_or_else(|| policy.moment(active, trustpoint.id), |spread| spread.at);
    if let Some(issued_at) = trustpoint.issued_at {
        // A CA that dates certificates back would otherwise be asked again and again.
        moment = moment.max(plus(issued_at, validity(active) / 20));
    }
    if let Some(failed_at) = trustpoint.last_failed_at {
        moment = moment.max(retry(trustpoint, Some(active), failed_at));
    }
    Some((moment, Due::Renew))
}

/// When to try again: later with each failure, and sooner where little time is left.
fn retry(trustpoint: &Trustpoint, certificate: Option<&CertificateFacts>, failed_at: Timestamp) -> Timestamp {
    again_at(trustpoint.id, trustpoint.failures, failed_at, certificate.map(|facts| facts.not_after))
}

/// When to try again after so many failures, for a certificate that ends at `ends_at`, where there is one.
pub(crate) fn again_at(
    trustpoint: TrustpointId,
    failures: u32,
    failed_at: Timestamp,
    ends_at: Option<Timestamp>,
) -> Timestamp {
    let doublings = failures.saturating_sub(1).min(16);
    let by_count = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MOST);
    let left = ends_at.map(|ends_at| ends_at.duration_since(failed_at).max(SignedDuration::ZERO));
    let wait = by_count.min(left.map_or(RETRY_MOST, |left| left / 10)).max(RETRY_LEAST);
    // Up to a quarter more, so that those that failed together do not come again together.
    plus(failed_at, wait + wait.mul_f64(fraction(trustpoint, &failures.to_string()) / 4.0))
}

fn validity(certificate: &CertificateFacts) -> SignedDuration {
    certificate.not_after.duration_since(certificate.not_before).max(SignedDuration::ZERO)
}

fn part(certificate: &CertificateFacts, of: f64) -> Timestamp {
    plus(certificate.not_before, validity(certificate).mul_f64(of))
}

pub(crate) fn plus(moment: Timestamp, more: SignedDuration) -> Timestamp {
    moment.checked_add(more).unwrap_or(Timestamp::MAX)
}

fn minus(moment: Timestamp, less: SignedDuration) -> Timestamp {
    moment.checked_sub(less).unwrap_or(Timestamp::MIN)
}

/// An even number from 0 up to 1 made of an id and a text (FNV-1a over both): nothing secret depends on it.
pub(crate) fn fraction(trustpoint: TrustpointId, text: &str) -> f64 {
    let id = trustpoint.as_uuid();
    let bytes = id.as_bytes().iter().chain(text.as_bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    // The lowest bits of this hash are its worst.
    f64::from(hash ^ hash.rotate_left(16)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trustpoint::tests::trustpoint;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// Valid for 1000 seconds.
    fn certificate() -> CertificateFacts {
        CertificateFacts {
            id: uuid::Uuid::from_u128(9).into(),
            serial: "0A".to_owned(),
            subject: "CN=ap-1".to_owned(),
            issuer: "CN=CA".to_owned(),
            not_before: at(0),
            not_after: at(1_000),
            sha256: "00".repeat(32),
            public_key_sha256: "11".repeat(32),
            file: None,
            revocation: None,
        }
    }

    fn on(json: &str) -> AutoUpdate {
        AutoUpdate { enabled: true, ..serde_json::from_str(json).unwrap() }
    }

    fn policy(auto_update: &AutoUpdate) -> PolicySpec {
        let policy = serde_json::from_str(r#"{"key":{"algorithm":"ed25519"}}"#).unwrap();
        PolicySpec { auto_update: auto_update.clone(), ..policy }
    }

    fn next_action(trustpoint: &Trustpoint, auto: &AutoUpdate, now: Timestamp) -> Option<(Timestamp, Due)> {
        super::next_action(trustpoint, &policy(auto), Duty::Alone, None, now)
    }

    fn fields(json: &str) -> Vec<String> {
        let mut violations = Violations::new();
        on(json).check(&mut violations);
        violations.into_vec().into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn s41_automatic_update_is_disabled_unless_it_is_switched_on_and_can_be_undone() {
        let mut enrolled = Trustpoint { active: Some(certificate()), ..trustpoint() };
        assert_eq!(next_action(&enrolled, &AutoUpdate::default(), at(0)), None);
        assert!(next_action(&enrolled, &on("{}"), at(0)).is_some());
        enrolled.auto_update = Some(false);
        assert_eq!(next_action(&enrolled, &on("{}"), at(0)), None);
        enrolled.auto_update = Some(true);
        assert!(next_action(&enrolled, &AutoUpdate::default(), at(0)).is_some());
    }

    #[test]
    fn s43_the_window_begins_at_half_the_validity_or_where_the_policy_says() {
        let window = |json: &str| on(json).window(&certificate());
        assert_eq!(window("{}"), (at(500), at(800)));
        assert_eq!(window(r#"{"elapsed_percent":70,"latest_percent":70}"#), (at(700), at(700)));
        // Shorter than the days before its end: not renewed again at once.
        assert_eq!(window(r#"{"days_before_expiry":14}"#), (at(100), at(800)));
        let year = CertificateFacts { not_after: at(365 * 86_400), ..certificate() };
        let begin = on(r#"{"days_before_expiry":14,"latest_percent":99}"#).window(&year).0;
        assert_eq!(begin, at(351 * 86_400));
    }

    #[test]
    fn s43_every_limit_of_the_moment_has_its_refusal() {
        assert!(fields("{}").is_empty() && fields(r#"{"days_before_expiry":60,"latest_percent":40}"#).is_empty());
        for (json, field) in [
            (r#"{"elapsed_percent":0}"#, "auto_update.elapsed_percent"),
            (r#"{"elapsed_percent":96,"latest_percent":97}"#, "auto_update.elapsed_percent"),
            (r#"{"days_before_expiry":0}"#, "auto_update.days_before_expiry"),
            (r#"{"days_before_expiry":366}"#, "auto_update.days_before_expiry"),
            (r#"{"elapsed_percent":50,"days_before_expiry":14}"#, "auto_update.days_before_expiry"),
            (r#"{"latest_percent":49}"#, "auto_update.latest_percent"),
            (r#"{"latest_percent":100}"#, "auto_update.latest_percent"),
            (r#"{"emergency_percent":79}"#, "auto_update.emergency_percent"),
            (r#"{"emergency_percent":100}"#, "auto_update.emergency_percent"),
            (r#"{"lease_s":9}"#, "auto_update.lease_s"),
            (r#"{"lease_s":31622401}"#, "auto_update.lease_s"),
        ] {
            assert_eq!(fields(json), [field], "{json}");
        }
    }

    #[test]
    fn the_emergency_mark_lies_between_the_safe_window_and_the_end() {
        for (json, percent) in [
            ("{}", 90),
            (r#"{"latest_percent":99}"#, 99),
            (r#"{"elapsed_percent":1,"latest_percent":5}"#, 53),
            (r#"{"emergency_percent":80}"#, 80),
        ] {
            assert!(fields(json).is_empty() && on(json).emergency() == percent, "{json}: {}", on(json).emergency());
        }
        assert!(fields(r#"{"lease_s":0}"#).is_empty());
        let stored = serde_json::to_string(&AutoUpdate::default()).unwrap();
        assert!(!stored.contains("lease") && !stored.contains("emergency"), "an older replica reads it: {stored}");
    }

    #[test]
    fn a_fleet_that_was_enrolled_together_is_not_renewed_together() {
        let mut moments: Vec<Timestamp> = (0..1_000_u128)
            .map(|n| on("{}").moment(&certificate(), uuid::Uuid::from_u128(n << 64 | n).into()))
            .collect();
        moments.sort();
        assert!(moments[0] >= at(500) && moments[999] <= at(800));
        for tenth in 1..10 {
            let expected = at(500 + 30 * tenth);
            let found = moments[usize::try_from(tenth).unwrap() * 100];
            assert!(
                found.duration_since(expected).abs() < SignedDuration::from_secs(20),
                "{found} is not near {expected}"
            );
        }
    }

    #[test]
    fn what_failed_is_tried_again_later_each_time_and_sooner_near_the_end() {
        let failed = |failures, failed_at| {
            let trustpoint = Trustpoint {
                active: Some(CertificateFacts { not_after: at(100 * 86_400), ..certificate() }),
                failures,
                last_failed_at: Some(at(failed_at)),
                ..trustpoint()
            };
            let (moment, due) = next_action(&trustpoint, &on("{}"), at(failed_at)).unwrap();
            assert_eq!(due, Due::Renew);
            moment.duration_since(at(failed_at)).as_secs()
        };
        let near_half = 81 * 86_400;
        for (failures, least, most) in [(1, 300, 375), (2, 600, 750), (4, 2_400, 3_000), (40, 86_400, 108_000)] {
            let wait = failed(failures, near_half);
            assert!((least..=most).contains(&wait), "after {failures} failures: {wait} s");
        }
        assert!(failed(40, 100 * 86_400 - 1_000) <= 125, "a tenth of what is left");
        assert!(failed(1, 100 * 86_400 - 1) >= 10);
    }

    #[test]
    fn nothing_is_due_while_something_is_under_way_or_waits_for_an_operator_or_has_expired() {
        let active = Trustpoint { active: Some(certificate()), ..trustpoint() };
        let job_id = uuid::Uuid::from_u128(5).into();
        let requesting = Trustpoint { request: RequestState::Agent { job_id }, ..active.clone() };
        let waiting = Trustpoint { staged: Some(certificate()), ..active.clone() };
        assert_eq!(next_action(&requesting, &on("{}"), at(900)), None);
        assert_eq!(next_action(&waiting, &on("{}"), at(900)), None);
        assert_eq!(next_action(&active, &on("{}"), at(1_000)), None);
        let failed = Trustpoint { activates_by_itself: true, last_failed_at: Some(at(600)), failures: 1, ..waiting };
        assert_eq!(next_action(&failed, &on("{}"), at(900)).unwrap().1, Due::Activate);
    }

    #[test]
    fn a_first_certificate_is_asked_for_by_itself_when_it_is_wanted_and_the_credentials_are_there() {
        let next = |trustpoint: &Trustpoint| next_action(trustpoint, &AutoUpdate::default(), at(0));
        let mut bound = Trustpoint { enrolls_by_itself: true, ..trustpoint() };
        assert_eq!(next(&bound), None, "no secret yet");
        bound.mac_secret_id = Some(uuid::Uuid::from_u128(8).into());
        assert_eq!(next(&bound), Some((at(0), Due::Enroll)));
        (bound.failures, bound.last_failed_at) = (1, Some(at(0)));
        assert!(next(&bound).unwrap().0 >= at(300), "not at once again");
        bound.enrolls_by_itself = false;
        assert_eq!(next(&bound), None);
    }

    #[test]
    fn s47_the_standby_never_applies_and_the_active_node_does_when_it_has_no_valid_certificate() {
        let of = |trustpoint: &Trustpoint, duty, second| {
            super::next_action(trustpoint, &policy(&on("{}")), duty, None, at(second)).map(|(_, due)| due)
        };
        let secret = Some(uuid::Uuid::from_u128(8).into());
        let bare = Trustpoint { mac_secret_id: secret, ..trustpoint() };
        let enrolled = Trustpoint { active: Some(certificate()), ..bare.clone() };
        for trustpoint in [&bare, &enrolled] {
            assert_eq!(of(trustpoint, Duty::Standby, 900), None);
        }
        assert_eq!((of(&bare, Duty::Active, 0), of(&bare, Duty::Alone, 0)), (Some(Due::Enroll), None));
        assert_eq!(of(&enrolled, Duty::Active, 900), Some(Due::Renew));
        assert_eq!((of(&enrolled, Duty::Active, 1_000), of(&enrolled, Duty::Alone, 1_000)), (Some(Due::Enroll), None));
    }

    #[test]
    fn an_identity_of_the_device_is_as_good_as_a_secret() {
        let bound = Trustpoint { enrolls_by_itself: true, ..trustpoint() };
        let text = r#"{"key":{"algorithm":"ed25519"},"origin_authentication":"signature"}"#;
        let signed: PolicySpec = serde_json::from_str(text).unwrap();
        assert_eq!(super::next_action(&bound, &signed, Duty::Alone, None, at(0)), Some((at(0), Due::Enroll)));
    }

    #[test]
    fn a_ca_that_dates_back_is_not_asked_again_and_again() {
        let trustpoint = Trustpoint { active: Some(certificate()), issued_at: Some(at(790)), ..trustpoint() };
        assert_eq!(next_action(&trustpoint, &on("{}"), at(790)).unwrap().0, at(840));
    }
}
