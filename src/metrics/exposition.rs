//! The text that Prometheus reads (OpenMetrics 1.0).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::process::ProcessFigures;
use super::{Counter, Durations, Figures, Metrics, Outcome, STATUSES, StoreMetrics, Verb};

impl Metrics {
    /// Appends all of it in OpenMetrics 1.0, with what is known of this moment. A method
    /// and status that no request has had yet has no line.
    pub fn encode(self: &Arc<Self>, figures: Option<Figures>, page: &mut String) {
        let mut registry = Registry::with_prefix("etagd");
        registry.register_collector(Box::new(Exposition {
            metrics: Arc::clone(self),
            figures,
        }));
        // What every program has is under names that are no program's own.
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessFigures::now(&self.started)));
        // A string takes everything.
        let _ = text::encode_registry(page, &registry)
            .and_then(|()| text::encode_registry(page, &process))
            .and_then(|()| text::encode_eof(page));
    }
}

#[derive(Debug)]
struct Exposition {
    metrics: Arc<Metrics>,
    figures: Option<Figures>,
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = FamilyEncoder(encoder);
        families.requests(&self.metrics)?;
        families.latencies(&self.metrics)?;
        families.request_counters(&self.metrics)?;
        families.site_counters(&self.metrics)?;
        families.durations(&self.metrics)?;
        if let Some(figures) = &self.figures {
            families.figures(figures)?;
        }
        if let Some(store) = self.metrics.store.get() {
            families.store(store)?;
        }
        let mut build = families.family(("build", "etagd itself."), None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let faults = self.metrics.release_faults.load(Ordering::Relaxed);
        let help = "Entries of --manifest that differ from the disk.";
        families.gauge("release_faults", help, None, faults)?;
        let unwatched = self.metrics.unwatched_places.load(Ordering::Relaxed);
        let help = "Places of the site that report no changes: only sweeps find them.";
        families.gauge("unwatched_places", help, None, unwatched)?;
        let incomplete = self.metrics.watch_incomplete.load(Ordering::Relaxed);
        let help = "1 while changes are not reported that should be: no watches, say.";
        families.gauge("watch_incomplete", help, None, incomplete.into())?;
        let stalled = self.metrics.watch_stalled.load(Ordering::Relaxed);
        let help = "1 while the watcher waits for the file system and publishes no change.";
        families.gauge("watch_stalled", help, None, stalled.into())?;
        let stalled = self.metrics.scrub_stalled.load(Ordering::Relaxed);
        let help = "1 while --scrub waits for the file system and reads no file.";
        families.gauge("scrub_stalled", help, None, stalled.into())?;
        let waiting = self.metrics.waiting_requests.load(Ordering::Relaxed);
        let help = "Targets and fields that are kept of requests which wait for the disk.";
        families.gauge("waiting_requests", help, Some(&Unit::Bytes), waiting)?;
        let connections = self.metrics.connections.load(Ordering::Relaxed) as u64;
        families.gauge(
            "connections",
            "Connections that are open.",
            None,
            connections,
        )
    }
}

/// Families of metrics, one after the other.
struct FamilyEncoder<'a>(DescriptorEncoder<'a>);

