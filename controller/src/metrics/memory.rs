//! What a device in memory costs: resident memory that came since the process had almost none, for each device actor.
//!
//! Allocators keep what actors leave, and a process has other things to remember: the figure is good where actors are many, and
//! is not given where they are few.

use std::fs;

/// Fewer actors than that tell nothing: other things weigh more.
const MANY: usize = 1_000;

/// The least that the process was seen to have with few actors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ActorMemory {
    without_bytes: Option<u64>,
}

impl ActorMemory {
    /// Bytes for each of `actors`, with `resident_bytes` of the whole process; 0 while they are few.
    pub(super) fn of_each(&mut self, actors: usize, resident_bytes: u64) -> u64 {
        if actors < MANY {
            self.without_bytes = Some(self.without_bytes.map_or(resident_bytes, |least| least.min(resident_bytes)));
            return 0;
        }
        let came = self.without_bytes.map_or(0, |least| resident_bytes.saturating_sub(least));
        came / u64::try_from(actors).unwrap_or(u64::MAX)
    }
}

/// Resident memory of this process; nothing where the system does not say it as Linux does.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_costs_what_came_since_there_was_none() {
        let mut memory = ActorMemory::default();
        assert_eq!(memory.of_each(0, 40_000_000), 0);
        assert_eq!(memory.of_each(999, 50_000_000), 0, "few tell nothing");
        assert_eq!(memory.of_each(100_000, 1_040_000_000), 10_000);
        assert_eq!(memory.of_each(10, 300_000_000), 0, "what the allocator keeps is no new beginning");
        assert_eq!(memory.of_each(100_000, 1_040_000_000), 10_000);
        assert_eq!(memory.of_each(1_000, 30_000_000), 0, "less than there was");
        assert_eq!(ActorMemory::default().of_each(5_000, 90_000_000), 0, "nobody knows what it began with");
    }

    #[test]
    fn the_process_has_some_memory() {
        let bytes = resident_bytes().unwrap();
        assert!((1_000_000..64_000_000_000).contains(&bytes), "{bytes}");
    }
}
