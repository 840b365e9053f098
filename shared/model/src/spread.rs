//! Coming renewals beside a CA's budget: how many fall into each hour, and how they are spread when there are too many.
//!
//! Pure. A renewal is moved only inside the safe window of its own certificate; what fits nowhere is told and stays.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The length of a bin: an hour.
pub const BIN: SignedDuration = SignedDuration::from_hours(1);

/// A moment that was found for a renewal over the policy's, for one certificate alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// When.
    pub at: Timestamp,
    /// Serial number of the certificate, upper-case hex.
    pub serial: String,
}

/// A renewal that is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned<I> {
    /// What identifies it.
    pub id: I,
    /// When it is planned.
    pub at: Timestamp,
    /// Its safe window.
    pub window: (Timestamp, Timestamp),
}

/// What spreading found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<I> {
    /// Renewals with their new moments.
    pub moved: Vec<(I, Timestamp)>,
    /// Renewals in hours that stay too full: there is no room in their windows.
    pub unfit: Vec<I>,
}

/// Begin of the bin that a moment is in.
pub fn bin(at: Timestamp) -> Timestamp {
    let seconds = at.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(BIN.as_secs())).unwrap_or(at)
}

/// Moves renewals out of bins that hold more than `capacity`, each to the nearest bin in its own window that has room, not
/// before `now`. `counts`: all renewals by the begin of their bin; `planned`: those of the bins that are too full, or more.
/// Those with the widest windows go first, because the others can go nowhere else; a moment keeps its place within the hour.
pub fn respread<I: Clone + Ord>(
    mut counts: BTreeMap<Timestamp, u64>,
    mut planned: Vec<Planned<I>>,
    capacity: u64,
    now: Timestamp,
) -> Found<I> {
    let width = |item: &Planned<I>| item.window.1.duration_since(item.window.0);
    planned.sort_by(|a, b| width(b).cmp(&width(a)).then_with(|| a.id.cmp(&b.id)));
    let (mut moved, mut unfit) = (Vec::new(), Vec::new());
    for item in planned {
        let from = bin(item.at);
        if counts.get(&from).copied().unwrap_or(0) <= capacity {
            continue;
        }
        match nearest(&counts, &item, capacity, now) {
            Some((to, at)) => {
                *counts.entry(to).or_default() += 1;
                if let Some(count) = counts.get_mut(&from) {
                    *count -= 1;
                }
                moved.push((item.id, at));
            }
            None => unfit.push(item.id),
        }
    }
    Found { moved, unfit }
}

/// The nearest bin with room that the window reaches, and the moment in it.
fn nearest<I>(
    counts: &BTreeMap<Timestamp, u64>,
    item: &Planned<I>,
    capacity: u64,
    now: Timestamp,
) -> Option<(Timestamp, Timestamp)> {
    let (begin, end) = (item.window.0.max(now), item.window.1);
    let fits = |steps: i64| {
        let at = item.at.checked_add(SignedDuration::from_secs(steps * BIN.as_secs())).ok()?;
        // At the edge of the window the bin may reach further than the moment's place in it.
        let at = at.clamp(begin, end.max(begin));
        let to = bin(at);
        let has_room = counts.get(&to).copied().unwrap_or(0) < capacity;
        (to != bin(item.at) && at <= end && has_room).then_some((to, at))
    };
    let reach = |edge: Timestamp| item.at.duration_since(edge).abs().as_secs() / BIN.as_secs() + 1;
    let most = reach(begin).max(reach(end));
    (1..=most).find_map(|steps| fits(steps).or_else(|| fits(-steps)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).map(bin).unwrap() + SignedDuration::from_mins(minutes)
    }

    fn counts(planned: &[Planned<u32>]) -> BTreeMap<Timestamp, u64> {
        let mut counts = BTreeMap::new();
        for item in planned {
            *counts.entry(bin(item.at)).or_default() += 1;
        }
        counts
    }

    fn planned(id: u32, minute: i64, window: (i64, i64)) -> Planned<u32> {
        Planned { id, at: at(minute), window: (at(window.0), at(window.1)) }
    }

    /// The fullest bin when everything has moved.
    fn peak(mut items: Vec<Planned<u32>>, found: &Found<u32>) -> u64 {
        for (id, to) in &found.moved {
            let item = items.iter_mut().find(|item| item.id == *id).unwrap();
            assert!(item.window.0 <= *to && *to <= item.window.1, "outside of its window: {item:?} {to}");
            item.at = *to;
        }
        counts(&items).into_values().max().unwrap()
    }

    #[test]
    fn renewals_that_come_together_are_spread_over_their_windows_until_no_hour_is_too_full() {
        let items: Vec<_> = (0..1_000).map(|id| planned(id, 600 + i64::from(id % 60), (0, 6_000))).collect();
        let found = respread(counts(&items), items.clone(), 20, at(0));
        assert!(found.unfit.is_empty());
        assert_eq!(found.moved.len(), 980, "no more are moved than must be");
        assert!(peak(items, &found) <= 20);
    }

    #[test]
    fn those_with_narrow_windows_keep_their_hour_and_what_fits_nowhere_is_told_and_stays() {
        let narrow = (0..10).map(|id| planned(id, 30, (0, 59)));
        let items: Vec<_> = narrow.chain((10..20).map(|id| planned(id, 30, (0, 119)))).collect();
        let found = respread(counts(&items), items.clone(), 8, at(0));
        assert_eq!(found.moved.len(), 8, "the next hour takes eight");
        assert!(found.moved.iter().all(|(id, _)| *id >= 10), "{found:?}");
        assert_eq!(found.unfit.len(), 12, "everything that was looked at and found no room: {found:?}");
        assert_eq!(peak(items, &found), 12);
    }

    #[test]
    fn nothing_is_moved_into_the_past_nor_where_there_is_room() {
        let items: Vec<_> = (0..4).map(|id| planned(id, 65, (0, 179))).collect();
        let found = respread(counts(&items), items.clone(), 2, at(62));
        assert!(found.moved.iter().all(|(_, to)| *to >= at(62)), "{found:?}");
        assert_eq!((found.moved.len(), peak(items.clone(), &found)), (2, 2));
        assert_eq!(respread(counts(&items), items, 4, at(0)), Found { moved: Vec::new(), unfit: Vec::new() });
    }

    #[test]
    fn the_same_renewals_are_always_spread_alike() {
        let items: Vec<_> = (0..100).map(|id| planned(id, 10, (0, 600))).collect();
        let mut backwards = items.clone();
        backwards.reverse();
        let first = respread(counts(&items), items, 10, at(0));
        assert_eq!(first, respread(counts(&backwards), backwards, 10, at(0)));
    }
}
