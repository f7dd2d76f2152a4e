//! What to answer: a manifest and a request's head make an [`Answer`].
//!
//! [`answer`] is pure: no I/O, no clock. It follows RFC 9110 section 13.2.1: what would be refused
//! or redirected without conditions is so with them; conditions come next, in their order, and a
//! range last.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Method, StatusCode, Uri, header};

use crate::listing::{self, Listing, ListingFormat, Sorting};
use crate::locate::{Located, locate, resolve};
use crate::manifest::Manifest;
use crate::representation::{Representation, Resource};
use crate::rules::{Query, Redirects, RuleMatch, RuleOutcome, without_port};
use crate::semantics::base_path::Entrance;
use crate::semantics::coding::{self, Coding};
use crate::semantics::dictionary::{self, DictionaryHash};
use crate::semantics::head::{FieldLines, RequestHead};
use crate::semantics::host::check_host;
use crate::semantics::navigation::{is_navigation, looks_like_page};
use crate::semantics::precondition::{self, Verdict};
use crate::semantics::range::{self, Selection};
use crate::semantics::target::{BadTarget, Target, encode_path, normalize, relative_reference};
use crate::settings::NotFound;

/// The answer to a request, before it is made into a response.
#[derive(Debug)]
pub enum Answer<'m> {
    /// 200: all of the selected representation.
    Whole(Selected<'m>),
    /// 206: the part or parts of it that a Range asks for.
    Part(Selected<'m>, Selection),
    /// 416: the Range asks for nothing that the selected representation has.
    Unsatisfiable(Selected<'m>),
    /// 304: the client has what it would be sent.
    NotModified(Selected<'m>),
    /// 412: the client's precondition does not hold.
    PreconditionFailed(Selected<'m>),
    /// A redirect with this status to this reference: relative for directories and clean URLs, else
    /// path-absolute, or to a host that the site's rules name.
    Redirect(StatusCode, String),
    /// 404, or what the site's rules say instead, with the page that the site has for it.
    NotFound(StatusCode, Option<&'m Arc<Resource>>),
    /// 204 to OPTIONS: the methods, and nothing else.
    Options,
    /// The request can't be answered, whatever the site holds.
    Refused(StatusCode, Cow<'static, str>),
}

/// The selected representation (RFC 9110 section 3.2) and its resource.
#[derive(Clone, Debug)]
pub struct Selected<'m> {
    /// The target resource, with the fields and tags that it has under the path that was asked for.
    pub resource: Cow<'m, Arc<Resource>>,
    /// Which of its representations, as [`Resource::representation`] counts them.
    pub index: usize,
    /// What selected it.
    pub selected_by: SelectedBy,
}

/// What selected a resource for a request. Cache-Control and Vary depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SelectedBy {
    /// The URL names it.
    Url,
    /// The URL names it, and has the hash of its content in the query: other content has another URL.
    HashedUrl,
    /// A rule of the site rewrites the URL to its path.
    Rewrite,
    /// The URL names a directory without an index, and this is the list of its files, in the form
    /// that was asked for.
    Listing,
    /// It stands in for what is not there, because a browser navigates to the URL.
    Fallback {
        /// Whether the URL looks like a page's. Where an asset belongs, HTML that is kept
        /// would be taken for the asset.
        of_page: bool,
    },
}

impl Selected<'_> {
    /// The representation itself.
    pub fn representation(&self) -> &Representation {
        self.resource.representation(self.index)
    }
}

/// The target of a request as one of the site; `None` where it is none, or leads past the site.
pub fn target_in_site<'r>(
    manifest: &Manifest,
    request: &'r impl RequestHead,
) -> Option<Target<'r>> {
    let target = Target::of(request.path(), request.query()).ok()?;
    match manifest.settings().base_path.enter(target) {
        Entrance::Site(target) => Some(target),
        Entrance::Bare(_) | Entrance::Elsewhere => None,
    }
}

/// Answers a request from one manifest.
pub fn answer<'m>(manifest: &'m Manifest, request: &impl RequestHead) -> Answer<'m> {
    answer_by(manifest, request, &manifest.rules().redirects)
}

/// Answers a request as if the site had no `_redirects`: what is at a path is its file, even where a
/// forced rule says otherwise.
pub fn answer_without_redirects<'m>(
    manifest: &'m Manifest,
    request: &impl RequestHead,
) -> Answer<'m> {
    answer_by(manifest, request, &Redirects::default())
}

