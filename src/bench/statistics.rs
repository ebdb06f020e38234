//! Medians, spreads, percentiles.

use serde::Serialize;

/// Where values lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// As many are above as below; between the two in the middle, halfway.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// Of these values; `None` of none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most, count) = (*sorted.first()?, *sorted.last()?, sorted.len());
        let median = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
        Some(Self { median, least, most, count })
    }
}

/// The value that so many per cent of the sorted `values` do not exceed (nearest rank); `None` of none.
#[must_use]
pub fn percentile<T: Copy>(values: &[T], per_cent: usize) -> Option<T> {
    let rank = (values.len() * per_cent.min(100)).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spread_is_where_values_lie() {
        let of = |values: &[f64]| {
            Spread::of(values.iter().copied()).map(|spread| (spread.median, spread.least, spread.most))
        };
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(of(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[f64::NAN, f64::INFINITY]), None, "what could not be divided is no value");
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<u32> = (1..=100).collect();
        for (per_cent, value) in [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)] {
            assert_eq!(percentile(&hundred, per_cent), Some(value), "{per_cent} %");
        }
        assert_eq!(percentile(&[5, 6], 50), Some(5));
        assert_eq!(percentile::<u32>(&[], 50), None);
    }

    proptest! {
        #[test]
        fn half_of_the_values_lie_on_either_side(values in proptest::collection::vec(-1e6..1e6_f64, 1..40)) {
            let spread = Spread::of(values.iter().copied()).expect("some");
            let below = values.iter().filter(|value| **value <= spread.median).count();
            let above = values.iter().filter(|value| **value >= spread.median).count();
            prop_assert!(below * 2 >= values.len() && above * 2 >= values.len());
            prop_assert!(spread.least <= spread.median && spread.median <= spread.most);
        }
    }
}
