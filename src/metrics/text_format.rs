//! Which of Prometheus's two formats a scraper gets, and the older one, made out of OpenMetrics.

use http::{HeaderMap, HeaderValue, header};

/// A format of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricsFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4, which every scraper reads, and a browser shows.
    Text,
}

impl MetricsFormat {
    /// What these request fields ask for: OpenMetrics if it is named and not less welcome than
    /// text, or if there is no `Accept` at all.
    pub fn accepted(fields: &HeaderMap) -> Self {
        let mut values = fields.get_all(header::ACCEPT).iter().peekable();
        if values.peek().is_none() {
            return Self::OpenMetrics;
        }
        let (mut open_metrics, mut text) = (0.0, 0.0);
        for range in values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
        {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .filter_map(|part| part.strip_prefix("q="))
                .find_map(|quality| quality.parse::<f32>().ok())
                .unwrap_or(1.0);
            match name.as_str() {
                "application/openmetrics-text" => open_metrics = quality.max(open_metrics),
                "text/plain" => text = quality.max(text),
                _ => {}
            }
        }
        match open_metrics > 0.0 && open_metrics >= text {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// Its media type.
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        })
    }

    /// A page of OpenMetrics in this format.
    pub fn convert(self, page: String) -> String {
        match self {
            Self::OpenMetrics => page,
            Self::Text => to_text(&page),
        }
    }
}

/// A counter's and an info's family has, in the older format, the name of its samples. There are
/// no units and no infos in it, and no end.
fn to_text(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    // HELP comes before TYPE, which says what the family is called.
    let mut help = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            if let Some(help) = help.take() {
                text += &format!("# HELP {name}{suffix} {help}\n");
            }
            text += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scrapers_accept() {
        let (open_metrics, text) = (MetricsFormat::OpenMetrics, MetricsFormat::Text);
        for (accept, format) in [
            (None, open_metrics),
            (Some("*/*"), text),
            (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), text),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
                ),
                open_metrics,
            ),
            (
                Some("application/openmetrics-text;q=0.2, text/plain;q=0.9"),
                text,
            ),
            (Some("application/openmetrics-text;q=0"), text),
            (Some("Application/OpenMetrics-Text"), open_metrics),
        ] {
            let mut fields = HeaderMap::new();
            if let Some(accept) = accept {
                fields.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(MetricsFormat::accepted(&fields), format, "{accept:?}");
        }
    }

    #[test]
    fn the_older_format() {
        let page = "# HELP a_requests Asked.\n# TYPE a_requests counter\n\
                    a_requests_total{code=\"200\"} 3\n\
                    # HELP a_age_seconds Age.\n# TYPE a_age_seconds gauge\n\
                    # UNIT a_age_seconds seconds\na_age_seconds 1.5\n\
                    # HELP a_build Built.\n# TYPE a_build info\na_build_info{version=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_requests_total Asked.\n# TYPE a_requests_total counter\n\
                    a_requests_total{code=\"200\"} 3\n\
                    # HELP a_age_seconds Age.\n# TYPE a_age_seconds gauge\na_age_seconds 1.5\n\
                    # HELP a_build_info Built.\n# TYPE a_build_info gauge\n\
                    a_build_info{version=\"1\"} 1\n";
        assert_eq!(MetricsFormat::Text.convert(page.to_owned()), text);
        assert_eq!(MetricsFormat::OpenMetrics.convert(page.to_owned()), page);
    }
}
