//! When to try again: computed from what the status says, so that a restart neither forgets nor hurries.

use jiff::{SignedDuration, Timestamp};

/// First pause in seconds.
const FIRST: i64 = 1;
/// Longest pause in seconds: what is out of order is looked at every five minutes at least.
const LONGEST: i64 = 300;

/// Pause after the given number of failures in a row; none after none. Doubles up to five minutes.
pub fn pause(failures: i64) -> SignedDuration {
    if failures <= 0 {
        return SignedDuration::ZERO;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(16);
    SignedDuration::from_secs((FIRST << doublings).min(LONGEST))
}

/// The time of the next attempt, spread by up to a quarter of the pause by a hash of the object's UID: reproducible, and
/// objects that failed together do not come back together.
pub fn next_attempt(failures: i64, last_failure: Timestamp, uid: &str) -> Timestamp {
    let pause = pause(failures);
    last_failure
        .saturating_add(pause + share(pause / 4, uid))
        .unwrap_or(Timestamp::MAX)
}

/// A share of `most`, fixed by the UID.
pub fn share(most: SignedDuration, uid: &str) -> SignedDuration {
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let permille = i32::try_from(hash >> 32 & 0x3ff).unwrap_or(0);
    most / 1024 * permille
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stop_growing() {
        let seconds: Vec<i64> = (0..12).map(|n| pause(n).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(i64::MAX).as_secs(), LONGEST);
    }

    #[test]
    fn the_spread_is_reproducible_and_bounded() {
        let last = Timestamp::UNIX_EPOCH;
        let at = |uid: &str| next_attempt(4, last, uid);
        assert_eq!(at("a"), at("a"));
        assert_ne!(at("a"), at("b"));
        for uid in ["a", "b", "c", "d"] {
            let seconds = at(uid).as_millisecond();
            assert!((8_000..=10_000).contains(&seconds), "{seconds}");
        }
    }
}
