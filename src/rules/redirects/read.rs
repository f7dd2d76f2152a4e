//! Parses the lines of a `_redirects` file into rules.

use std::borrow::Cow;
use std::collections::HashMap;

use http::StatusCode;
use percent_encoding::percent_decode;

use super::chains::Chains;
use super::url::url;
use super::{Action, Dialect, Location, Parameter, Redirects, Rule, by_query};
use crate::rules::complaint::{
    Complaint, Complaints, MAX_CLOUDFLARE_LINE_LENGTH, MAX_LINE_LENGTH, RuleFile, lines, shown,
};
use crate::rules::frame;
use crate::rules::host::Host;
use crate::rules::pattern::{MAX_NAMES, Pattern, almost_placeholder, placeholder};
use crate::rules::table::Table;
use crate::rules::template::{Template, as_uri, in_query};

/// Limit for rules with a placeholder or a `*`: one request may have to be compared with each.
const MAX_PATTERNS: usize = 10_000;
/// Cloudflare's limits for rules without and with placeholders.
const CLOUDFLARE_MAX_RULES: (usize, usize) = (2000, 100);

type Reason = Cow<'static, str>;

/// Reads the lines of a file.
pub(super) fn parse(text: &[u8], dialect: Dialect) -> (Redirects, Vec<Complaint>) {
    let mut reader = RedirectsParser {
        dialect,
        rules: Vec::new(),
        patterns: 0,
        seen: HashMap::new(),
        complaints: Complaints::new(RuleFile::Redirects),
    };
    for (number, line) in lines(text) {
        if let Err(reason) = reader.line(number, line) {
            reader.complaints.error(number, reason);
        }
    }
    let RedirectsParser {
        rules,
        mut complaints,
        ..
    } = reader;
    let mut redirects = Redirects::new(rules, dialect);
    let mut chains = Chains::default();
    chains.find_unused(&redirects, &mut complaints);
    while let Some(rest) = chains.without_loops(&redirects, &mut complaints) {
        redirects = Redirects::new(rest, dialect);
    }
    if chains.is_over_budget() {
        let note = "too many rules: not every unused rule and loop is reported";
        complaints.note(0, note);
    }
    (redirects, complaints.finish())
}

impl Redirects {
    fn new(rules: Vec<Rule>, dialect: Dialect) -> Self {
        let mut table = Table::new(dialect.options());
        let mut queries: HashMap<_, Vec<u32>> = HashMap::new();
        let mut hasher = blake3::Hasher::new();
        for (number, rule) in (0..).zip(&rules) {
            match rule.fixed_query() {
                Some(query) => {
                    let path = rule.pattern.example(b"", b"");
                    let key = by_query(table.key(&path), &query);
                    queries.entry(key).or_default().push(number);
                }
                None => table.insert(number, &rule.pattern),
            }
            frame(&mut hasher, &rule.text);
        }
        Self {
            has_forced: rules.iter().any(|rule| rule.is_forced),
            rules,
            table,
            by_query: queries,
            hash: *hasher.finalize().as_bytes(),
        }
    }
}

struct RedirectsParser {
    dialect: Dialect,
    rules: Vec<Rule>,
    patterns: usize,
    /// The line of each source, with host and parameters.
    seen: HashMap<Vec<u8>, usize>,
    complaints: Complaints,
}

/// A status as a rule writes it: `301`, `200!`.
#[derive(Clone, Copy)]
struct Status {
    code: StatusCode,
    is_forced: bool,
}

impl Status {
    const ALLOWED: [u16; 9] = [200, 301, 302, 303, 307, 308, 404, 410, 451];

    /// `None` where a token is no status at all.
    fn read(token: &[u8]) -> Option<Result<Self, Reason>> {
        let (digits, is_forced) = match token.strip_suffix(b"!") {
            Some(digits) => (digits, true),
            None => (token, false),
        };
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
        let code = digits
            .parse()
            .ok()
            .filter(|code| Self::ALLOWED.contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok());
        Some(match code {
            Some(code) => Ok(Self { code, is_forced }),
            None => Err(format!(
                "unsupported status {digits}; expected one of {}",
                Self::known()
            )
            .into()),
        })
    }

    fn known() -> String {
        Self::ALLOWED.map(|code| code.to_string()).join(", ")
    }
}

