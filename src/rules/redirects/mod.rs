//! `_redirects`: redirects and rewrites of the site's paths.
//!
//! ```text
//! /blog/:year/*   /archive/:year/:splat   301
//! /store id=:id   /items/:id              302
//! /app/*          /app/index.html         200
//! ```
//!
//! A source, query parameters, a target, a status. The first rule that matches counts. Netlify's
//! dialect lets a file win over a rule without `!`, Cloudflare's lets no file win. A `Location` to
//! another host exists only where its author wrote that host: nothing that is captured can become
//! a scheme or a host.

mod chains;
mod read;
mod url;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use http::StatusCode;
use percent_encoding::percent_decode;

use super::complaint::Complaint;
use super::host::Host;
use super::pattern::{MatchOptions, Pattern, without_empty_segments};
use super::table::{Candidates, Table};
use super::template::{Template, as_it_is, in_path, in_query};
use crate::semantics::target::encode_path;

/// Whose interpretation of `_redirects` applies where the platforms differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dialect {
    /// A file takes precedence over a rule without `!`; the default is 301; `/a` is `/a/`.
    #[default]
    Netlify,
    /// A rule takes precedence over a file; the default is 302; `/a` is not `/a/`.
    Cloudflare,
}

impl Dialect {
    const fn options(self) -> MatchOptions {
        let is_netlify = matches!(self, Self::Netlify);
        MatchOptions {
            lenient: is_netlify,
            inner_placeholders: !is_netlify,
            any_case: false,
            many_splats: false,
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Netlify => StatusCode::MOVED_PERMANENTLY,
            Self::Cloudflare => StatusCode::FOUND,
        }
    }
}

/// The rules of a `_redirects` file.
#[derive(Clone, Debug)]
pub struct Redirects {
    rules: Vec<Rule>,
    /// But for those in `by_query`.
    table: Table,
    /// The rules for one path with one query, by both.
    by_query: HashMap<Vec<u8>, Vec<u32>>,
    has_forced: bool,
    hash: [u8; 32],
}

#[derive(Clone, Debug)]
struct Rule {
    line: usize,
    host: Option<Host>,
    pattern: Pattern,
    /// Query parameters that a request must have, these and no others.
    parameters: Vec<Parameter>,
    /// Its captured pieces are those of the pattern, then those of the parameters.
    action: Action,
    is_forced: bool,
    /// The path of the source as it was written.
    source: Box<[u8]>,
    /// All of it, without what means nothing.
    text: Box<[u8]>,
}

#[derive(Clone, Debug)]
struct Parameter {
    key: Box<[u8]>,
    /// `None` where any value will do, and is captured under `name`.
    value: Option<Box<[u8]>>,
    name: Option<Box<str>>,
}

#[derive(Clone, Debug)]
enum Action {
    Redirect(StatusCode, Box<Location>),
    /// Another path of the site is answered with this status.
    Answer(StatusCode, Template),
}

/// A `Location` in the making.
#[derive(Clone, Debug)]
struct Location {
    /// `https://example.com:8080`, as its author wrote it.
    origin: Option<TargetOrigin>,
    path: Template,
    query: Option<Template>,
    fragment: Option<Template>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct TargetOrigin {
    text: Box<str>,
    host: Box<str>,
}

/// What a request asks for, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Decoded, with its leading slash, without empty segments.
    pub path: &'a [u8],
    /// As sent, without `?`.
    pub query: Option<&'a str>,
    /// The host that the request names, without its port.
    pub host: Option<&'a str>,
}

/// What a rule does with a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleOutcome {
    /// Redirect with this status to this reference: path-absolute with one slash, or on a host
    /// that the rule names.
    Redirect(StatusCode, String),
    /// Answer what the site has under this path (decoded, without its leading slash), with this
    /// status: 200, or that of an error.
    Answer(StatusCode, Vec<u8>),
}

/// A rule that matches a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleMatch {
    /// Whether it takes precedence over a file.
    pub is_forced: bool,
    /// What it does.
    pub outcome: RuleOutcome,
}

/// A rule that does the same whatever it matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FixedRule {
    /// The number of its line.
    pub line: usize,
    /// The path, decoded, with its leading slash, where it matches one and whatever the query.
    pub path: Option<Vec<u8>>,
    /// Whether it takes precedence over a file.
    pub is_forced: bool,
    /// What it does.
    pub outcome: RuleOutcome,
}

