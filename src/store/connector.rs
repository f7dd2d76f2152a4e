//! How a bucket is reached: the HTTP client that object_store is given, on the hyper and the TLS that are
//! here already. Bounded in time; it uses no proxy and follows no redirect.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::client::{
    ClientConfigKey, ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind,
    HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{BackoffConfig, RetryConfig};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::error::{StoreReply, causes, innermost};
use super::{FailedRequests, StorePatience};
use crate::trust::{Trust, TrustError};

/// Time for a connection; those to where a machine asks for its credentials are made in less.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long an unused connection is kept. Ceph and S3 close theirs after 20 s or more, and a request on one
/// that is being closed costs an attempt.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// Idle connections that are kept.
const MAX_IDLE: usize = 128;
/// So much of a request's content is passed on at once: what moves is looked at piece by piece.
const PIECE: usize = 64 << 10;
/// Bytes that are read of an answer that is no success.
const MAX_ERROR_LENGTH: usize = 64 << 10;
/// Bytes that are read of an answer which object_store has in memory as a whole: a list of a thousand objects
/// has up to seven million. Content is read piece by piece, and whoever reads it has a limit.
const MAX_ANSWER_LENGTH: u64 = 16 << 20;
/// What a request that lists has in its query.
const LIST_QUERY: &str = "list-type=2";
/// The element that a list of objects is.
const LIST_ELEMENT: &[u8] = b"<ListBucketResult";
/// The field in which S3 says where a bucket is.
const BUCKET_REGION: &str = "x-amz-bucket-region";

/// Why a bucket can't be asked.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The certificate authorities can't be had.
    Trust(TrustError),
    /// This machine has no TLS.
    Tls(rustls::Error),
    /// The environment names an address that is none.
    Endpoint,
    /// A variable of the environment has what none of its values has.
    Variable(&'static str),
    /// What the environment says is incomplete, or contradicts itself.
    Settings(object_store::Error),
}

/// The bucket of this name, with the endpoint, the region and the credentials of the environment. `failed` is
/// told of requests that fail and are made again.
///
/// # Errors
/// When the environment is wrong.
pub(super) fn open(
    bucket: &str,
    patience: StorePatience,
    trust: &Trust,
    failed: watch::Sender<FailedRequests>,
) -> Result<AmazonS3, OpenError> {
    let retry = RetryConfig {
        backoff: BackoffConfig {
            max_backoff: MAX_PAUSE,
            ..BackoffConfig::default()
        },
        max_retries: patience.retries,
        retry_timeout: patience.retry_time,
    };
    let connector = Connector {
        tls: Arc::new(tls(trust)?),
        stall: patience.stall,
        failed,
    };
    let builder = AmazonS3Builder::from_env();
    for key in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
        if let Some(endpoint) = builder.get_config_value(&key) {
            check_endpoint(&endpoint)?;
        }
    }
    for (key, variable) in [
        (AmazonS3ConfigKey::AccessKeyId, "AWS_ACCESS_KEY_ID"),
        (AmazonS3ConfigKey::SecretAccessKey, "AWS_SECRET_ACCESS_KEY"),
        (AmazonS3ConfigKey::Token, "AWS_SESSION_TOKEN"),
        (AmazonS3ConfigKey::Region, "AWS_REGION"),
    ] {
        let value = builder.get_config_value(&key).unwrap_or_default();
        // object_store panics where one of them can't be in a field or a host name.
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(OpenError::Variable(variable));
        }
    }
    builder
        .with_bucket_name(bucket)
        // The one primitive that releases are made with.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // A request that deletes several objects is one about the bucket to Ceph 16, so that it takes more
        // permissions, and Google's S3 has none.
        .with_disable_bulk_delete(true)
        .with_retry(retry)
        .with_http_connector(connector)
        .build()
        .map_err(OpenError::Settings)
}

/// object_store panics where an address has no scheme.
fn check_endpoint(endpoint: &str) -> Result<(), OpenError> {
    let uri = endpoint.parse::<http::Uri>().ok();
    let is_url = uri.is_some_and(|uri| {
        let host = uri.authority().map(http::uri::Authority::as_str);
        // A name and a password in it would be shown.
        let is_plain = host.is_some_and(|host| !host.contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https")) && is_plain
    });
    is_url.then_some(()).ok_or(OpenError::Endpoint)
}

/// TLS with these certificate authorities.
fn tls(trust: &Trust) -> Result<ClientConfig, OpenError> {
    let certificates = match (trust, trust.certificates()) {
        // Without any, a store that speaks plain HTTP can be asked all the same.
        (Trust::System, Err(_)) => Vec::new(),
        (_, certificates) => certificates.map_err(OpenError::Trust)?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(OpenError::Tls)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Makes HTTP clients.
#[derive(Debug)]
struct Connector {
    tls: Arc<ClientConfig>,
    stall: Duration,
    failed: watch::Sender<FailedRequests>,
}

/// Whether a variable says yes. object_store keeps what was typed, and reads it like this.
fn is_true(value: &str) -> bool {
    let yes = ["1", "true", "on", "yes", "y"];
    yes.iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let may_be_plain = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|value| is_true(&value));
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIME));
        let tls = ClientConfig::clone(&self.tls);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(https);
        Ok(HttpClient::new(StoreClient {
            client,
            may_be_plain,
            stall: self.stall,
            failed: self.failed.clone(),
        }))
    }
}