impl RedirectsParser {
    fn line(&mut self, number: usize, line: &[u8]) -> Result<(), Reason> {
        if line.len() > MAX_LINE_LENGTH {
            return Err("ignored: the line is longer than 16 KiB".into());
        }
        if line.len() > MAX_CLOUDFLARE_LINE_LENGTH {
            let note = "Cloudflare ignores lines longer than 2000 characters";
            self.complaints.note(number, note);
        }
        let tokens: Vec<_> = line
            .split(u8::is_ascii_whitespace)
            .filter(|token| !token.is_empty())
            .take_while(|token| !token.starts_with(b"#"))
            .collect();
        let Some((source, rest)) = tokens.split_first() else {
            return Ok(());
        };
        let Some(first) = rest.first() else {
            return Err("the target is missing: expected a path or a URL".into());
        };
        let (parameters, target, rest) = match Status::read(first) {
            Some(_) => (&[][..], None, rest),
            None => {
                let is_target = |token: &&[u8]| token.starts_with(b"/") || url(token).is_some();
                let Some(at) = rest.iter().position(is_target) else {
                    let reason = "the target is missing: it must begin with /, http:// or https://";
                    return Err(reason.into());
                };
                let (parameters, rest) = rest.split_at(at);
                let (target, rest) = rest.split_first().unwrap_or((first, &[]));
                (parameters, Some(*target), rest)
            }
        };
        let (status, rest) = match rest.split_first().map(|(first, _)| Status::read(first)) {
            Some(Some(status)) => (Some(status?), rest.get(1..).unwrap_or_default()),
            _ => (None, rest),
        };
        if let Some(unknown) = rest.first() {
            return Err(unexpected_token(unknown));
        }
        let rule = self.rule(number, source, parameters, target, status)?;
        let key = rule.source_text();
        if let Some(before) = self.seen.get(&key) {
            let reason = format!("never used: line {before} has the same source");
            self.complaints.warning(number, reason);
            return Ok(());
        }
        let is_exact = rule.pattern.is_exact();
        if !is_exact && self.patterns >= MAX_PATTERNS {
            return Err("ignored: more than 10000 rules with placeholders".into());
        }
        self.seen.insert(key, number);
        self.patterns += usize::from(!is_exact);
        self.rules.push(rule);
        let exact = self.rules.len() - self.patterns;
        let (most_exact, most_patterns) = CLOUDFLARE_MAX_RULES;
        let is_over = match is_exact {
            true => exact == most_exact + 1,
            false => self.patterns == most_patterns + 1,
        };
        if is_over {
            let note = "Cloudflare supports 2000 static rules and 100 rules with placeholders";
            self.complaints.note(number, note);
        }
        Ok(())
    }

    fn rule(
        &mut self,
        line: usize,
        source: &[u8],
        parameters: &[&[u8]],
        target: Option<&[u8]>,
        status: Option<Status>,
    ) -> Result<Rule, Reason> {
        let (host, path) = self.source(line, source)?;
        let pattern = Pattern::parse(&path, self.dialect.options())
            .map_err(|reason| format!("unsupported source: {reason}"))?;
        self.note_source(line, &path, &pattern, parameters);
        let parameters: Vec<_> = parameters
            .iter()
            .copied()
            .map(Parameter::read)
            .collect::<Result<_, _>>()?;
        let mut names = pattern.names().to_vec();
        names.extend(parameters.iter().filter_map(|each| each.name.clone()));
        if names.len() > MAX_NAMES {
            return Err("more than 16 placeholders".into());
        }
        let code = status.map_or(self.dialect.status(), |status| status.code);
        let own;
        let target = match target {
            Some(target) => target,
            // Netlify: `/path/* 200` without a target serves the existing file and stops there.
            None if code == StatusCode::OK && path.ends_with(b"/*") => {
                own = [path.strip_suffix(b"*").unwrap_or(&path), b":splat"].concat();
                &own
            }
            None => return Err("the target is missing: only \"/path/* 200\" can omit it".into()),
        };
        let action = self.action(line, code, target, &names)?;
        let is_forced = status.is_some_and(|status| status.is_forced);
        let is_index = target.ends_with(b"/index") || target.ends_with(b"/index.html");
        if is_index && url(target).is_none() && (path.ends_with(b"/*") || *path == *b"/") {
            match self.dialect {
                // Cloudflare rejects it too: with rules before files no file would ever be served.
                Dialect::Cloudflare => {
                    let reason = "this would replace every page with an index page, and Cloudflare \
                                  rejects it too; perhaps use --not-found \
                                  single-page-application";
                    return Err(reason.into());
                }
                Dialect::Netlify => {
                    let note = "Cloudflare rejects /index.html as the target of / and /*";
                    self.complaints.note(line, note);
                }
            }
        }
        self.note_status(line, status);
        let mut rule = Rule {
            line,
            host,
            pattern,
            parameters,
            action,
            is_forced: is_forced || self.dialect == Dialect::Cloudflare,
            source: path.into_owned().into(),
            text: Box::default(),
        };
        rule.text = rule.meaning_text(code, target);
        Ok(rule)
    }

