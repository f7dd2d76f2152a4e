//! What the operating system knows of this process, under the names that Prometheus's own client
//! libraries give it. It is read when it is asked for.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// When the process began, near enough: its counters are made before anything else is done.
#[derive(Debug)]
pub(super) struct StartTime(SystemTime);

impl Default for StartTime {
    fn default() -> Self {
        Self(SystemTime::now())
    }
}

/// The process at one moment. What the system does not tell is left out.
#[derive(Debug)]
pub(super) struct ProcessFigures {
    /// Since the epoch.
    started: Duration,
    cpu: Duration,
    resident_bytes: Option<u64>,
    open_descriptors: Option<u64>,
    max_descriptors: Option<u64>,
}

impl ProcessFigures {
    /// The process now.
    pub(super) fn now(started: &StartTime) -> Self {
        let since_epoch = started.0.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            started: since_epoch.unwrap_or_default(),
            cpu: cpu_time(),
            resident_bytes: resident_bytes(),
            open_descriptors: open_descriptors(),
            max_descriptors: getrlimit(Resource::Nofile).current,
        }
    }
}

/// What all threads have used, in user and system mode.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// `VmRSS` of proc_pid_status(5), on Linux.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

/// On Linux this is a link to /proc/self/fd.
fn open_descriptors() -> Option<u64> {
    let listed = fs::read_dir("/dev/fd").ok()?.count() as u64;
    // One of them is that of the list itself.
    listed.checked_sub(1)
}

impl Collector for ProcessFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let seconds = Some(&Unit::Seconds);
        let help = "CPU time of all threads, user and system.";
        let family =
            encoder.encode_descriptor("process_cpu", help, seconds, MetricType::Counter)?;
        ConstCounter::new(self.cpu.as_secs_f64()).encode(family)?;
        let help = "When the process began, since the epoch.";
        let family =
            encoder.encode_descriptor("process_start_time", help, seconds, MetricType::Gauge)?;
        ConstGauge::new(self.started.as_secs_f64()).encode(family)?;
        for (name, help, unit, number) in [
            (
                "process_resident_memory",
                "Memory of the process that is in RAM.",
                Some(&Unit::Bytes),
                self.resident_bytes,
            ),
            (
                "process_open_fds",
                "File descriptors that are open.",
                None,
                self.open_descriptors,
            ),
            (
                "process_max_fds",
                "Limit for open file descriptors.",
                None,
                self.max_descriptors,
            ),
        ] {
            if let Some(number) = number {
                let family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
                ConstGauge::new(number).encode(family)?;
            }
        }
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_all_of_it() {
        let before = StartTime::default();
        let figures = ProcessFigures::now(&before);
        assert!(figures.cpu > Duration::ZERO && figures.cpu < Duration::from_secs(3600));
        assert!(figures.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(figures.open_descriptors.is_some_and(|open| open >= 3));
        assert!(figures.open_descriptors <= figures.max_descriptors);
        let file = fs::File::open("/dev/null").expect("a file");
        let files = [file.try_clone(), file.try_clone(), file.try_clone()];
        let more = ProcessFigures::now(&before);
        // Other tests open and close files at the same time.
        assert!(more.open_descriptors.is_some_and(|open| open >= 6));
        drop(files);
    }
}
