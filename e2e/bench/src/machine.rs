//! What the kernel says of a process: memory and processor time, by proc(5).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel counts processor time in hundredths of a second on every Linux that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// Memory that the process holds now, in MiB.
pub fn memory_mib(pid: i32) -> Result<f64> {
    mib(pid, "VmRSS:")
}

/// The most that it ever held, in MiB.
pub fn most_memory_mib(pid: i32) -> Result<f64> {
    mib(pid, "VmHWM:")
}

fn mib(pid: i32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    kib(&status, field)
        .map(|kib| kib / 1024.0)
        .context("the kernel does not say how much memory the process has")
}

fn kib(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time that the process has used so far.
pub fn processor_time(pid: i32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&stat)
        .map(|ticks| TICK * ticks)
        .context("the kernel does not say how much time the process has used")
}

/// User and system time. The name, which may have spaces in it, ends with the last parenthesis.
fn ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let stat = "4242 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 8 0 100 1000 200";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(kib("VmPeak:\t 900 kB\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048.0));
        assert_eq!(kib("nothing", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(memory_mib(pid).unwrap() > 0.5);
        assert!(most_memory_mib(pid).unwrap() > 0.5);
        assert!(processor_time(pid).is_ok());
    }
}
