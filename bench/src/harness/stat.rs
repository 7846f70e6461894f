//! Median, least and most.

/// The middle and the ends of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stat {
    /// As many are below as above.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// How many there were.
    pub n: usize,
}

impl Stat {
    /// Of `values`; none if there are none.
    pub fn of(values: &[f64]) -> Option<Stat> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let median = (sorted.get(n / 2)? + sorted.get((n - 1) / 2)?) / 2.0;
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Stat {
            median,
            min,
            max,
            n,
        })
    }
}

/// The median alone, for a side that takes several samples in one repetition.
///
/// # Panics
///
/// If there are no samples.
pub fn median(samples: &[f64]) -> f64 {
    Stat::of(samples).expect("at least one sample").median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Stat::of(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let stat = Stat::of(&[5.0, 1.0]).unwrap();
        assert_eq!((stat.min, stat.max, stat.n), (1.0, 5.0, 2));
    }
}