/// An HTTP client.
#[derive(Debug)]
struct StoreClient {
    client: Client<HttpsConnector<TcpConnector>, SentBody>,
    /// Whether requests may travel without TLS: their signatures can be read then, and their content.
    may_be_plain: bool,
    stall: Duration,
    failed: watch::Sender<FailedRequests>,
}

/// Why a request is not sent, or not answered.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error(
        "{0} is reached without TLS, which has to be allowed: set AWS_ALLOW_HTTP=true, or an https:// \
         address in AWS_ENDPOINT_URL"
    )]
    PlainHttp(String),
    #[error("cannot reach {address}: {cause}")]
    Unreachable { address: String, cause: String },
    #[error("{address} does not get on: nothing has moved for {}", humantime::format_duration(*.stall))]
    Stalled { address: String, stall: Duration },
    #[error("the answer of {address} breaks off: {cause}")]
    Broken { address: String, cause: String },
    #[error("what answers at {0} is no S3 store: correct AWS_ENDPOINT_URL")]
    NoStore(String),
    #[error("the answer of {0} has more than {MAX_ANSWER_LENGTH} bytes: it is no store")]
    TooLong(String),
}

#[async_trait::async_trait]
impl HttpService for StoreClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = self.exchange(request).await;
        // object_store makes these again, and says so to nobody.
        if let Err(error) = &answered
            && matches!(
                error.kind(),
                HttpErrorKind::Connect
                    | HttpErrorKind::Request
                    | HttpErrorKind::Timeout
                    | HttpErrorKind::Interrupted
            )
        {
            self.note_failure(innermost(error));
        }
        answered
    }
}

impl StoreClient {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri();
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        if uri.scheme_str() != Some("https") && !self.may_be_plain {
            let refused = ExchangeError::PlainHttp(address);
            return Err(HttpError::new(HttpErrorKind::Unknown, refused));
        }
        let is_list = uri.query().is_some_and(|it| it.contains(LIST_QUERY));
        let is_content = request.method() == http::Method::GET && !is_list;
        let (mut head, content) = request.into_parts();
        let agent = HeaderValue::from_static(concat!("etagd/", env!("CARGO_PKG_VERSION")));
        head.headers.insert(header::USER_AGENT, agent);
        let sent = Arc::new(AtomicU64::new(0));
        let content = SentBody {
            content,
            rest: Bytes::new(),
            sent: Arc::clone(&sent),
        };
        let answered = self
            .client
            .request(http::Request::from_parts(head, content));
        let response = tokio::select! {
            answered = answered => answered.map_err(|error| unreachable(&address, &error))?,
            () = stalled(&sent, self.stall) => return Err(has_stalled(&address, self.stall)),
        };
        let response = response.map(|body| ReceivedBody {
            body,
            address: address.clone(),
            stall: self.stall,
            timer: None,
            left: (!is_content).then_some(MAX_ANSWER_LENGTH),
        });
        let status = response.status();
        if status.is_success() && is_list {
            let (head, body) = response.into_parts();
            let list = body.collect().await?.to_bytes();
            // Any other XML would be read as a list of nothing.
            if memchr::memmem::find(&list, LIST_ELEMENT).is_none() {
                let refused = ExchangeError::NoStore(address);
                return Err(HttpError::new(HttpErrorKind::Unknown, refused));
            }
            return Ok(HttpResponse::from_parts(head, list.into()));
        }
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response.map(HttpResponseBody::new));
        }
        let (head, text) = without_secrets(response).await;
        if status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            )
        {
            let reply = StoreReply::of(status.as_u16(), &text);
            self.note_failure(reply.to_string());
        }
        Ok(HttpResponse::from_parts(head, text.into()))
    }

    fn note_failure(&self, reason: String) {
        self.failed.send_modify(|failed| {
            failed.number += 1;
            failed.reason = reason;
        });
    }
}

