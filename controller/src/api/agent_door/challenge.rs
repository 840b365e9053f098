//! What an agent signs to open a session: made by any replica, good at every other for a minute, and nowhere stored.
//!
//! It begins with the time, so that of two challenges the later is the greater: a session takes only a greater one than
//! all before, and none opens two.

use jiff::{SignedDuration, Timestamp};
use trustfleet_wire::sign::{Purpose, SigningKey, verify};

/// How long a challenge is good.
const CHALLENGE_VALID: SignedDuration = SignedDuration::from_secs(60);
/// How far another replica's clock may be ahead.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(5);
/// Microseconds since 1970 (8 bytes) and randomness (16 bytes); the signature follows.
const CHALLENGE_LEN: usize = 24;

/// A challenge made at `now`.
pub(super) fn make_challenge(now: Timestamp, random: [u8; 16], key: &SigningKey) -> Vec<u8> {
    let mut challenge = now.as_microsecond().to_be_bytes().to_vec();
    challenge.extend_from_slice(&random);
    let signature = key.sign(Purpose::Challenge, &challenge);
    challenge.extend_from_slice(&signature);
    challenge
}

/// What makes a challenge different from all others, and greater than older ones; none: it is none of ours, or not good at
/// `now`.
pub(super) fn check_challenge<'a>(challenge: &'a [u8], now: Timestamp, key: &SigningKey) -> Option<&'a [u8]> {
    let (made, signature) = challenge.split_at_checked(CHALLENGE_LEN)?;
    verify(&key.public_key(), Purpose::Challenge, made, signature).ok()?;
    let micros = made.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes))?;
    let age = now.duration_since(Timestamp::from_microsecond(micros).ok()?);
    if age >= CHALLENGE_VALID || age < -CLOCK_SKEW { None } else { Some(made) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_good_for_a_minute_and_only_as_the_controller_made_it() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let made = make_challenge(now, [7; 16], &key);
        assert_eq!(check_challenge(&made, now + SignedDuration::from_secs(59), &key), Some(&made[..CHALLENGE_LEN]));
        assert_eq!(check_challenge(&made, now + SignedDuration::from_secs(60), &key), None);
        assert_eq!(check_challenge(&made, now - SignedDuration::from_secs(6), &key), None);
        assert_eq!(check_challenge(&made, now, &other), None);
        let mut changed = made;
        changed[7] ^= 1;
        assert_eq!(check_challenge(&changed, now, &key), None);
        assert_eq!(check_challenge(b"short", now, &key), None);
    }

    #[test]
    fn a_later_challenge_is_the_greater_one() {
        let key = SigningKey::generate().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let (early, late) =
            (make_challenge(now, [255; 16], &key), make_challenge(now + SignedDuration::from_micros(1), [0; 16], &key));
        assert!(check_challenge(&early, now, &key) < check_challenge(&late, now, &key));
    }
}
