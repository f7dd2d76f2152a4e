//! The heart: any request head gets one answer, the same each time, that keeps its word.
//!
//! Input: a request made of the pieces that matter here, out of random bytes, and what the operator
//! has chosen.
#![no_main]

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use bytes::Bytes;
use etagd::answer::{Answer, Selected, SelectedBy, answer};
use etagd::manifest::{Changes, Manifest};
use etagd::representation::{Data, EncodedForms, Fields, Representation, Resource};
use etagd::rules::{Dialect, RuleFile, Rules};
use etagd::semantics::coding::Coding;
use etagd::semantics::date::HttpDate;
use etagd::semantics::etag::ETag;
use etagd::semantics::range::{ByteRange, Selection};
use etagd::settings::{HtmlHandling, NotFound, Settings};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Uri, Version};
use libfuzzer_sys::fuzz_target;

const MODIFIED: i64 = 784_111_777;
const PATHS: [&str; 9] = [
    "index.html",
    "404.html",
    "about.html",
    "docs/index.html",
    "docs/404.html",
    "docs/a b\u{e9}.txt",
    "docs.html",
    "empty",
    "app.js",
];

const HANDLINGS: [HtmlHandling; 5] = [
    HtmlHandling::Suffix,
    HtmlHandling::AutoTrailingSlash,
    HtmlHandling::ForceTrailingSlash,
    HtmlHandling::DropTrailingSlash,
    HtmlHandling::None,
];
const NOT_FOUND: [NotFound; 3] = [
    NotFound::Page,
    NotFound::None,
    NotFound::SinglePageApplication,
];

/// Rules that meet each other, the files and the words.
const HEADERS: &[u8] = b"/*\n x: y\n/docs/*\n content-type: text/x\n/about\n x-content-a: b\n\
    https://h.example/*\n vary: origin\n/:a.js\n link: </:a>\n";
const REDIRECTS: &[u8] = b"/about /empty 200!\n/old/* /:splat\n/go/:a/:b /:b/:a 302!\n\
    /q x=:x /:x 303\n/out/* https://example.com/:splat 308\n/gone/* /404.html 410\n\
    /docs /docs.html 200!\n/app/* /index.html 200\n/*/x /:splat/y 307!\n";

/// One for each choice of the operator, with rules and without.
static SITES: LazyLock<Vec<Manifest>> = LazyLock::new(|| {
    let choices = HANDLINGS.map(|handling| NOT_FOUND.map(|not_found| (handling, not_found)));
    let plain: Vec<_> = choices.into_iter().flatten().map(site).collect();
    let rules = Rules::default();
    let rules = rules.with(RuleFile::Headers, Some(HEADERS), Dialect::Netlify);
    let rules =
        rules.and_then(|rules| rules.with(RuleFile::Redirects, Some(REDIRECTS), Dialect::Netlify));
    let rules = Arc::new(rules.expect("new rules"));
    let ruled = plain.iter().map(|site| {
        site.with(Changes {
            rules: Some(Arc::clone(&rules)),
            ..Changes::default()
        })
    });
    let ruled: Vec<_> = ruled.collect();
    plain.into_iter().chain(ruled).collect()
});

fn site((html_handling, not_found): (HtmlHandling, NotFound)) -> Manifest {
    let settings = Settings {
        html_handling,
        not_found,
        immutable_query: true,
        listing: not_found == NotFound::None,
        ..Settings::default()
    };
    Manifest::empty(settings).with(Changes {
        changed: PATHS.iter().map(|path| Arc::new(resource(path))).collect(),
        ..Changes::default()
    })
}