fn unreachable(address: &str, error: &ClientError) -> HttpError {
    let kind = match innermost_kind(error) {
        // A machine that has no role answers nothing at its metadata address, and never will.
        HttpErrorKind::Connect if is_metadata(address) => HttpErrorKind::Unknown,
        kind => kind,
    };
    let cause = innermost(error);
    let hint = match cause.contains("UnknownIssuer") {
        true => ": name a file with its authority's certificate in --ca",
        false => "",
    };
    HttpError::new(
        kind,
        ExchangeError::Unreachable {
            address: address.to_owned(),
            cause: format!("{cause}{hint}"),
        },
    )
}

fn is_metadata(address: &str) -> bool {
    address.starts_with("169.254.")
}

/// What object_store is told, since it decides whether to try again: a request that was not sent can be sent
/// again, whatever it was.
fn innermost_kind(error: &ClientError) -> HttpErrorKind {
    if error.is_connect() {
        return HttpErrorKind::Connect;
    }
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            if error.is_timeout() {
                return HttpErrorKind::Timeout;
            }
            if error.is_closed() || error.is_incomplete_message() || error.is_body_write_aborted() {
                return HttpErrorKind::Request;
            }
        }
        if cause.downcast_ref::<std::io::Error>().is_some() {
            return HttpErrorKind::Interrupted;
        }
    }
    HttpErrorKind::Unknown
}

fn has_stalled(address: &str, stall: Duration) -> HttpError {
    let address = address.to_owned();
    HttpError::new(
        HttpErrorKind::Timeout,
        ExchangeError::Stalled { address, stall },
    )
}

/// Ends when nothing of a request has been taken for so long.
async fn stalled(sent: &AtomicU64, stall: Duration) {
    let mut before = u64::MAX;
    loop {
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
        sleep(stall).await;
    }
}

/// An answer that is no success, with no more than its code and its message. S3 repeats the request that
/// was signed where a signature is wrong, with the session token in it, and object_store shows what it gets.
async fn without_secrets(response: Response<ReceivedBody>) -> (http::response::Parts, String) {
    let (mut head, body) = response.into_parts();
    let region = head
        .headers
        .get(BUCKET_REGION)
        .and_then(|region| region.to_str().ok())
        .map(str::to_owned);
    let text = match Limited::new(body, MAX_ERROR_LENGTH).collect().await {
        Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).into_owned(),
        // Its status says the most important.
        Err(_) => String::new(),
    };
    let element = |name: &str| {
        let (_, after) = text.split_once(&format!("<{name}>"))?;
        let (value, _) = after.split_once(&format!("</{name}>"))?;
        Some(format!("<{name}>{value}</{name}>"))
    };
    let mut clean = ["Code", "Message"]
        .map(|name| element(name).unwrap_or_default())
        .concat();
    if head.status.is_redirection() {
        // Nothing else is told of a redirect.
        head.status = StatusCode::BAD_REQUEST;
        let region = region.unwrap_or_default();
        clean = format!("<Code>PermanentRedirect</Code><Message>{region}</Message>");
    }
    head.headers.remove(header::CONTENT_LENGTH);
    (head, clean)
}

/// The content of a request, which counts what is taken of it.
struct SentBody {
    content: HttpRequestBody,
    rest: Bytes,
    sent: Arc<AtomicU64>,
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.content).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => this.rest = frame.into_data().unwrap_or_default(),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        this.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.content.size_hint().exact() {
            Some(length) => SizeHint::with_exact(length + self.rest.remaining() as u64),
            None => SizeHint::new(),
        }
    }
}

/// The content of a response, which ends in an error where nothing comes.
#[derive(Debug)]
struct ReceivedBody {
    body: Incoming,
    address: String,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that may still come, where there is a limit.
    left: Option<u64>,
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer = None;
            if let (Some(left), Some(Ok(frame))) = (&mut this.left, &frame) {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(rest) = left.checked_sub(length) else {
                    let too_long = ExchangeError::TooLong(this.address.clone());
                    return Poll::Ready(Some(Err(HttpError::new(
                        HttpErrorKind::Unknown,
                        too_long,
                    ))));
                };
                *left = rest;
            }
            let broken = |error: hyper::Error| {
                let broken = ExchangeError::Broken {
                    address: this.address.clone(),
                    cause: innermost(&error),
                };
                HttpError::new(HttpErrorKind::Interrupted, broken)
            };
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + this.stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(has_stalled(&this.address, this.stall))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    use super::*;

