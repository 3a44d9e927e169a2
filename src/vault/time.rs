//! Times as clients read them: whole seconds, or the Python SDK fails.

use crate::clock;
use jiff::{SignedDuration, Timestamp};

/// How long a softly deleted thing can be restored.
pub const SHELF_LIFE: SignedDuration = SignedDuration::from_hours(72);

/// Now, in whole seconds.
pub fn now() -> Timestamp {
    whole(clock::now())
}

/// Without its fraction.
pub fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// As `2019-09-20T16:12:57Z`.
pub fn text(time: Timestamp) -> String {
    whole(time).to_string()
}

/// Whether something that was softly deleted then is gone for good.
pub fn is_over(deleted: Timestamp) -> bool {
    clock::now().duration_since(deleted) >= SHELF_LIFE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_no_fraction() {
        let time: Timestamp = "2019-09-20T16:12:57.123456789Z".parse().unwrap();
        assert_eq!(text(time), "2019-09-20T16:12:57Z");
    }
}