fn resource(path: &str) -> Resource {
    let body = match path {
        "empty" => Vec::new(),
        path => path.repeat(20).into_bytes(),
    };
    // Codings are opaque to `answer`; what counts is that tags and lengths differ.
    let encoded = match path {
        "app.js" => [Coding::Brotli, Coding::Zstd, Coding::Gzip]
            .map(|coding| representation(coding, coding.token().repeat(9).into_bytes()))
            .into(),
        _ => EncodedForms::default(),
    };
    let fields = Arc::new(Fields::new(
        HeaderValue::from_static("text/plain"),
        HeaderValue::from_static("public"),
    ));
    let identity = representation(Coding::Identity, body);
    Resource {
        last_modified: HttpDate::from_unix(MODIFIED).filter(|_| path != "empty"),
        encoded,
        ..Resource::new(path.as_bytes().into(), fields, identity)
    }
}

fn representation(coding: Coding, body: Vec<u8>) -> Representation {
    let tag = ETag::new(*blake3::hash(&body).as_bytes());
    let length = body.len() as u64;
    Representation::new(coding, tag, length, Data::Memory(Bytes::from(body)))
}

#[derive(Arbitrary, Debug)]
struct Request<'a> {
    site: u8,
    method: RequestMethod,
    path: Path<'a>,
    query: Option<&'a str>,
    http2: bool,
    no_host: bool,
    fields: Vec<Field<'a>>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum RequestMethod {
    Get,
    Head,
    Options,
    Post,
    Connect,
    Unknown,
}

#[derive(Arbitrary, Debug)]
enum Path<'a> {
    /// Of the site, with what may be cut off or put around it.
    Known {
        index: u8,
        cut: u8,
        before: &'a str,
        after: &'a str,
    },
    Raw(&'a str),
}

