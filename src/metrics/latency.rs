//! How long requests take, by class of their status: a histogram that costs a request two additions.

use std::time::Duration;

use http::StatusCode;

use super::Counter;

/// The classes of status codes (RFC 9110 section 15).
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bound of the first bucket, in nanoseconds. That of each further one is twice as high.
const FIRST_BOUND: u64 = 50_000;
/// Buckets with an upper bound. That of the last is 13.1 s, the first above 10 s.
const BOUNDS: usize = 19;

/// How long requests took.
#[derive(Debug, Default)]
pub(super) struct Latencies([ClassLatencies; CLASSES.len()]);

/// How long requests of one class took.
#[derive(Debug, Default)]
struct ClassLatencies {
    /// The last one has no upper bound.
    buckets: [Counter; BOUNDS + 1],
    /// All of them together.
    nanoseconds: Counter,
}

/// The requests of one class, as Prometheus wants them.
pub(super) struct LatencyHistogram {
    /// All durations together, in seconds.
    pub(super) sum: f64,
    /// Requests.
    pub(super) count: u64,
    /// Upper bounds, inclusive and in seconds, and the requests in each bucket.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Latencies {
    /// Counts a request that took so long.
    pub(super) fn observe(&self, status: StatusCode, elapsed: Duration) {
        // A `StatusCode` is 100 or more; 600 and above are no class of RFC 9110.
        let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
        let Some(class) = self.0.get(class) else {
            return;
        };
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = class.buckets.get(bucket(nanoseconds)) {
            bucket.increment();
        }
        class.nanoseconds.add(nanoseconds);
    }

    /// Each class by its name. Every bucket is read once, so that the count is their sum.
    pub(super) fn histograms(&self) -> impl Iterator<Item = (&'static str, LatencyHistogram)> {
        CLASSES.into_iter().zip(&self.0).map(|(name, class)| {
            let counts = class.buckets.each_ref().map(Counter::get);
            let histogram = LatencyHistogram {
                sum: Duration::from_nanos(class.nanoseconds.get()).as_secs_f64(),
                count: counts.iter().sum(),
                buckets: bounds().zip(counts).collect(),
            };
            (name, histogram)
        })
    }
}

/// The bucket of a duration: the first whose upper bound is not below it. Bit lengths are
/// logarithms to base 2, so no bound is looked at.
fn bucket(nanoseconds: u64) -> usize {
    let units = nanoseconds.saturating_sub(1) / FIRST_BOUND;
    let length = u64::BITS - units.leading_zeros();
    (length as usize).min(BOUNDS)
}

/// The upper bounds of all buckets, in seconds.
fn bounds() -> impl Iterator<Item = f64> {
    let first = Duration::from_nanos(FIRST_BOUND).as_secs_f64();
    // To double a float is exact: they read 0.0001, 0.0002 and so on.
    std::iter::successors(Some(first), |bound| Some(bound * 2.0))
        .take(BOUNDS)
        .chain([f64::INFINITY])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        for (nanoseconds, expected) in [
            (0, 0),
            (1, 0),
            (50_000, 0),
            (50_001, 1),
            (100_000, 1),
            (100_001, 2),
            (1_000_000, 5),
            (FIRST_BOUND << 18, 18),
            ((FIRST_BOUND << 18) + 1, 19),
            (u64::MAX, 19),
        ] {
            assert_eq!(bucket(nanoseconds), expected, "{nanoseconds}");
        }
        // The same by comparison, on both sides of every bound.
        for (index, bound) in bounds().take(BOUNDS).enumerate() {
            let bound = (bound * 1e9).round() as u64;
            assert_eq!(bucket(bound), index, "{bound}");
            assert_eq!(bucket(bound + 1), index + 1, "{bound}");
        }
    }

    #[test]
    fn bounds_go_from_50_microseconds_to_more_than_10_seconds() {
        let bounds: Vec<_> = bounds().collect();
        assert_eq!(bounds[..4], [0.00005, 0.0001, 0.0002, 0.0004]);
        assert!(bounds[BOUNDS - 2] < 10.0 && bounds[BOUNDS - 1] > 10.0);
        assert_eq!(bounds[BOUNDS..], [f64::INFINITY]);
    }

    #[test]
    fn each_class_has_a_histogram_of_its_own() {
        let latencies = Latencies::default();
        for (status, milliseconds) in [(200, 1), (206, 2), (304, 4), (503, 8), (999, 16)] {
            let status = StatusCode::from_u16(status).expect("a status");
            latencies.observe(status, Duration::from_millis(milliseconds));
        }
        let found: Vec<_> = latencies
            .histograms()
            .map(|(name, histogram)| {
                let in_buckets: u64 = histogram.buckets.iter().map(|(_, count)| count).sum();
                assert_eq!(in_buckets, histogram.count, "{name}");
                (name, histogram.count, histogram.sum)
            })
            .collect();
        let expected = [
            ("1xx", 0, 0.0),
            ("2xx", 2, 0.003),
            ("3xx", 1, 0.004),
            ("4xx", 0, 0.0),
            ("5xx", 1, 0.008),
        ];
        assert_eq!(found, expected);
    }
}