    /// The host and the path of a source.
    fn source<'t>(
        &mut self,
        line: usize,
        text: &'t [u8],
    ) -> Result<(Option<Host>, Cow<'t, [u8]>), Reason> {
        let (host, path) = match url(text) {
            Some(url) => {
                self.complaints
                    .note(line, "Cloudflare does not support hosts in sources");
                let host = Host::parse(url.authority()?)?;
                if !host.is_exact() {
                    return Err(
                        "the source's host must be written out, without * or placeholders".into(),
                    );
                }
                (
                    Some(host),
                    if url.rest.is_empty() { b"/" } else { url.rest },
                )
            }
            None => (None, text),
        };
        let path = match (path, self.dialect) {
            ([b'/', ..], _) => Cow::Borrowed(path),
            (_, Dialect::Cloudflare) => Cow::Owned([b"/", path].concat()),
            (_, Dialect::Netlify) => {
                return Err(format!("{} does not begin with /", shown(path)).into());
            }
        };
        let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
        match (end, self.dialect) {
            (None, _) => Ok((host, path)),
            (Some(end), Dialect::Cloudflare) => {
                let (kept, ignored) = path.split_at(end);
                let reason = format!("{} in the source is ignored", shown(ignored));
                self.complaints.warning(line, reason);
                Ok((host, kept.to_vec().into()))
            }
            (Some(_), Dialect::Netlify) => {
                let reason = "a source cannot contain ? or #; match query parameters with \"key=value\" after it";
                Err(reason.into())
            }
        }
    }

    fn note_source(&mut self, line: usize, path: &[u8], pattern: &Pattern, parameters: &[&[u8]]) {
        if let Some(segment) = almost_placeholder(path) {
            let reason = format!(
                "{} is literal text: the name of a placeholder begins with a letter",
                shown(segment)
            );
            self.complaints.warning(line, reason);
        }
        let mut note = |text: &'static str| self.complaints.note(line, text);
        if path.starts_with(b"/.netlify") {
            note("Netlify rejects sources under /.netlify");
        }
        if !parameters.is_empty() {
            note("Cloudflare does not match query parameters");
        }
        if pattern.splats() > 0 && !path.ends_with(b"/*") {
            note("Netlify supports * only at the end, after a slash");
        }
        if path
            .windows(3)
            .any(|three| three[0] != b'/' && placeholder(three, 1).is_some())
        {
            note("Cloudflare treats :name as a placeholder anywhere, Netlify only after a slash");
        }
    }

    fn note_status(&mut self, line: usize, status: Option<Status>) {
        let Some(Status { code, is_forced }) = status else {
            return;
        };
        if is_forced {
            self.complaints.note(line, "Cloudflare rejects !");
        }
        if matches!(code.as_u16(), 404 | 410 | 451) {
            let note = format!("Cloudflare rejects status {}", code.as_u16());
            self.complaints.note(line, note);
        }
        if matches!(code.as_u16(), 303 | 307 | 308 | 410 | 451) {
            let note = format!("Netlify does not document status {}", code.as_u16());
            self.complaints.note(line, note);
        }
    }

    fn action(
        &mut self,
        line: usize,
        code: StatusCode,
        target: &[u8],
        names: &[Box<str>],
    ) -> Result<Action, Reason> {
        let (origin, rest) = match url(target) {
            Some(_) if !code.is_redirection() => {
                let reason = format!(
                    "etagd does not proxy: with status {} the target must be a path of this site",
                    code.as_u16()
                );
                return Err(reason.into());
            }
            Some(url) => (Some(url.origin()?), url.rest),
            None => (None, target),
        };
        if origin.is_none() && (rest.starts_with(b"//") || rest.starts_with(b"/\\")) {
            return Err(
                "a target that begins with // names another host: write https:// instead".into(),
            );
        }
        if let Some(origin) = &origin
            && origin.text.starts_with("http:")
        {
            self.complaints
                .note(line, "Cloudflare requires https:// here");
        }
        self.warn_about_names(line, rest, names);
        let (rest, fragment) = cut(rest, b'#');
        let (path, query) = cut(rest, b'?');
        if code.is_redirection() {
            let template = |text: &[u8]| Template::parse(text, names, as_uri);
            return Ok(Action::Redirect(
                code,
                Box::new(Location {
                    origin,
                    path: template(if path.is_empty() { b"/" } else { path })?,
                    query: query.map(template).transpose()?,
                    fragment: fragment.map(template).transpose()?,
                }),
            ));
        }
        if query.is_some() || fragment.is_some() {
            let reason = "? and # in the target are ignored: the response is a file";
            self.complaints.warning(line, reason);
        }
        let template = Template::parse(path, names, |text| percent_decode(text).collect())?;
        Ok(Action::Answer(code, template))
    }

    fn warn_about_names(&mut self, line: usize, target: &[u8], names: &[Box<str>]) {
        if target.contains(&b'*') {
            let reason =
                "a * in the target is literal; use \":splat\" for what the source's * matched";
            self.complaints.warning(line, reason);
        }
        let Ok(template) = Template::parse(target, names, <[u8]>::to_vec) else {
            return;
        };
        if template.has_unknown_names() {
            let reason = "a placeholder in the target is not in the source: it is kept as text";
            self.complaints.warning(line, reason);
        }
    }
}

