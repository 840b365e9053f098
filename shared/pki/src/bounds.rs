//! What a message or a certificate may cost before anything is decoded: a walk over the tags and lengths only.
//!
//! The typed decoders believe lengths (they make room for what is promised before they see that it is not there) and
//! recurse; this walk refuses first what is too long, too deep, or claims more than is there. It never allocates and
//! never recurses.

use thiserror::Error;

/// Longest message that is looked at, in bytes. Real answers with chains stay below 20 KiB; those with post-quantum
/// certificates below 100 KiB.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// Deepest nesting of constructed values. Real messages stay below 20, nested messages included.
pub const MAX_DEPTH: usize = 48;
/// Most values (tags) in one message.
pub const MAX_VALUES: usize = 50_000;
/// Most members of one SET (an RDN, the recipients of an envelope): decoders sort them in quadratic time.
pub const MAX_SET: usize = 64;
/// Most certificates in extraCerts, and as many again in caPubs.
pub const MAX_CERTIFICATES: usize = 64;
/// How many `nested` messages may be inside each other (RFC 9810 section 5.1.3.4: an RA's, around another RA's).
pub const MAX_NESTED: usize = 3;

/// A message that is refused by its outer shape alone.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BoundsError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("message of {got} bytes: at most {MAX_MESSAGE} are looked at")]
    TooLong {
        /// Length in bytes.
        got: usize,
    },
    /// Constructed values deeper than [`MAX_DEPTH`].
    #[error("values are nested deeper than {MAX_DEPTH} at byte {at}")]
    TooDeep {
        /// Offset in bytes.
        at: usize,
    },
    /// More than [`MAX_VALUES`] values.
    #[error("more than {MAX_VALUES} values")]
    TooMany,
    /// A SET of more than [`MAX_SET`] members.
    #[error("a set of more than {MAX_SET} members ends after byte {at}")]
    LargeSet {
        /// Offset in bytes of the first member too many.
        at: usize,
    },
    /// A length that reaches beyond its surroundings, an indefinite length, or a cut tag.
    #[error("broken tag or length at byte {at}")]
    Broken {
        /// Offset in bytes.
        at: usize,
    },
    /// Bytes after the message.
    #[error("{count} bytes after the message")]
    Trailing {
        /// How many.
        count: usize,
    },
}

const SET: u8 = 0x31;

/// Walks over one DER value and refuses what the decoders should not be given.
///
/// # Errors
/// The first bound that is broken.
pub fn check(der: &[u8]) -> Result<(), BoundsError> {
    if der.len() > MAX_MESSAGE {
        return Err(BoundsError::TooLong { got: der.len() });
    }
    let mut ends = [0_usize; MAX_DEPTH];
    let mut room = [usize::MAX; MAX_DEPTH]; // members that may still come
    let mut depth = 0;
    let mut at = 0;
    let mut values = 0;
    loop {
        while depth > 0 && ends.get(depth - 1) == Some(&at) {
            depth -= 1;
        }
        if depth == 0 && values > 0 {
            break;
        }
        values += 1;
        if values > MAX_VALUES {
            return Err(BoundsError::TooMany);
        }
        if let Some(room) = depth.checked_sub(1).and_then(|around| room.get_mut(around)) {
            *room = room.checked_sub(1).ok_or(BoundsError::LargeSet { at })?;
        }
        let limit = if depth == 0 { der.len() } else { ends.get(depth - 1).copied().unwrap_or(0) };
        let (constructed, content, length) = header(der, at).ok_or(BoundsError::Broken { at })?;
        let end = content.checked_add(length).filter(|end| *end <= limit).ok_or(BoundsError::Broken { at })?;
        if constructed {
            let slot = ends.get_mut(depth).ok_or(BoundsError::TooDeep { at })?;
            *slot = end;
            if let Some(room) = room.get_mut(depth) {
                *room = if der.get(at) == Some(&SET) { MAX_SET } else { usize::MAX };
            }
            depth += 1;
            at = content;
        } else {
            at = end;
        }
    }
    if at < der.len() {
        return Err(BoundsError::Trailing { count: der.len() - at });
    }
    Ok(())
}

/// (constructed, offset of the content, length of the content)
fn header(der: &[u8], at: usize) -> Option<(bool, usize, usize)> {
    let tag = *der.get(at)?;
    if tag & 0x1f == 0x1f {
        return None; // high tag numbers occur nowhere in CMP
    }
    let constructed = tag & 0x20 != 0;
    let first = *der.get(at + 1)?;
    if first < 0x80 {
        return Some((constructed, at + 2, usize::from(first)));
    }
    let octets = usize::from(first & 0x7f);
    if octets == 0 || octets > 4 {
        return None;
    }
    let length = der.get(at + 2..at + 2 + octets)?.iter().fold(0_usize, |sum, octet| (sum << 8) | usize::from(*octet));
    Some((constructed, at + 2 + octets, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_inside_its_bounds_passes() {
        assert_eq!(check(&[0x30, 0x03, 0x02, 0x01, 0x05]), Ok(()));
        assert_eq!(check(&[0x30, 0x00]), Ok(()));
    }

    #[test]
    fn lengths_that_reach_too_far_are_refused() {
        assert_eq!(check(&[0x30, 0x03, 0x02, 0x04, 0x05]), Err(BoundsError::Broken { at: 2 }));
        assert_eq!(check(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Err(BoundsError::Broken { at: 0 }));
        assert_eq!(check(&[0x30, 0x80, 0x00, 0x00]), Err(BoundsError::Broken { at: 0 }));
        assert_eq!(check(&[]), Err(BoundsError::Broken { at: 0 }));
    }

    #[test]
    fn what_follows_the_message_is_refused() {
        assert_eq!(check(&[0x05, 0x00, 0x00]), Err(BoundsError::Trailing { count: 1 }));
    }

    #[test]
    fn a_set_that_would_take_long_to_sort_is_refused() {
        let set = |members: usize| {
            let content = [0x05, 0x00].repeat(members);
            [&[0x31, 0x81, content.len() as u8][..], &content].concat()
        };
        assert_eq!(check(&set(MAX_SET)), Ok(()));
        assert_eq!(check(&set(MAX_SET + 1)), Err(BoundsError::LargeSet { at: 3 + 2 * MAX_SET }));
        // each of several sets counts for itself, and a sequence may be long
        let two = [set(MAX_SET - 1), set(MAX_SET)].concat();
        assert_eq!(check(&[&[0x30, 0x82, 1, 4][..], &two].concat()), Ok(()));
        assert_eq!(check(&[&[0x30, 0x82, 0, 200][..], &[0x05, 0x00].repeat(100)].concat()), Ok(()));
    }

    #[test]
    fn a_tower_of_sequences_is_refused_without_recursion() {
        let mut der = Vec::new();
        for _ in 0..10_000 {
            der = [&[0x30, 0x83][..], &(der.len() as u32).to_be_bytes()[1..], &der].concat();
        }
        assert!(matches!(check(&der), Err(BoundsError::TooDeep { .. })));
    }
}