/// Limit for the `Location` that is sent, in bytes: clients and proxies have limits of their own.
const MAX_LOCATION_LENGTH: usize = 16 << 10;

impl Default for Redirects {
    fn default() -> Self {
        Self::parse(b"", Dialect::default()).0
    }
}

impl Redirects {
    /// Reads a file. What is wrong with it takes nothing else away.
    #[must_use]
    pub fn parse(text: &[u8], dialect: Dialect) -> (Self, Vec<Complaint>) {
        read::parse(text, dialect)
    }

    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether some of them take precedence over files.
    #[must_use]
    pub fn has_forced(&self) -> bool {
        self.has_forced
    }

    /// A hash of all that they mean: equal for files that differ in comments and spaces.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The rules for every host that do the same whatever they match, but for those that no request
    /// comes to.
    pub fn fixed(&self) -> impl Iterator<Item = FixedRule> {
        let fixed = self.rules.iter().filter(|rule| rule.is_fixed());
        fixed.filter_map(|rule| {
            let example = rule.example();
            let (first, outcome) = self.first(example.asked())?;
            (first.line == rule.line).then(|| FixedRule {
                line: rule.line,
                path: rule.pattern.path().filter(|_| rule.parameters.is_empty()),
                is_forced: rule.is_forced,
                outcome,
            })
        })
    }

    /// The first rule that matches. A redirect to where the request already is does not match.
    #[must_use]
    pub fn find(&self, asked: Query<'_>) -> Option<RuleMatch> {
        let (rule, outcome) = self.first(asked)?;
        Some(RuleMatch {
            is_forced: rule.is_forced,
            outcome,
        })
    }

    /// The line of the first rule that matches and what it does, if it takes precedence over a file.
    #[must_use]
    pub fn first_forced(&self, asked: Query<'_>) -> Option<(usize, RuleOutcome)> {
        let (rule, outcome) = self.first(asked)?;
        rule.is_forced.then_some((rule.line, outcome))
    }

    fn first(&self, asked: Query<'_>) -> Option<(&Rule, RuleOutcome)> {
        let parameters = Parameters::new(asked.query);
        let mut candidates = self.candidates(asked, &parameters);
        candidates.find_map(|number| {
            let rule = self.rule(number)?;
            Some((rule, rule.outcome(asked, &parameters)?))
        })
    }

    /// The numbers of the rules that may match, lowest first.
    fn candidates(&self, asked: Query<'_>, parameters: &Parameters<'_>) -> Candidates<'_> {
        // Most sites have no such rule: then the query is not even parsed.
        let by_query = if self.by_query.is_empty() || asked.query.is_none() {
            None
        } else {
            let path = self.table.key(asked.path);
            self.by_query.get(&by_query(path, parameters.pairs()))
        };
        self.table
            .candidates(asked.path, by_query.map_or(&[], Vec::as_slice))
    }

    fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(number).ok()?)
    }
}

impl Rule {
    /// What it does with a request; `None` where it does not match.
    fn outcome(&self, asked: Query<'_>, parameters: &Parameters<'_>) -> Option<RuleOutcome> {
        if let Some(host) = &self.host
            && !asked.host.is_some_and(|asked| host.matches(asked))
        {
            return None;
        }
        let captures = self.pattern.captures(asked.path)?;
        let values = self.values(parameters)?;
        let pattern_names = self.pattern.names().len();
        let captured = |number: usize| match number.checked_sub(pattern_names) {
            None => captures.captured(number, asked.path),
            Some(number) => values.get(number).map_or(&[][..], Vec::as_slice),
        };
        match &self.action {
            Action::Answer(status, template) => {
                let mut path = Vec::new();
                template.fill(&mut path, captured, as_it_is);
                let path = without_empty_segments(&path);
                let path = path.strip_prefix(b"/").unwrap_or(&path);
                Some(RuleOutcome::Answer(*status, path.to_vec()))
            }
            Action::Redirect(status, location) => {
                // What a rule captures from the query has gone where it belongs.
                let query = asked.query.filter(|_| self.parameters.is_empty());
                let location = location.fill(asked, captured, query)?;
                Some(RuleOutcome::Redirect(*status, location))
            }
        }
    }

