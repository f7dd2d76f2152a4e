//! The operator's endpoints: is the process alive, is it ready, which site does it serve.
//!
//! [`Admin::respond`] makes a response of a request, with no other I/O than to read in `/proc` what
//! the metrics say of the process. It is never asked over a public listener. There is no file here, no condition and no range: six paths, GET and HEAD.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::manifest::Manifest;
use crate::memory::Memory;
use crate::metrics::{Metrics, MetricsFormat};
use crate::readiness::{NotReady, Readiness};
use crate::site::Site;

const ACCEPT: HeaderValue = HeaderValue::from_static("Accept");
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The state of the process that the operator's endpoints report.
#[derive(Debug)]
pub struct Admin {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    /// There is none before the first publication.
    site: OnceLock<(Arc<Site>, Arc<Memory>)>,
}

/// The content of a response.
#[derive(Debug)]
pub enum AdminContent {
    /// All of it.
    Text(Bytes),
    /// This manifest as JSON, too much to be in memory at once.
    Manifest(Arc<Manifest>),
}

impl Admin {
    /// For a process that has published nothing yet.
    pub fn new(readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Self {
        Self {
            readiness,
            metrics,
            site: OnceLock::new(),
        }
    }

    /// Shows this site, and the memory that its content is in, from now on. Only the first one
    /// counts.
    pub fn show(&self, site: Arc<Site>, memory: Arc<Memory>) {
        let _ = self.site.set((site, memory));
    }

    /// The counters of the process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers a request that is malformed or can't be understood, and why.
    pub fn refuse(status: StatusCode, reason: &str) -> Response<AdminContent> {
        text(status, format!("{reason}\n"))
    }

    /// Answers a request whose host is not one of this machine's.
    pub fn refuse_host() -> Response<AdminContent> {
        text(
            StatusCode::FORBIDDEN,
            "requests to a loopback address may name an address, localhost or a name given by \
             --allow-host\n",
        )
    }

    /// Answers one request.
    pub fn respond(&self, request: &Parts) -> Response<AdminContent> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are allowed\n",
            );
            response.headers_mut().insert(header::ALLOW, ALLOW);
            return response;
        }
        let published = self.site.get().map(|(site, _)| Arc::clone(&site.current()));
        match (request.uri.path(), published) {
            ("/livez", _) => text(StatusCode::OK, "alive\n"),
            ("/readyz" | "/healthz", published) => match self.readiness.check(published.as_deref())
            {
                Ok(site) => {
                    let (digest, entries) = (site.digest(), site.len());
                    let remark = self.readiness.last_remark();
                    let remark = remark.map_or_else(String::new, |remark| format!("{remark}\n"));
                    text(
                        StatusCode::OK,
                        format!("ready {digest} {entries} entries\n{remark}"),
                    )
                }
                Err(reason) => unavailable(&reason),
            },
            ("/digest" | "/manifest", None) => unavailable(&self.readiness.obstacle()),
            ("/digest", Some(manifest)) => text(StatusCode::OK, format!("{}\n", manifest.digest())),
            ("/manifest", Some(manifest)) => {
                response(StatusCode::OK, JSON, AdminContent::Manifest(manifest))
            }
            ("/metrics", _) => {
                let mut page = String::new();
                let figures = self.site.get().map(|(site, memory)| site.figures(memory));
                self.metrics.encode(figures, &mut page);
                let format = MetricsFormat::accepted(&request.headers);
                let content = AdminContent::Text(format.convert(page).into());
                let mut response = response(StatusCode::OK, format.content_type(), content);
                response.headers_mut().insert(header::VARY, ACCEPT);
                response
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; available: /livez, /readyz, /healthz, /digest, /manifest, /metrics\n",
            ),
        }
    }
}

fn unavailable(reason: &NotReady) -> Response<AdminContent> {
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<AdminContent> {
    response(status, TEXT, AdminContent::Text(text.into()))
}

fn response(
    status: StatusCode,
    r#type: HeaderValue,
    content: AdminContent,
) -> Response<AdminContent> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, r#type);
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::readiness::Phase;
    use crate::settings::Settings;

    fn ask(admin: &Admin, method: &str, target: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(target).body(());
        let response = admin.respond(&request.expect("a request").into_parts().0);
        let fields = response.headers();
        assert_eq!(fields[header::CACHE_CONTROL], "no-store", "{target}");
        assert_eq!(
            fields.contains_key(header::ALLOW),
            response.status() == StatusCode::METHOD_NOT_ALLOWED
        );
        let status = response.status().as_u16();
        match response.into_body() {
            AdminContent::Text(text) => {
                let text = String::from_utf8(text.to_vec()).expect("text");
                assert!(text.ends_with('\n'), "{text:?}");
                (status, text)
            }
            AdminContent::Manifest(manifest) => (status, manifest.digest().to_string()),
        }
    }

    #[test]
    fn from_start_to_end() {
        let readiness = Arc::new(Readiness::default());
        let admin = Admin::new(Arc::clone(&readiness), Arc::default());
        for method in ["GET", "HEAD"] {
            assert_eq!(ask(&admin, method, "/livez"), (200, "alive\n".to_owned()));
            for path in ["/readyz", "/healthz", "/digest", "/manifest"] {
                let (status, reason) = ask(&admin, method, path);
                assert_eq!(status, 503, "{path}");
                assert!(reason.starts_with("scanning"), "{path}: {reason}");
            }
            assert_eq!(ask(&admin, method, "/metrics").0, 200);
        }
        readiness.explain(Some("/a is missing".to_owned()));
        for path in ["/readyz", "/digest", "/manifest"] {
            let missing = (503, "/a is missing\n".to_owned());
            assert_eq!(ask(&admin, "GET", path), missing, "{path}");
        }
        let site = Arc::new(Site::new(Manifest::empty(Settings::default())));
        let digest = site.current().digest();
        admin.show(site, Memory::new(0, 1));
        readiness.enter(Phase::Serving);
        let ready = format!("ready {digest} 0 entries\n");
        assert_eq!(ask(&admin, "GET", "/readyz"), (200, ready.clone()));
        assert_eq!(ask(&admin, "GET", "/healthz"), (200, ready.clone()));
        assert_eq!(ask(&admin, "GET", "/readyz?x=y"), (200, ready));
        assert_eq!(ask(&admin, "GET", "/digest"), (200, format!("{digest}\n")));
        assert_eq!(ask(&admin, "GET", "/manifest"), (200, digest.to_string()));
        readiness.remark(Some("the store is away".to_owned()));
        let (status, said) = ask(&admin, "GET", "/readyz");
        assert_eq!(status, 200);
        assert!(said.ends_with(" 0 entries\nthe store is away\n"), "{said}");
        readiness.enter(Phase::Draining);
        let (status, reason) = ask(&admin, "GET", "/readyz");
        assert_eq!((status, &reason[..8]), (503, "draining"));
        assert_eq!(ask(&admin, "GET", "/livez").0, 200);
        assert_eq!(ask(&admin, "GET", "/digest").0, 200);
    }

    #[test]
    fn what_there_is_not() {
        let admin = Admin::new(Arc::default(), Arc::default());
        for target in [
            "/",
            "/livez/",
            "//livez",
            "/Livez",
            "/%6civez",
            "/index.html",
        ] {
            assert_eq!(ask(&admin, "GET", target).0, 404, "{target}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            for target in ["/livez", "/nothing"] {
                assert_eq!(ask(&admin, method, target).0, 405, "{method} {target}");
            }
        }
    }
}
