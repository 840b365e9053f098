//! The line of jobs that wait for a place among the exchanges: an id each, whatever stands in their records.

use std::collections::BTreeMap;

use jiff::Timestamp;
use trustfleet_model::ids::JobId;

/// The line. It is searched, not sorted: ten thousand jobs take some microseconds.
#[derive(Debug, Default)]
pub struct Queue {
    jobs: BTreeMap<JobId, Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    sequence: u64,
    start_before: Timestamp,
}

impl Queue {
    /// Puts a job into line, or changes what is known of it.
    pub fn add(&mut self, job: JobId, sequence: u64, start_before: Timestamp) {
        self.jobs.insert(job, Waiting { sequence, start_before });
    }

    /// Whether a job is in line.
    pub fn has(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// Takes a job out of line, if it is there.
    pub fn remove(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Takes out whose turn it is: the one with the smallest sequence.
    pub fn take_first(&mut self) -> Option<JobId> {
        let (job, _) = self.jobs.iter().min_by_key(|(job, waiting)| (waiting.sequence, **job))?;
        let job = *job;
        self.jobs.remove(&job);
        Some(job)
    }

    /// When the first permit runs out.
    pub fn first_end(&self) -> Option<Timestamp> {
        self.jobs.values().map(|waiting| waiting.start_before).min()
    }

    /// Takes out all whose permit has run out: they need no place to be returned.
    pub fn ended(&mut self, now: Timestamp) -> Vec<JobId> {
        self.jobs.extract_if(.., |_, waiting| waiting.start_before <= now).map(|(job, _)| job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn job(n: u128) -> JobId {
        uuid::Uuid::from_u128(n).into()
    }

    #[test]
    fn jobs_get_their_turn_in_the_order_of_their_publication() {
        let mut queue = Queue::default();
        for (n, sequence) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            queue.add(job(n), sequence, at(100));
        }
        queue.add(job(2), 40, at(200));
        let turns: Vec<_> = std::iter::from_fn(|| queue.take_first()).collect();
        assert_eq!(turns, [job(4), job(3), job(1), job(2)], "a renewed one goes by its new sequence");
        assert!(queue.is_empty());
    }

    #[test]
    fn a_permit_that_runs_out_in_line_is_noticed_at_its_time() {
        let mut queue = Queue::default();
        assert_eq!(queue.first_end(), None);
        queue.add(job(1), 1, at(100));
        queue.add(job(2), 2, at(50));
        assert_eq!(queue.first_end(), Some(at(50)));
        assert!(queue.ended(at(49)).is_empty());
        assert_eq!(queue.ended(at(50)), [job(2)]);
        assert!(queue.has(job(1)) && !queue.has(job(2)));
        queue.add(job(1), 3, at(500));
        assert!(queue.ended(at(100)).is_empty(), "its permit was lengthened");
    }
}