    /// A server that answers each connection with these bytes and then says nothing more.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                stream.write_all(answer.as_bytes()).expect("sent");
                open.push(stream);
            }
        });
        address
    }

    /// What a client gets from that server: a status and the text, or an error.
    fn exchange(answer: &'static str, may_be_plain: bool) -> Result<(u16, String), HttpError> {
        ask(answer, may_be_plain, "/bucket/key")
    }

    /// The same of a request for this path and query.
    fn ask(
        answer: &'static str,
        may_be_plain: bool,
        path: &str,
    ) -> Result<(u16, String), HttpError> {
        let address = server(answer);
        let connector = Connector {
            tls: Arc::new(tls(&Trust::Nobody).expect("TLS")),
            stall: Duration::from_millis(200),
            failed: watch::Sender::default(),
        };
        let options = ClientOptions::new().with_allow_http(may_be_plain);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let client = connector.connect(&options).expect("a client");
            let request = http::Request::get(format!("http://{address}{path}"));
            let request = request.body(HttpRequestBody::empty()).expect("a request");
            let response = client.execute(request).await?;
            let status = response.status().as_u16();
            let text = response.into_body().bytes().await?;
            Ok((status, String::from_utf8_lossy(&text).into_owned()))
        })
    }

    #[test]
    fn a_variable_says_yes_as_it_does_to_other_tools() {
        for (value, expected) in [
            ("1", true),
            ("True", true),
            ("yes", true),
            ("ON", true),
            ("0", false),
            ("false", false),
            ("", false),
            ("true ", false),
        ] {
            assert_eq!(is_true(value), expected, "{value:?}");
        }
    }

    #[test]
    fn an_error_of_a_store_has_its_code_and_message_and_no_secret() {
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 155\r\n\r\n<?xml version=\"1.0\"?><Error>\
                      <Code>SignatureDoesNotMatch</Code><Message>no</Message>\
                      <CanonicalRequest>x-amz-security-token:SECRET</CanonicalRequest></Error>";
        let clean = "<Code>SignatureDoesNotMatch</Code><Message>no</Message>".to_owned();
        assert_eq!(exchange(answer, true).expect("an answer"), (403, clean));
        let answer =
            "HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\r\n";
        let moved = "<Code>PermanentRedirect</Code><Message>eu-west-1</Message>".to_owned();
        assert_eq!(exchange(answer, true).expect("an answer"), (400, moved));
    }

    #[test]
    fn a_page_is_no_list_of_objects() {
        let list = |answer| ask(answer, true, "/bucket?list-type=2&prefix=x");
        let page = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>";
        let error = list(page).expect_err("no list").to_string();
        assert!(error.contains("is no S3 store"), "{error}");
        let empty = "HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n<ListBucketResult/>";
        let (status, text) = list(empty).expect("a list");
        assert_eq!((status, &*text), (200, "<ListBucketResult/>"));
    }

    #[test]
    fn a_list_has_an_end() {
        let endless = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n";
        let body = " ".repeat((MAX_ANSWER_LENGTH + 1) as usize);
        let answer: &'static str = Box::leak(format!("{endless}{body}").into_boxed_str());
        let error = ask(answer, true, "/bucket?list-type=2").expect_err("too long");
        assert!(error.to_string().contains("has more than"), "{error}");
        // What is content has the limit of whoever reads it.
        let error = ask(answer, true, "/bucket/key").expect_err("it breaks off");
        assert!(error.to_string().contains("nothing has moved"), "{error}");
    }

    #[test]
    fn who_gets_nothing_does_not_wait_for_ever() {
        for (answer, kind) in [
            ("", HttpErrorKind::Timeout),
            ("HTTP/1.1 200 OK\r\n", HttpErrorKind::Timeout),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
                HttpErrorKind::Timeout,
            ),
        ] {
            let error = exchange(answer, true).expect_err("nothing more comes");
            assert_eq!(error.kind(), kind, "{answer:?}: {error}");
            assert!(
                error.to_string().contains("nothing has moved for 200ms"),
                "{error}"
            );
        }
    }

    #[test]
    fn without_tls_nothing_is_sent_unless_that_is_allowed() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(
            exchange(answer, true).expect("an answer"),
            (200, "ok".to_owned())
        );
        let error = exchange(answer, false).expect_err("refused");
        assert!(
            error.to_string().contains("set AWS_ALLOW_HTTP=true"),
            "{error}"
        );
    }

    #[test]
    fn addresses_of_endpoints() {
        for good in [
            "http://127.0.0.1:9000",
            "https://s3.example",
            "https://s3.example/x",
        ] {
            assert!(check_endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:1",
            "localhost:9000",
            "s3.example",
            "ftp://x",
            "/x",
            "http://key:secret@host",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }
}