fn answer_by<'m>(
    manifest: &'m Manifest,
    request: &impl RequestHead,
    redirects: &Redirects,
) -> Answer<'m> {
    if let Err((status, reason)) = check_method(request.method()) {
        return Answer::Refused(status, reason.into());
    }
    if let Err(reason) = check_host(request) {
        return Answer::Refused(StatusCode::BAD_REQUEST, reason.into());
    }
    if *request.method() == Method::OPTIONS && request.path() == "*" {
        return Answer::Options;
    }
    let target = match Target::of(request.path(), request.query()) {
        Ok(target) => target,
        Err(refusal) => return redirect_or_refuse(manifest, request, refusal),
    };
    if *request.method() == Method::OPTIONS {
        return Answer::Options;
    }
    let target = match manifest.settings().base_path.enter(target) {
        Entrance::Site(target) => target,
        Entrance::Bare(target) => return redirect_to_home(manifest, &target),
        Entrance::Elsewhere => return Answer::NotFound(StatusCode::NOT_FOUND, None),
    };
    let mut rule = None;
    if redirects.has_forced() {
        rule = find_rule(redirects, &target, request);
        match rule {
            Some(RuleMatch {
                is_forced: true,
                outcome,
            }) => {
                // A redirect that clean URLs send back here would loop for ever: the file answers.
                if !is_redirected_back(manifest, &outcome, &target, request) {
                    return apply_rule(manifest, outcome, &target, request);
                }
                rule = None;
            }
            unforced => rule = unforced,
        }
    }
    let settings = manifest.settings();
    let found = match locate_resource(manifest, &target) {
        Located::Here(resource) => Some(resource),
        Located::At(path) => {
            return redirect(manifest, relative_location(&target, &path));
        }
        Located::Nowhere => None,
    };
    if let Some(resource) = found {
        let has_hash = settings.immutable_query && is_hash_in_query(resource, target.query());
        let selected_by = if has_hash {
            SelectedBy::HashedUrl
        } else {
            SelectedBy::Url
        };
        return select(
            with_header_rules(manifest, resource, &target, request),
            selected_by,
            request,
        );
    }
    // A file takes precedence over a rule, and so does a removed file that is still kept.
    if !redirects.is_empty() && !redirects.has_forced() {
        rule = find_rule(redirects, &target, request);
    }
    match rule {
        Some(RuleMatch { outcome, .. }) => apply_rule(manifest, outcome, &target, request),
        None => not_found(manifest, &target, request),
    }
}

/// RFC 9110 section 9.1: 405 for a method that is known but not allowed here, 501 for one that is
/// not known.
fn check_method(method: &Method) -> Result<(), (StatusCode, &'static str)> {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => Ok(()),
        Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::PATCH
        | Method::TRACE
        | Method::CONNECT => Err((StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed")),
        _ => Err((
            StatusCode::NOT_IMPLEMENTED,
            "this method is not implemented",
        )),
    }
}

/// Where a target leads: to a file of the site, or else to a removed one that is still kept.
fn locate_resource<'m>(manifest: &'m Manifest, target: &Target<'_>) -> Located<&'m Arc<Resource>> {
    let handling = manifest.settings().html_handling;
    match locate(handling, target, |path| manifest.locate(path)) {
        Located::Nowhere if manifest.has_retired() => locate(handling, target, |path| {
            manifest.locate(path).or(manifest.locate_retired(path))
        }),
        located => located,
    }
}

/// The rule of `_redirects` that matches a target, if any does.
fn find_rule(
    redirects: &Redirects,
    target: &Target<'_>,
    request: &impl RequestHead,
) -> Option<RuleMatch> {
    let path = match target.collapsed() {
        Some(path) => Cow::Owned(path),
        None => Cow::Borrowed(target.path()),
    };
    redirects.find(Query {
        path: &[b"/", &*path].concat(),
        query: target.query(),
        host: host(request),
    })
}

/// Whether a rule redirects to an address that clean URLs redirect back, and so on without an end.
fn is_redirected_back(
    manifest: &Manifest,
    outcome: &RuleOutcome,
    target: &Target<'_>,
    request: &impl RequestHead,
) -> bool {
    let RuleOutcome::Redirect(_, location) = outcome else {
        return false;
    };
    let Ok(uri) = location.parse::<Uri>() else {
        return false;
    };
    let own = host(request);
    if let Some(named) = uri.host()
        && !own.is_some_and(|own| own.eq_ignore_ascii_case(named))
    {
        return false;
    }
    let Ok(next) = Target::parse(&uri) else {
        return false;
    };
    // A rule that names the host names the path there, too; any other path is the site's own.
    let next = match uri.host() {
        None => next,
        Some(_) => match manifest.settings().base_path.enter(next) {
            Entrance::Site(next) => next,
            Entrance::Bare(_) | Entrance::Elsewhere => return false,
        },
    };
    let handling = manifest.settings().html_handling;
    let Located::At(path) = locate(handling, &next, |path| manifest.locate(path)) else {
        return false;
    };
    let asked = Query {
        path: &[b"/", &*path].concat(),
        query: next.query(),
        host: own,
    };
    let is_here = *path == *target.path() || target.collapsed().is_some_and(|own| own == path);
    // The redirect may have changed the query, and another rule may match then.
    is_here
        && manifest
            .rules()
            .redirects
            .find(asked)
            .is_some_and(|again| again.is_forced && again.outcome == *outcome)
}

/// Applies a rule. A rewrite is answered at once: no second rule is applied to its target.
fn apply_rule<'m>(
    manifest: &'m Manifest,
    outcome: RuleOutcome,
    target: &Target<'_>,
    request: &impl RequestHead,
) -> Answer<'m> {
    let (status, path) = match outcome {
        RuleOutcome::Redirect(status, location) => {
            let location = manifest.settings().base_path.lead(location);
            return Answer::Redirect(status, location);
        }
        RuleOutcome::Answer(status, path) => (status, path),
    };
    let handling = manifest.settings().html_handling;
    let found = resolve(handling, &path, |path| manifest.locate(path));
    match (status, found) {
        (StatusCode::OK, Some(resource)) => {
            let resource = with_header_rules(manifest, resource, target, request);
            select(resource, SelectedBy::Rewrite, request)
        }
        (StatusCode::OK | StatusCode::NOT_FOUND, None) => not_found(manifest, target, request),
        (status, page) => Answer::NotFound(status, page),
    }
}