    /// Whether it is for every host, and leads to one place.
    fn is_fixed(&self) -> bool {
        let is_one_place = match &self.action {
            Action::Answer(_, path) => path.literal().is_some(),
            Action::Redirect(_, location) => [&location.query, &location.fragment]
                .into_iter()
                .flatten()
                .chain([&location.path])
                .all(|template| template.literal().is_some()),
        };
        self.host.is_none() && is_one_place
    }

    /// Its parameters, where none of them is captured and the path is one.
    fn fixed_query(&self) -> Option<Pairs> {
        if !self.pattern.is_exact() || self.parameters.is_empty() {
            return None;
        }
        self.parameters
            .iter()
            .map(|each| Some((each.key.to_vec(), each.value.as_ref()?.to_vec())))
            .collect()
    }

    /// What the query has for the parameters that are captured; `None` where it has others, or not
    /// all of them.
    fn values(&self, parameters: &Parameters<'_>) -> Option<Vec<Vec<u8>>> {
        if self.parameters.is_empty() {
            return Some(Vec::new());
        }
        let given = parameters.pairs();
        if given.len() != self.parameters.len() {
            return None;
        }
        let mut values = Vec::new();
        for wanted in &self.parameters {
            let given = given.get(&*wanted.key)?;
            match &wanted.value {
                Some(value) if **value != **given => return None,
                Some(_) => {}
                None => values.push(given.clone()),
            }
        }
        Some(values)
    }
}

impl Location {
    /// The reference; `None` where it would lead to where the request already is.
    fn fill<'p>(
        &self,
        asked: Query<'_>,
        captured: impl Fn(usize) -> &'p [u8],
        query: Option<&str>,
    ) -> Option<String> {
        let mut path = Vec::new();
        self.path.fill(&mut path, &captured, in_path);
        let path = match self.origin {
            // `/:splat` must not make `//host` of what is captured.
            None => without_empty_segments(&path),
            Some(_) => Cow::Borrowed(&*path),
        };
        let is_same_host = self.origin.as_ref().is_none_or(|origin| {
            asked
                .host
                .is_some_and(|host| host.eq_ignore_ascii_case(&origin.host))
        });
        let mut text = match &self.origin {
            Some(origin) => origin.text.as_bytes().to_vec(),
            None => Vec::new(),
        };
        text.extend_from_slice(&path);
        let is_same_query = match (&self.query, query) {
            (Some(template), _) => {
                let start = text.len() + 1;
                text.push(b'?');
                template.fill(&mut text, &captured, in_query);
                text.get(start..) == asked.query.map(str::as_bytes)
            }
            (None, Some(query)) => {
                text.push(b'?');
                text.extend_from_slice(query.as_bytes());
                true
            }
            (None, None) => asked.query.is_none(),
        };
        if let Some(template) = &self.fragment {
            text.push(b'#');
            template.fill(&mut text, &captured, in_query);
        }
        // A redirect to itself would loop in every browser. The path is compared last: it has to be
        // encoded for that.
        let is_self_redirect =
            is_same_host && is_same_query && *path == *encode_path(asked.path).as_bytes();
        if text.len() > MAX_LOCATION_LENGTH || is_self_redirect {
            return None;
        }
        String::from_utf8(text).ok()
    }
}

/// A path and all parameters of a query, in one order.
fn by_query(path: &[u8], pairs: &Pairs) -> Vec<u8> {
    let mut key = path.to_vec();
    for (name, value) in pairs {
        key.push(b'&');
        in_query(name, &mut key);
        key.push(b'=');
        in_query(value, &mut key);
    }
    key
}

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The parameters of a query, read when the first rule asks for them.
struct Parameters<'a> {
    query: Option<&'a str>,
    pairs: OnceCell<Pairs>,
}

impl<'a> Parameters<'a> {
    fn new(query: Option<&'a str>) -> Self {
        Self {
            query,
            pairs: OnceCell::new(),
        }
    }

    /// Decoded, the first of each key.
    fn pairs(&self) -> &Pairs {
        self.pairs.get_or_init(|| {
            let mut pairs = Pairs::new();
            let texts = self.query.unwrap_or_default().split('&');
            for text in texts.filter(|text| !text.is_empty()) {
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                pairs.entry(decoded(key)).or_insert_with(|| decoded(value));
            }
            pairs
        })
    }
}

/// Decodes a part of a query as HTML forms encode it: `+` is a space (WHATWG URL, urlencoded).
fn decoded(text: &str) -> Vec<u8> {
    let spaces: Vec<u8> = text
        .bytes()
        .map(|byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    percent_decode(&spaces).collect()
}
