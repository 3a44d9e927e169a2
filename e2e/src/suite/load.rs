//! How much the machine can still carry, from what the kernel says. Which programs run is not decided here.

use std::fs;
use std::time::{Duration, Instant};

/// A program that starts keeps all processors busy for a while, so the next one is not judged by the time before.
const WINDOW: Duration = Duration::from_secs(3);
/// With less than this share of the processors' time idle, one more program makes all of them slow instead of the whole fast.
const SPARE: f64 = 0.15;
/// What a scenario program uses at most: a control plane, a few database servers, and itself.
const MEMORY_OF_ONE: u64 = 2 << 30;

/// Time of all processors since the machine started, in ticks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    idle: u64,
    all: u64,
}

/// Watches the processors' idle time since the last start.
pub struct Load {
    since: Instant,
    before: Option<Ticks>,
}

impl Load {
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            before: now(),
        }
    }

    /// Whether there was room for one more program in the last few seconds. Where the kernel does not tell: never.
    pub fn has_room(&mut self) -> bool {
        if self.since.elapsed() < WINDOW {
            return false;
        }
        let (before, now) = (self.before, now());
        (self.since, self.before) = (Instant::now(), now);
        before.zip(now).is_some_and(|(before, now)| idle(before, now) >= SPARE)
    }

    /// Something was started: what was measured so far says nothing any more.
    pub fn begin_anew(&mut self) {
        *self = Self::new();
    }
}

fn idle(before: Ticks, now: Ticks) -> f64 {
    let all = now.all.saturating_sub(before.all).max(1);
    let share = |ticks: u64| f64::from(u32::try_from(ticks).unwrap_or(u32::MAX));
    share(now.idle.saturating_sub(before.idle)) / share(all)
}

fn now() -> Option<Ticks> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of proc(5) `stat`: user, nice, system, idle, iowait, irq, softirq, steal. Who waits for a disk is busy.
fn parse(stat: &str) -> Option<Ticks> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    Some(Ticks {
        idle: *ticks.get(3)?,
        all: ticks.iter().take(8).sum(),
    })
}

/// How many programs the memory has room for; as many as anybody wants where the kernel does not tell.
pub fn memory_for() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(usize::MAX, |kib| {
        usize::try_from((kib << 10) / MEMORY_OF_ONE).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn waiting_for_a_disk_is_no_room() {
        let before = parse("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3 4").unwrap();
        assert_eq!(before, Ticks { idle: 800, all: 1000 });
        let after = parse("cpu  150 0 50 820 80 0 0 0 0 0").unwrap();
        assert!((idle(before, after) - 0.2).abs() < 1e-9, "20 of 100 ticks");
        assert_eq!(parse("intr 1 2 3"), None);
    }

    #[test]
    fn a_program_that_just_started_leaves_no_room() {
        assert!(!Load::new().has_room());
    }
}
