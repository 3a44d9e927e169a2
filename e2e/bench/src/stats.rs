//! What is said of many measured values. No clock: whoever measures hands the values in.

use std::time::Duration;

/// The value that `percent` of all values do not exceed; zero where there is none.
pub fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// The middle one; of an even number the mean of the two in the middle. NaN where there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 {
        return upper;
    }
    let lower = middle.checked_sub(1).and_then(|at| sorted.get(at));
    lower.map_or(upper, |lower| f64::midpoint(*lower, upper))
}

/// In milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// So many in that time, a second.
pub fn rate(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values, 100), Duration::from_millis(200));
        assert_eq!(percentile(&[Duration::from_millis(7)], 1), Duration::from_millis(7));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn one_slow_repeat_does_not_move_the_median() {
        assert!((median(&[3.0, 100.0, 2.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(&[1.0, 2.0, 4.0, 100.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