impl FamilyEncoder<'_> {
    fn family(
        &mut self,
        (name, help): (&'static str, &str),
        unit: Option<&'static Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn counter(&mut self, name: &'static str, help: &str, number: u64) -> fmt::Result {
        let family = self.family((name, help), None, MetricType::Counter)?;
        ConstCounter::new(number).encode(family)
    }

    fn bytes(&mut self, name: &'static str, help: &str, counter: &Counter) -> fmt::Result {
        let family = self.family((name, help), Some(&Unit::Bytes), MetricType::Counter)?;
        ConstCounter::new(counter.get()).encode(family)
    }

    fn gauge(
        &mut self,
        name: &'static str,
        help: &str,
        unit: Option<&'static Unit>,
        number: u64,
    ) -> fmt::Result {
        let family = self.family((name, help), unit, MetricType::Gauge)?;
        ConstGauge::new(number).encode(family)
    }

    fn requests(&mut self, metrics: &Metrics) -> fmt::Result {
        // Each cell is read once, so that the families agree.
        let cells: Vec<u64> = metrics.requests.0.iter().map(Counter::get).collect();
        let by_outcome: Vec<&[u64]> = cells.chunks(STATUSES).collect();
        let outcomes = Outcome::ALL.len();
        let help = "Requests answered, by method and status.";
        let mut family = self.family(("requests", help), None, MetricType::Counter)?;
        for (verb, rows) in Verb::NAMES.iter().zip(by_outcome.chunks(outcomes)) {
            for status in 0..STATUSES {
                let number: u64 = rows.iter().filter_map(|row| row.get(status)).sum();
                if number > 0 {
                    let status = (status + 100).to_string();
                    let labels = [("method", *verb), ("status", &status)];
                    ConstCounter::new(number).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Requests answered, by what became of their validators: hit (304), miss \
                    (If-None-Match or If-Modified-Since, and content was sent), failed (412), none.";
        let mut family = self.family(("validators", help), None, MetricType::Counter)?;
        for outcome in Outcome::ALL {
            let rows = by_outcome.iter().skip(outcome as usize).step_by(outcomes);
            let number: u64 = rows.flat_map(|row| row.iter()).sum();
            let labels = [("outcome", outcome.name())];
            ConstCounter::new(number).encode(family.encode_family(&labels)?)?;
        }
        let help = "Responses that ended before their body did, because the rest could not be \
                    proven (unproven) or because the connection ended (connection).";
        let mut family = self.family(("cut_responses", help), None, MetricType::Counter)?;
        for (reason, counter) in [
            ("unproven", &metrics.cut),
            ("connection", &metrics.abandoned),
        ] {
            let labels = [("reason", reason)];
            ConstCounter::new(counter.get()).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn latencies(&mut self, metrics: &Metrics) -> fmt::Result {
        let help = "From the head of a request to the end of its response, by class of the status.";
        let seconds = Some(&Unit::Seconds);
        let mut family = self.family(("request_duration", help), seconds, MetricType::Histogram)?;
        for (class, histogram) in metrics.latencies.histograms() {
            family
                .encode_family(&[("class", class)])?
                .encode_histogram::<NoLabelSet>(
                    histogram.sum,
                    histogram.count,
                    &histogram.buckets,
                    None,
                )?;
        }
        Ok(())
    }

    fn request_counters(&mut self, metrics: &Metrics) -> fmt::Result {
        let help = "Bodies handed to connections.";
        self.bytes("body", help, &metrics.body_bytes)?;
        let help = "Selected representations that answers 304 did not have to send.";
        self.bytes("saved_body", help, &metrics.saved_bytes)?;
        let help =
            "What whole deltas are shorter than what would have been sent without a dictionary.";
        self.bytes("delta_saved_body", help, &metrics.delta_saved_bytes)?;
        let help = "Files that clients have created or replaced.";
        self.bytes("upload", help, &metrics.upload_bytes)?;
        for (name, help, counter) in [
            (
                "delta_responses",
                "Responses compressed with a dictionary of the client.",
                &metrics.deltas,
            ),
            (
                "unknown_dictionaries",
                "Requests for content with deltas by clients whose dictionary is none of theirs.",
                &metrics.unknown_dictionaries,
            ),
            (
                "verification_failures",
                "Bodies whose bytes were not what was hashed, or could not be read.",
                &metrics.unproven,
            ),
            (
                "unavailable_responses",
                "Requests answered 503 because their content could not be proven.",
                &metrics.unavailable,
            ),
            (
                "access_log_lost_lines",
                "Lines of the access log that were not written.",
                &metrics.lost_lines,
            ),
            (
                "refused_requests",
                "Requests answered 503 because too many with long header fields wait on their \
                 connection.",
                &metrics.refused_requests,
            ),
            (
                "front_requests",
                "Plain HTTP/1.1 requests that were answered from memory, on the short way.",
                &metrics.front_requests,
            ),
            (
                "frame_floods",
                "HTTP/2 connections closed because they sent too many control frames.",
                &metrics.frame_floods,
            ),
            (
                "surplus_connections",
                "Connections beyond --max-connections.",
                &metrics.surplus_connections,
            ),
            (
                "accept_errors",
                "Failed attempts to accept a connection.",
                &metrics.accept_errors,
            ),
            (
                "malformed_requests",
                "Malformed HTTP/1.1 requests: answered 400 or 431, and not logged.",
                &metrics.malformed,
            ),
            (
                "proxy_header_failures",
                "Connections of trusted proxies closed because they sent no valid PROXY header.",
                &metrics.proxy_header_failures,
            ),
            (
                "tls_plain_http",
                "Connections that sent plain HTTP to a TLS port: answered 400, and not logged.",
                &metrics.plain_http,
            ),
        ] {
            self.counter(name, help, counter.get())?;
        }
        Ok(())
    }

    /// The counters of publications, `--manifest`, `--on-publish` and the watcher.
    fn site_counters(&mut self, metrics: &Metrics) -> fmt::Result {
        for (name, help, counter) in [
            (
                "publications",
                "States of the site that were published after the first.",
                &metrics.publications,
            ),
            (
                "unexpected_publications",
                "Published states whose digest is not the one that --expect names.",
                &metrics.unexpected,
            ),
            (
                "release_mismatches",
                "Times that the disk was found to differ from --manifest.",
                &metrics.release_mismatches,
            ),
            (
                "hook_runs",
                "Runs of the command of --on-publish.",
                &metrics.hook_runs,
            ),
            (
                "hook_failures",
                "Failed runs of the command of --on-publish.",
                &metrics.hook_failures,
            ),
            (
                "broken_immutables",
                "Files served as immutable that were given other content.",
                &metrics.broken_immutables,
            ),
            (
                "watch_events",
                "Change notifications from the file system.",
                &metrics.hints,
            ),
            (
                "watch_overflows",
                "Times that change notifications were lost and a sweep caught up.",
                &metrics.overflows,
            ),
            (
                "watch_failures",
                "Paths that could not be watched.",
                &metrics.watch_failures,
            ),
            (
                "incomplete_scans",
                "Scans that met something unreadable for now, and whose changes had to wait.",
                &metrics.incomplete_looks,
            ),
            (
                "state_failures",
                "Failed attempts to save the manifest in --state.",
                &metrics.state_failures,
            ),
            ("sweeps", "Sweeps of the whole site.", &metrics.sweeps),
            (
                "root_changes",
                "Times that the root was found to be a different directory.",
                &metrics.root_changes,
            ),
        ] {
            self.counter(name, help, counter.get())?;
        }
        Ok(())
    }

    /// What a server that follows a store has in addition.
    fn store(&mut self, store: &StoreMetrics) -> fmt::Result {
        for (name, help, counter) in [
            (
                "store_releases_taken",
                "Releases of the store that were published here.",
                &store.releases_taken,
            ),
            (
                "store_releases_refused",
                "Releases of the store that cannot be served here: the one before stays.",
                &store.releases_refused,
            ),
            (
                "store_releases_delayed",
                "Attempts to take a release of which something could not be fetched: it is tried again.",
                &store.releases_delayed,
            ),
            (
                "store_failed_polls",
                "Failed attempts to find out whether the store has a newer release.",
                &store.polls_failed,
            ),
            (
                "store_fetches",
                "Pieces of content that the store was asked for.",
                &store.fetches,
            ),
            (
                "store_failed_fetches",
                "Pieces of content that the store did not give, or gave damaged.",
                &store.fetches_failed,
            ),
            (
                "store_cache_hits",
                "Pieces of content that were found in --cache.",
                &store.cache_hits,
            ),
        ] {
            self.counter(name, help, counter.get())?;
        }
        let help = "Content that the store has sent.";
        self.bytes("store_fetched", help, &store.fetched_bytes)?;
        // What is not known yet has no line.
        let number = |number: &AtomicU64| match number.load(Ordering::Relaxed) {
            0 => None,
            number => Some(number),
        };
        for (name, help, value) in [
            (
                "store_release",
                "The number of the release that is served.",
                number(&store.release),
            ),
            (
                "store_newest_release",
                "The number of the newest release that the store was found to have.",
                number(&store.newest_release),
            ),
            (
                "store_reachable",
                "1 while the store answers, 0 while it does not.",
                store.reachability.get().map(u64::from),
            ),
        ] {
            if let Some(value) = value {
                self.gauge(name, help, None, value)?;
            }
        }
        Ok(())
    }

    fn durations(&mut self, metrics: &Metrics) -> fmt::Result {
        let help = "Scans of the disk: of the whole site or of what has changed.";
        let seconds = Some(&Unit::Seconds);
        let mut family = self.family(("scan_duration", help), seconds, MetricType::Histogram)?;
        for (of, Durations(durations)) in [
            ("site", &metrics.site_scans),
            ("changes", &metrics.change_scans),
        ] {
            durations.encode(family.encode_family(&[("of", of)])?)?;
        }
        let help = "From the result of a scan to the published manifest.";
        let family = self.family(("publish_duration", help), seconds, MetricType::Histogram)?;
        metrics.publishing.0.encode(family)
    }

    fn figures(&mut self, figures: &Figures) -> fmt::Result {
        let help = "The site that is served: its digest, and whether every file is in it.";
        let mut family = self.family(("site", help), None, MetricType::Info)?;
        family.encode_info(&[
            ("digest", figures.digest.as_str()),
            (
                "complete",
                if figures.is_complete { "true" } else { "false" },
            ),
        ])?;
        let help = "Time since the current state of the site was published.";
        let seconds = Some(&Unit::Seconds);
        let family = self.family(("manifest_age", help), seconds, MetricType::Gauge)?;
        ConstGauge::new(figures.age.as_secs_f64()).encode(family)?;
        self.gauge(
            "manifest_entries",
            "Resources of the site.",
            None,
            figures.entries,
        )?;
        let bytes = Some(&Unit::Bytes);
        self.gauge(
            "site",
            "Content of the site, without codings.",
            bytes,
            figures.bytes,
        )?;
        let help = "Files without a form of --compress: no room, or an encoder failed.";
        self.gauge("without_codings", help, None, figures.without_codings)?;
        let help = "Memory used by cached content.";
        self.gauge("memory_used", help, bytes, figures.memory_used)?;
        let help = "Cached content that responses pin until their clients take it.";
        self.gauge("memory_pinned", help, bytes, figures.memory_pinned)?;
        let help = "Memory limit for cached content.";
        self.gauge("memory_limit", help, bytes, figures.memory_limit)
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use std::time::Duration;

    use super::*;

    fn encoded(metrics: &Arc<Metrics>) -> String {
        let figures = Figures {
            digest: "ab".repeat(32),
            is_complete: true,
            age: Duration::from_millis(1500),
            entries: 3,
            bytes: 4096,
            without_codings: 0,
            memory_used: 5,
            memory_pinned: 4,
            memory_limit: 6,
        };
        let mut text = String::new();
        metrics.encode(Some(figures), &mut text);
        text
    }

    #[test]
    fn a_request_is_in_both_families_and_no_label_is_a_clients() {
        let metrics = Arc::new(Metrics::default());
        let forged = Method::from_bytes(b"EVIL").expect("a token");
        for (method, status, outcome) in [
            (&Method::GET, 304, Outcome::Hit),
            (&Method::GET, 304, Outcome::Hit),
            (&Method::GET, 200, Outcome::Miss),
            (&Method::GET, 200, Outcome::None),
            (&Method::HEAD, 412, Outcome::Failed),
            (&forged, 501, Outcome::None),
            // No such status is answered; it must not be counted as another.
            (&Method::GET, 999, Outcome::None),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            metrics.answered(method.into(), status, outcome, Duration::from_micros(70));
        }
        let text = encoded(&metrics);
        let samples: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("etagd_requests") || line.starts_with("etagd_valid"))
            .collect();
        assert_eq!(
            samples,
            [
                r#"etagd_requests_total{method="GET",status="200"} 2"#,
                r#"etagd_requests_total{method="GET",status="304"} 2"#,
                r#"etagd_requests_total{method="HEAD",status="412"} 1"#,
                r#"etagd_requests_total{method="other",status="501"} 1"#,
                r#"etagd_validators_total{outcome="hit"} 2"#,
                r#"etagd_validators_total{outcome="miss"} 1"#,
                r#"etagd_validators_total{outcome="failed"} 1"#,
                r#"etagd_validators_total{outcome="none"} 2"#,
            ]
        );
        assert!(!text.contains("EVIL"));
    }

    #[test]
    fn what_is_not_known_of_a_store_has_no_line() {
        let metrics = Arc::new(Metrics::default());
        let store = metrics.store.get_or_init(StoreMetrics::default);
        let known = || {
            let text = encoded(&metrics);
            let lines = text.lines().filter(|line| {
                let gauges = [
                    "store_reachable ",
                    "store_release ",
                    "store_newest_release ",
                ];
                let name = line.strip_prefix("etagd_");
                name.is_some_and(|name| gauges.iter().any(|gauge| name.starts_with(gauge)))
            });
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(known(), [""; 0]);
        store.reachability.note(false);
        assert_eq!(known(), ["etagd_store_reachable 0"]);
        store.reachability.note(true);
        store.release.store(6, Ordering::Relaxed);
        store.newest_release.store(7, Ordering::Relaxed);
        let all = [
            "etagd_store_release 6",
            "etagd_store_newest_release 7",
            "etagd_store_reachable 1",
        ];
        assert_eq!(known(), all);
    }

    #[test]
    fn the_text_is_open_metrics() {
        let metrics = Arc::new(Metrics::default());
        metrics.body_bytes.add(7);
        metrics.publishing.observe(Duration::from_millis(1));
        let text = encoded(&metrics);
        let (mut family, mut seen) = (String::new(), Vec::new());
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["#", "HELP", name, _, ..] => {
                    assert!(!seen.contains(&name.to_owned()), "{name} twice");
                    assert!(line.ends_with('.'), "{line}");
                    seen.push(name.to_owned());
                    family = name.to_owned();
                }
                ["#", "TYPE" | "UNIT", name, _] => assert_eq!(name, family),
                ["#", "EOF"] => family.clear(),
                [sample, number] => {
                    assert!(sample.starts_with(&family) && !family.is_empty(), "{line}");
                    assert!(number.parse::<f64>().is_ok(), "{line}");
                }
                _ => panic!("{line:?}"),
            }
        }
        assert_eq!(family, "", "the end is marked");
        for line in [
            "etagd_body_bytes_total 7",
            "etagd_publish_duration_seconds_count 1",
            "etagd_manifest_age_seconds 1.5",
            "etagd_memory_used_bytes 5",
            r#"etagd_cut_responses_total{reason="unproven"} 0"#,
            r#"etagd_request_duration_seconds_count{class="2xx"} 0"#,
        ] {
            assert!(text.lines().any(|each| each == line), "{line}:\n{text}");
        }
        assert!(text.contains(&format!("etagd_site_info{{digest=\"{}\"", "ab".repeat(32))));
    }
}