#[derive(Arbitrary, Debug)]
enum Field<'a> {
    IfMatch(Vec<Tag<'a>>),
    IfNoneMatch(Vec<Tag<'a>>),
    IfModifiedSince(Date<'a>),
    IfUnmodifiedSince(Date<'a>),
    IfRange(Tag<'a>),
    Range(Vec<(Option<u8>, Option<u8>)>),
    AcceptEncoding(Vec<(Code, Option<u8>)>),
    SecFetchMode(bool),
    Raw(Name, &'a [u8]),
}

#[derive(Arbitrary, Debug)]
enum Tag<'a> {
    /// Of a representation of the site.
    Known {
        weak: bool,
        path: u8,
        coding: u8,
    },
    Any,
    Raw(&'a str),
}

#[derive(Arbitrary, Debug)]
enum Date<'a> {
    /// Relative to when everything was modified.
    Near(i8),
    Raw(&'a str),
}

#[derive(Arbitrary, Debug)]
enum Code {
    Brotli,
    Zstd,
    Gzip,
    Identity,
    Any,
    Unknown,
}

#[derive(Arbitrary, Debug)]
enum Name {
    Accept,
    Host,
    IfMatch,
    IfNoneMatch,
    IfModifiedSince,
    IfUnmodifiedSince,
    IfRange,
    Range,
    AcceptEncoding,
}

fuzz_target!(|request: Request<'_>| {
    let Some(parts) = request.parts() else { return };
    let site = &SITES[usize::from(request.site) % SITES.len()];
    let given = answer(site, &parts);
    check(site, &given, &parts);
    assert_eq!(
        summary(&given),
        summary(&answer(site, &parts)),
        "deterministic"
    );

    // RFC 9110 9.3.2: HEAD is GET without content; only Range tells them apart (14.2).
    let mut get = clone(&parts);
    get.method = Method::GET;
    get.headers.remove(header::RANGE);
    let mut head = clone(&parts);
    head.method = Method::HEAD;
    let answers = (answer(site, &get), answer(site, &head));
    assert_eq!(summary(&answers.0), summary(&answers.1), "HEAD as GET");
});

/// What an answer says, in a form that can be compared.
fn summary(given: &Answer<'_>) -> String {
    let selected = |selected: &Selected<'_>| {
        let path = String::from_utf8_lossy(&selected.resource.path);
        format!("{path} {} {:?}", selected.index, selected.selected_by)
    };
    match given {
        Answer::Whole(of) => format!("whole {}", selected(of)),
        Answer::Part(of, part) => format!("part {} {part:?}", selected(of)),
        Answer::Unsatisfiable(of) => format!("unsatisfiable {}", selected(of)),
        Answer::NotModified(of) => format!("not modified {}", selected(of)),
        Answer::PreconditionFailed(of) => format!("failed {}", selected(of)),
        Answer::NotFound(status, page) => {
            format!("not found {status} {:?}", page.map(|page| &page.path))
        }
        other => format!("{other:?}"),
    }
}

fn check(site: &Manifest, given: &Answer<'_>, parts: &Parts) {
    let is_of_the_site = |selected: &Selected<'_>| is_of(site, selected, parts);
    let has = |name: HeaderName| parts.headers.contains_key(name);
    let retrieves = matches!(parts.method, Method::GET | Method::HEAD);
    match given {
        Answer::Whole(selected) => is_of_the_site(selected),
        Answer::Part(selected, selection) => {
            is_of_the_site(selected);
            assert!(parts.method == Method::GET && has(header::RANGE));
            let inside = |part: &ByteRange| part.last() < selected.representation().length;
            match selection {
                Selection::One(part) => assert!(inside(part)),
                Selection::Many(parts) => {
                    assert!((2..=16).contains(&parts.len()) && parts.iter().all(inside));
                }
                Selection::Whole | Selection::Unsatisfiable => panic!("no part: {selection:?}"),
            }
        }
        Answer::Unsatisfiable(selected) => {
            is_of_the_site(selected);
            assert!(parts.method == Method::GET && has(header::RANGE));
        }
        Answer::NotModified(selected) => {
            is_of_the_site(selected);
            assert!(has(header::IF_NONE_MATCH) || has(header::IF_MODIFIED_SINCE));
            assert!(retrieves);
        }
        Answer::PreconditionFailed(selected) => {
            is_of_the_site(selected);
            assert!(has(header::IF_MATCH) || has(header::IF_UNMODIFIED_SINCE));
            assert!(retrieves);
        }
        Answer::Redirect(status, reference) if !site.rules().is_empty() => {
            assert!(status.is_redirection());
            is_safe(reference);
        }
        Answer::Redirect(status, reference) => {
            assert_eq!(*status, StatusCode::PERMANENT_REDIRECT);
            leads_on(site, reference, parts);
        }
        Answer::NotFound(status, page) if *status == StatusCode::GONE => {
            assert!(!site.rules().is_empty());
            assert!(page.is_some_and(|page| *page.path == *b"404.html"));
        }
        Answer::NotFound(status, page) => {
            assert_eq!(*status, StatusCode::NOT_FOUND);
            let is_shown = site.settings().not_found == NotFound::Page;
            assert!(page.is_none_or(|page| is_shown && page.path.ends_with(b"404.html")));
        }
        Answer::Options => assert_eq!(parts.method, Method::OPTIONS),
        Answer::Refused(status, _) => assert!(matches!(
            *status,
            StatusCode::BAD_REQUEST
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::URI_TOO_LONG
                | StatusCode::NOT_IMPLEMENTED
        )),
    }
}

fn is_of(site: &Manifest, selected: &Selected<'_>, parts: &Parts) {
    if selected.selected_by == SelectedBy::Listing {
        return is_listing(site, selected);
    }
    let here = site
        .locate(&selected.resource.path)
        .expect("a resource of the site");
    let is_itself = Arc::ptr_eq(here, &selected.resource);
    assert!(is_itself || !site.rules().is_empty());
    assert!(selected.index <= selected.resource.encoded.len());
    let same = here.representation(selected.index).etag;
    let tag = selected.representation().etag;
    // What rules say of fields is part of the tag, and of nothing else.
    assert_eq!(tag.hash(), same.hash());
    assert_eq!(tag.fields(), selected.resource.fields.suffix());
    match selected.selected_by {
        SelectedBy::Url | SelectedBy::Listing => {}
        SelectedBy::Rewrite => assert!(!site.rules().is_empty()),
        SelectedBy::HashedUrl => {
            assert!(parts.uri.query().is_some_and(|query| query.contains("v=")))
        }
        SelectedBy::Fallback { of_page } => {
            assert_eq!(site.settings().not_found, NotFound::SinglePageApplication);
            assert_eq!(*selected.resource.path, *b"index.html");
            // A browser that says what it fetches gets HTML for a page alone.
            let modes = parts.headers.get_all("sec-fetch-mode");
            let mut modes = modes.iter();
            let (mode, other) = (modes.next(), modes.next());
            assert!(mode.is_none_or(|mode| other.is_some() || mode == "navigate"));
            let last = parts.uri.path().rsplit('/').next();
            assert!(!of_page || last.is_some_and(|last| !last.contains('.')));
        }
    }
}

/// A listing is of a directory without an index, and its tag is that of its own bytes.
fn is_listing(site: &Manifest, selected: &Selected<'_>) {
    assert!(site.settings().listing);
    let path = &selected.resource.path;
    assert!(path.is_empty() || path.ends_with(b"/"));
    let index = [&path[..], b"index.html"].concat();
    let shows_index = site.settings().html_handling != HtmlHandling::None;
    assert!(!shows_index || site.locate(&index).is_none() || !site.rules().is_empty());
    let identity = &selected.resource.identity;
    let Data::Memory(body) = &identity.data else {
        panic!("a listing is in memory");
    };
    assert_eq!(identity.etag.hash(), blake3::hash(body).as_bytes());
    assert_eq!(identity.length, body.len() as u64);
}

/// A reference stays on its host, or leads to one that a rule names.
fn is_safe(reference: &str) {
    assert!(HeaderValue::from_bytes(reference.as_bytes()).is_ok());
    let path = reference.split('?').next().unwrap_or_default();
    assert!(
        path.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    );
    let is_path = reference.starts_with('/') && !reference.starts_with("//");
    assert!(is_path || reference.starts_with("https://example.com/"));
}

/// A redirect stays on its host, keeps the query and ends at a resource.
fn leads_on(site: &Manifest, reference: &str, parts: &Parts) {
    assert!(reference.starts_with('/') && !reference.starts_with("//"));
    // The query goes back as it came; the path is ours to spell.
    let path = reference.split('?').next().unwrap_or_default();
    assert!(
        path.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    );
    assert!(HeaderValue::from_bytes(reference.as_bytes()).is_ok());
    let mut next = clone(parts);
    next.uri = reference.parse().expect("a Location of ours is a URI");
    assert_eq!(next.uri.query(), parts.uri.query());
    match answer(site, &next) {
        // An encoded path can be longer than the one that was asked for.
        Answer::Refused(status, _) => assert_eq!(status, StatusCode::URI_TOO_LONG),
        Answer::Redirect(_, again) => panic!("{reference} redirects to {again}"),
        Answer::NotFound(..)
        | Answer::Whole(Selected {
            selected_by: SelectedBy::Fallback { .. },
            ..
        }) => panic!("{reference} leads nowhere"),
        _ => {}
    }
}

fn clone(parts: &Parts) -> Parts {
    let (mut clone, ()) = http::Request::new(()).into_parts();
    clone.method = parts.method.clone();
    clone.uri = parts.uri.clone();
    clone.version = parts.version;
    clone.headers = parts.headers.clone();
    clone
}

impl Request<'_> {
    /// The head, where an HTTP parser would let it through.
    fn parts(&self) -> Option<Parts> {
        let method = match self.method {
            RequestMethod::Get => Method::GET,
            RequestMethod::Head => Method::HEAD,
            RequestMethod::Options => Method::OPTIONS,
            RequestMethod::Post => Method::POST,
            RequestMethod::Connect => Method::CONNECT,
            RequestMethod::Unknown => Method::from_bytes(b"BREW").ok()?,
        };
        let mut target = match &self.path {
            Path::Raw(path) => (*path).to_owned(),
            Path::Known {
                index,
                cut,
                before,
                after,
            } => {
                let path = PATHS[usize::from(*index) % PATHS.len()].replace(' ', "%20");
                let end = path.len().saturating_sub(usize::from(*cut));
                format!("/{before}{}{after}", path.get(..end).unwrap_or(&path))
            }
        };
        if let Some(query) = self.query {
            target.push('?');
            target.push_str(query);
        }
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = method;
        parts.uri = Uri::try_from(target).ok()?;
        parts.version = match self.http2 {
            true => Version::HTTP_2,
            false => Version::HTTP_11,
        };
        if !self.no_host && !self.http2 {
            let host = HeaderValue::from_static("localhost");
            parts.headers.insert(header::HOST, host);
        }
        for field in &self.fields {
            let (name, value) = field.line();
            parts
                .headers
                .append(name, HeaderValue::from_bytes(&value).ok()?);
        }
        Some(parts)
    }
}

impl Field<'_> {
    fn line(&self) -> (HeaderName, Vec<u8>) {
        let (name, value) = match self {
            Self::IfMatch(tags) => (header::IF_MATCH, list(tags, Tag::text)),
            Self::IfNoneMatch(tags) => (header::IF_NONE_MATCH, list(tags, Tag::text)),
            Self::IfModifiedSince(date) => (header::IF_MODIFIED_SINCE, date.text()),
            Self::IfUnmodifiedSince(date) => (header::IF_UNMODIFIED_SINCE, date.text()),
            Self::IfRange(tag) => (header::IF_RANGE, tag.text()),
            Self::Range(specs) => {
                let number = |number: Option<u8>| number.map_or(String::new(), |n| n.to_string());
                let spec = |(first, last): &_| format!("{}-{}", number(*first), number(*last));
                (header::RANGE, format!("bytes={}", list(specs, spec)))
            }
            Self::AcceptEncoding(codes) => {
                let member = |(code, weight): &(Code, Option<u8>)| match weight {
                    None => code.text().to_owned(),
                    Some(weight) => format!("{};q=0.{}", code.text(), weight % 100),
                };
                (header::ACCEPT_ENCODING, list(codes, member))
            }
            Self::SecFetchMode(is_navigation) => {
                let mode = if *is_navigation {
                    "navigate"
                } else {
                    "no-cors"
                };
                (HeaderName::from_static("sec-fetch-mode"), mode.to_owned())
            }
            Self::Raw(name, value) => return (name.name(), value.to_vec()),
        };
        (name, value.into_bytes())
    }
}

fn list<T>(members: &[T], text: impl Fn(&T) -> String) -> String {
    let members: Vec<_> = members.iter().map(text).collect();
    members.join(", ")
}

impl Tag<'_> {
    fn text(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Raw(text) => (*text).to_owned(),
            Self::Known { weak, path, coding } => {
                let path = PATHS[usize::from(*path) % PATHS.len()].as_bytes();
                let resource = SITES[0].locate(path).expect("it is there");
                let index = usize::from(*coding) % (resource.encoded.len() + 1);
                let mark = if *weak { "W/" } else { "" };
                format!("{mark}{}", resource.representation(index).etag)
            }
        }
    }
}

impl Date<'_> {
    fn text(&self) -> String {
        match self {
            Self::Raw(text) => (*text).to_owned(),
            Self::Near(seconds) => HttpDate::from_unix(MODIFIED + i64::from(*seconds))
                .expect("in 1994")
                .to_string(),
        }
    }
}

impl Code {
    fn text(&self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
            Self::Any => "*",
            Self::Unknown => "compress",
        }
    }
}

impl Name {
    fn name(&self) -> HeaderName {
        match self {
            Self::Accept => header::ACCEPT,
            Self::Host => header::HOST,
            Self::IfMatch => header::IF_MATCH,
            Self::IfNoneMatch => header::IF_NONE_MATCH,
            Self::IfModifiedSince => header::IF_MODIFIED_SINCE,
            Self::IfUnmodifiedSince => header::IF_UNMODIFIED_SINCE,
            Self::IfRange => header::IF_RANGE,
            Self::Range => header::RANGE,
            Self::AcceptEncoding => header::ACCEPT_ENCODING,
        }
    }
}