/// A resource with the fields and tags that the rules of the site give it for a target.
fn with_header_rules<'r>(
    manifest: &Manifest,
    resource: &'r Arc<Resource>,
    target: &Target<'_>,
    request: &impl RequestHead,
) -> Cow<'r, Arc<Resource>> {
    let headers = &manifest.rules().headers;
    if headers.is_empty() {
        return Cow::Borrowed(resource);
    }
    let host = headers.has_hosts().then(|| host(request)).flatten();
    manifest.resource_at_path(resource, target.path(), host)
}

/// The host that a request names, without its port. Rules look at it, and the log has it; answers do
/// not depend on it otherwise.
pub fn host(request: &impl RequestHead) -> Option<&str> {
    // RFC 9112 section 3.2.2: the host of an absolute-form target takes precedence over Host.
    let of_field = || {
        let line = request.fields().lines(&header::HOST).next()?;
        // A host in another charset than ASCII is none.
        str::from_utf8(line).ok().filter(|host| host.is_ascii())
    };
    request.authority().or_else(of_field).map(without_port)
}

/// Limit for the directories that are searched for an error page: a target can name thousands.
const MAX_ERROR_PAGE_DIRECTORIES: usize = 64;
/// Hex digits of the hash that `?v=` must have. With eight, one change in 2^32 keeps them.
const MIN_HASH_DIGITS: usize = 8;

/// What answers where there is nothing.
fn not_found<'m>(
    manifest: &'m Manifest,
    target: &Target<'_>,
    request: &impl RequestHead,
) -> Answer<'m> {
    let path = target.path();
    match manifest.settings().not_found {
        NotFound::SinglePageApplication => {
            let index = manifest.locate(b"index.html");
            if let Some(index) = index.filter(|_| is_navigation(request.fields(), path)) {
                let of_page = looks_like_page(path);
                let index = with_header_rules(manifest, index, target, request);
                return select(index, SelectedBy::Fallback { of_page }, request);
            }
            listing(manifest, target, request)
                .unwrap_or(Answer::NotFound(StatusCode::NOT_FOUND, None))
        }
        handling => listing(manifest, target, request).unwrap_or_else(|| {
            let page = match handling {
                NotFound::Page => error_page(manifest, path),
                NotFound::None | NotFound::SinglePageApplication => None,
            };
            Answer::NotFound(StatusCode::NOT_FOUND, page)
        }),
    }
}