impl Rule {
    /// A text that two rules share only if they match the same requests.
    fn source_text(&self) -> Vec<u8> {
        let host = self.host.as_ref().map_or("", Host::text);
        let mut text = [host.as_bytes(), b" "].concat();
        match self.pattern.is_exact() {
            true => text.extend(self.pattern.example(b"", b"")),
            false => text.extend_from_slice(&self.source),
        }
        let mut parameters: Vec<_> = self.parameters.iter().map(Parameter::text).collect();
        parameters.sort_unstable();
        for parameter in parameters {
            text.push(b' ');
            text.extend(parameter);
        }
        text
    }

    /// A text that two rules share only if they mean the same; it goes into the hash of the rules.
    fn meaning_text(&self, code: StatusCode, target: &[u8]) -> Box<[u8]> {
        let force = if self.is_forced { "!" } else { "" };
        let status = format!(" {}{force}", code.as_u16());
        let host = self.host.as_ref().map_or("", Host::text);
        let mut text = [host.as_bytes(), b" ", &self.source, b" "].concat();
        for parameter in &self.parameters {
            text.extend(parameter.text());
            text.push(b' ');
        }
        text.extend_from_slice(target);
        text.extend_from_slice(status.as_bytes());
        text.into()
    }
}

impl Parameter {
    /// `key=value` or `key=:name`.
    fn read(text: &[u8]) -> Result<Self, Reason> {
        let decoded = |text: &[u8]| -> Box<[u8]> { percent_decode(text).collect() };
        let (key, value) = match cut(text, b'=') {
            ([], _) | (_, None) => {
                let shown = shown(text);
                let reason =
                    format!("{shown} before the target is not a query parameter \"key=value\"");
                return Err(reason.into());
            }
            (key, Some(value)) => (decoded(key), value),
        };
        Ok(
            match value
                .strip_prefix(b":")
                .filter(|_| placeholder(value, 0) == Some(0))
            {
                Some(name) => Self {
                    key,
                    value: None,
                    name: Some(String::from_utf8_lossy(name).into()),
                },
                None => Self {
                    key,
                    value: Some(decoded(value)),
                    name: None,
                },
            },
        )
    }

    /// `key=value` or `key=:name`, encoded so that it has no space and is unambiguous.
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        in_query(&self.key, &mut text);
        text.push(b'=');
        match (&self.value, &self.name) {
            (Some(value), _) => in_query(value, &mut text),
            (None, name) => {
                text.push(b':');
                text.extend_from_slice(name.as_deref().unwrap_or_default().as_bytes());
            }
        }
        text
    }
}

/// The error for a token after the status.
fn unexpected_token(token: &[u8]) -> Reason {
    let shown = shown(token);
    match cut(token, b'=') {
        (key, Some(_)) if is_condition(key) => format!(
            "ignored: the condition {shown} is not supported, and without it the rule would \
             match too much"
        ),
        _ => format!("{shown} is neither a status nor a known condition"),
    }
    .into()
}

fn is_condition(key: &[u8]) -> bool {
    let known = ["Country", "Language", "Role", "Cookie", "Sign", "signed"];
    known
        .iter()
        .any(|known| key.eq_ignore_ascii_case(known.as_bytes()))
}

/// Splits at the first `at`, which is in neither part.
fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == at) {
        None => (text, None),
        Some(place) => {
            let (before, after) = text.split_at(place);
            (before, after.get(1..))
        }
    }
}