/// What a directory without an index has, where directories are listed.
fn listing<'m>(
    manifest: &'m Manifest,
    target: &Target<'_>,
    request: &impl RequestHead,
) -> Option<Answer<'m>> {
    let settings = manifest.settings();
    if !settings.lists() {
        return None;
    }
    let path = match target.collapsed() {
        Some(path) => Cow::Owned(path),
        None => Cow::Borrowed(target.path()),
    };
    let is_directory = path.is_empty() || path.ends_with(b"/");
    let directory = match is_directory {
        true => path.to_vec(),
        false => [&path, b"/".as_slice()].concat(),
    };
    if !is_directory || target.collapsed().is_some() {
        Listing::of(manifest, &directory)?;
        return Some(redirect(manifest, relative_location(target, &directory)));
    }
    let tail = settings.additions.tail.as_deref().unwrap_or_default();
    let form = match listing::prefers_json(request.fields()) {
        true => ListingFormat::Json,
        false => ListingFormat::Html(Sorting::parse(target.query()), tail),
    };
    let page = manifest
        .cached_page(&[form.word().as_bytes(), b"/", &directory].concat(), || {
            Some(Listing::of(manifest, &directory)?.resource(form))
        })?;
    let page = manifest.page_at_path(&page, form.policy(), target.path(), host(request));
    Some(select(
        Cow::Owned(Arc::new(page)),
        SelectedBy::Listing,
        request,
    ))
}

/// Whether the first `v` of a query is the beginning of the BLAKE3 of the content, whatever its
/// coding. A page never counts: caches would keep it for good, and its readers would never see the
/// next version.
fn is_hash_in_query(resource: &Resource, query: Option<&str>) -> bool {
    let mut parameters = query.unwrap_or_default().split('&');
    parameters
        .find_map(|parameter| parameter.strip_prefix("v="))
        .is_some_and(|digits| {
            let hash = blake3::Hash::from_bytes(*resource.identity.etag.hash());
            digits.len() >= MIN_HASH_DIGITS
                && hash.to_hex().starts_with(digits)
                && resource.settled
                && !resource.is_html()
        })
}

/// 308 to the URL of what a target with dot segments or encoded slashes means, if that is something
/// the site answers; else the refusal.
///
/// apt asks for flat repositories with `/./`, npm for scoped packages with `%2F`. Whatever they get
/// has one URL, and it is looked up in the manifest as any other: there is no second way in.
fn redirect_or_refuse<'m>(
    manifest: &'m Manifest,
    request: &impl RequestHead,
    refusal: BadTarget,
) -> Answer<'m> {
    let refused = Answer::Refused(refusal.status(), refusal.to_string().into());
    if *request.method() == Method::OPTIONS || !refusal.is_spelling() {
        return refused;
    }
    let path = normalize(request.path(), request.query());
    let path = path.and_then(|path| {
        let path = manifest.settings().base_path.path_below(&path)?;
        url_of(manifest, path.to_vec())
    });
    match path {
        Some(path) => redirect(manifest, absolute_location(&path, request.query())),
        None => refused,
    }
}

/// 308 to a reference, relative or a path of the site.
fn redirect<'m>(manifest: &Manifest, location: String) -> Answer<'m> {
    let location = manifest.settings().base_path.lead(location);
    Answer::Redirect(StatusCode::PERMANENT_REDIRECT, location)
}

/// 308 from the base path, which has no slash at its end, to the first page of the site. Relative where
/// it can be, as that of any directory.
fn redirect_to_home<'m>(manifest: &Manifest, target: &Target<'_>) -> Answer<'m> {
    match target.collapsed() {
        Some(_) => redirect(manifest, absolute_location(b"", target.query())),
        None => {
            let home = [target.path(), b"/"].concat();
            redirect(manifest, relative_location(target, &home))
        }
    }
}

/// The path that a client ends up at if it follows `path` and its redirects, if the site answers there.
fn url_of(manifest: &Manifest, path: Vec<u8>) -> Option<Vec<u8>> {
    let uri: Uri = absolute_location(&path, None).parse().ok()?;
    let target = Target::parse(&uri).ok()?;
    match locate_resource(manifest, &target) {
        Located::Here(_) => Some(path),
        Located::At(path) => Some(path),
        Located::Nowhere if manifest.settings().lists() => {
            let directory = match target.is_directory() {
                true => target.path().to_vec(),
                false => [target.path(), b"/"].concat(),
            };
            Listing::of(manifest, &directory)?;
            Some(directory)
        }
        Located::Nowhere => None,
    }
}

/// The Location of a directory or a clean URL: relative to `target`, so that it stays right behind a
/// proxy that strips a prefix (RFC 9110 section 10.2.2). Where the target has empty segments it is
/// absolute, because their depth is not that of the path.
fn relative_location(target: &Target<'_>, path: &[u8]) -> String {
    if target.collapsed().is_some() {
        return absolute_location(path, target.query());
    }
    let reference = relative_reference(target.path(), path);
    match target.query() {
        Some(query) => format!("{reference}?{query}"),
        None => reference,
    }
}

/// A Location that is a path, so that it stays on whatever host the client meant: Host may be forged.
fn absolute_location(path: &[u8], query: Option<&str>) -> String {
    let path = encode_path(path);
    match query {
        Some(query) => format!("/{path}?{query}"),
        None => format!("/{path}"),
    }
}

/// The nearest `404.html`, from the directory of `path` upwards.
fn error_page<'m>(manifest: &'m Manifest, path: &[u8]) -> Option<&'m Arc<Resource>> {
    let mut name = Vec::with_capacity(path.len() + 8);
    let slashes = path
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'/');
    let directories = slashes.map(|(slash, _)| slash + 1).chain([0]);
    directories
        .take(MAX_ERROR_PAGE_DIRECTORIES)
        .find_map(|end| {
            name.clear();
            name.extend_from_slice(path.get(..end)?);
            name.extend_from_slice(b"404.html");
            manifest.locate(&name)
        })
}

fn select<'m>(
    resource: Cow<'m, Arc<Resource>>,
    selected_by: SelectedBy,
    request: &impl RequestHead,
) -> Answer<'m> {
    let index = select_representation(&resource, request);
    let selected = Selected {
        resource,
        index,
        selected_by,
    };
    let representation = selected.representation();
    let current = selected.resource.validators(representation);
    match precondition::evaluate(request.method(), request.fields(), Some(current)) {
        Verdict::NotModified => return Answer::NotModified(selected),
        Verdict::Failed => return Answer::PreconditionFailed(selected),
        Verdict::Perform => {}
    }
    if *request.method() != Method::GET {
        return Answer::Whole(selected);
    }
    match range::select(
        request.fields(),
        &representation.etag,
        representation.length,
    ) {
        Selection::Whole => Answer::Whole(selected),
        Selection::Unsatisfiable => Answer::Unsatisfiable(selected),
        part @ (Selection::One(_) | Selection::Many(_)) => Answer::Part(selected, part),
    }
}

/// Which representation suits a request (RFC 9110 section 12.5.3).
fn select_representation(resource: &Resource, request: &impl RequestHead) -> usize {
    if !resource.is_negotiable() {
        return 0;
    }
    let dictionary = match resource.has_deltas() {
        true => usable_dictionary(resource, request),
        false => None,
    };
    select_with(dictionary, resource, request)
}

/// What a request would be sent if its client had no dictionary.
pub fn select_without_dictionary<'r>(
    resource: &'r Resource,
    request: &impl RequestHead,
) -> &'r Representation {
    resource.representation(select_with(None, resource, request))
}

fn select_with(
    dictionary: Option<DictionaryHash>,
    resource: &Resource,
    request: &impl RequestHead,
) -> usize {
    // Identity, three codings, and two with the client's dictionary.
    let mut available = [(Coding::Identity, 0); 6];
    let mut indices = [0; 6];
    let mut count = 0;
    // Those with a dictionary come last: without one, nothing of them is touched.
    let representations = resource
        .representations()
        .take_while(|each| dictionary.is_some() || !each.has_dictionary());
    for (index, representation) in representations.enumerate() {
        let needed = representation.coding().dictionary();
        let is_usable = needed.is_none() || needed == dictionary;
        if is_usable && count < available.len() {
            available[count] = (representation.coding(), representation.length);
            indices[count] = index;
            count += 1;
        }
    }
    indices[coding::prefer(request.fields(), &available[..count])]
}

/// The dictionary that a client has, if a response to this request may be compressed with it.
fn usable_dictionary(resource: &Resource, request: &impl RequestHead) -> Option<DictionaryHash> {
    let dictionary = dictionary::available(request.fields())?;
    let ruled = resource.fields.ruled.as_ref();
    let allowed_origin = ruled.and_then(|ruled| {
        let mut lines = ruled.lines.iter();
        lines.find(|(name, _)| *name == dictionary::ALLOWED_ORIGIN)
    });
    let allowed_origin = allowed_origin.map(|(_, value)| value);
    dictionary::is_readable(request.fields(), allowed_origin).then_some(dictionary)
}
