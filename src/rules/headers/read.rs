//! Parses the lines of a `_headers` file into blocks.

use std::borrow::Cow;
use std::collections::HashSet;

use http::header::{self, HeaderName, HeaderValue};

use super::{Block, FieldValue, Headers, MATCHING_OPTIONS, MAX_OVERLAY_SIZE, has_one_value};
use crate::rules::complaint::{
    Complaint, Complaints, MAX_CLOUDFLARE_LINE_LENGTH, MAX_LINE_LENGTH, RuleFile, lines, shown,
};
use crate::rules::frame;
use crate::rules::host::Host;
use crate::rules::pattern::{Pattern, almost_placeholder};
use crate::rules::table::Table;
use crate::rules::template::Template;
use crate::semantics::coding::Coding;

/// Cloudflare's limit for blocks.
const MAX_CLOUDFLARE_BLOCKS: usize = 100;
/// Limits for blocks with a placeholder or a `*`, and with more than one `*`: one path may have to be
/// compared with each.
const MAX_PATTERNS: (usize, usize) = (10_000, 100);

/// Reads the lines of a file.
pub(super) fn parse(text: &[u8]) -> (Headers, Vec<Complaint>) {
    let mut reader = HeadersParser {
        blocks: Vec::new(),
        current: Current::Nothing,
        patterns: (0, 0),
        complaints: Complaints::new(RuleFile::Headers),
        hasher: blake3::Hasher::new(),
    };
    for (number, line) in lines(text) {
        reader.line(number, line);
    }
    reader.finish()
}

struct HeadersParser {
    blocks: Vec<Block>,
    current: Current,
    /// With a placeholder or a `*`, and with more than one `*`.
    patterns: (usize, usize),
    complaints: Complaints,
    hasher: blake3::Hasher,
}

/// Where fields belong that come now.
enum Current {
    /// Nowhere: no path has come yet.
    Nothing,
    /// Nowhere: the path was refused, with its reason.
    Refused,
    Block(Box<OpenBlock>),
}

struct OpenBlock {
    /// As it was written.
    path: Vec<u8>,
    block: Block,
    names: HashSet<HeaderName>,
}

impl HeadersParser {
    fn line(&mut self, number: usize, line: &[u8]) {
        if line.len() > MAX_LINE_LENGTH {
            let reason = "ignored: the line is longer than 16 KiB";
            self.complaints.error(number, reason);
            if is_path(line) {
                self.close();
                self.current = Current::Refused;
            }
            return;
        }
        if line.len() > MAX_CLOUDFLARE_LINE_LENGTH {
            let reason = "Cloudflare ignores lines longer than 2000 characters";
            self.complaints.note(number, reason);
        }
        if is_path(line) {
            self.close();
            self.current = match self.path(number, line) {
                Ok(block) => Current::Block(Box::new(block)),
                Err(reason) => {
                    let reason = format!("{} is not a valid path: {reason}", shown(line));
                    self.complaints.error(number, reason);
                    Current::Refused
                }
            };
            return;
        }
        if let Err(reason) = self.field(number, line) {
            self.complaints.error(number, reason);
        }
    }

    fn path(&mut self, line: usize, text: &[u8]) -> Result<OpenBlock, &'static str> {
        let (host, path) = match scheme(text) {
            None => (None, text),
            Some(rest) => {
                let end = rest.iter().position(|byte| b"/?#".contains(byte));
                let (host, path) = rest.split_at(end.unwrap_or(rest.len()));
                let host = std::str::from_utf8(host).map_err(|_| "invalid host")?;
                let note = "Netlify does not support hosts in _headers";
                self.complaints.note(line, note);
                if text.get(..5).is_some_and(|scheme| scheme != b"https") {
                    self.complaints
                        .note(line, "Cloudflare requires https:// here");
                }
                let path = if path.is_empty() { &b"/"[..] } else { path };
                (Some(Host::parse(host)?), path)
            }
        };
        let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
        let (path, ignored) = path.split_at(end.unwrap_or(path.len()));
        if !ignored.is_empty() {
            let reason = format!("{} is not part of a path: ignored", shown(ignored));
            self.complaints.warning(line, reason);
        }
        let pattern = Pattern::parse(path, MATCHING_OPTIONS)?;
        if let Some(segment) = almost_placeholder(path) {
            let reason = format!(
                "{} is literal text: the name of a placeholder begins with a letter",
                shown(segment)
            );
            self.complaints.warning(line, reason);
        }
        let (patterns, multi_splat) = &mut self.patterns;
        *patterns += usize::from(!pattern.is_exact());
        *multi_splat += usize::from(pattern.splats() > 1);
        if *multi_splat > MAX_PATTERNS.1 {
            return Err("more than 100 paths with more than one *");
        }
        if *patterns > MAX_PATTERNS.0 {
            return Err("more than 10000 paths with placeholders");
        }
        if pattern.splats() > 1 {
            let reason = "Cloudflare rejects more than one * in a path";
            self.complaints.note(line, reason);
        }
        Ok(OpenBlock {
            path: text.to_vec(),
            block: Block {
                line,
                host,
                pattern,
                removed: Vec::new(),
                set: Vec::new(),
            },
            names: HashSet::new(),
        })
    }

    fn field(&mut self, number: usize, line: &[u8]) -> Result<(), Cow<'static, str>> {
        let colon = line.iter().position(|byte| *byte == b':');
        let open = match &mut self.current {
            Current::Block(open) => open,
            // Its path has been complained of.
            Current::Refused => return Ok(()),
            Current::Nothing => {
                return Err("a path, beginning with /, must come before its fields".into());
            }
        };
        let Some(colon) = colon else {
            let Some(name) = line.strip_prefix(b"!") else {
                return Err("expected a path, \"Name: value\" or \"! Name\"".into());
            };
            let name = field_name(name.trim_ascii())?;
            if name == header::VARY || name == header::CONTENT_TYPE {
                let reason = format!("{name} cannot be removed: responses would be misinterpreted");
                return Err(reason.into());
            }
            if !line.starts_with(b"! ") {
                let note = "Cloudflare requires a space after !";
                self.complaints.note(number, note);
            }
            self.complaints
                .note(number, "Netlify does not support removing a field");
            open.block.removed.push(name);
            return Ok(());
        };
        let (name, value) = line.split_at(colon);
        let name = field_name(name.trim_ascii_end())?;
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        if value.is_empty() {
            return Err(format!("{name} has no value; \"! {name}\" removes a field").into());
        }
        let coding = match name == header::CONTENT_ENCODING {
            true => Some(content_coding(value)?),
            false => None,
        };
        // Tokens have no case, and their one form is compared later.
        let value = coding.map_or(value, |coding| coding.token().as_bytes());
        let parsed = HeaderValue::from_bytes(value)
            .map_err(|_| format!("the value of {name} contains control characters"))?;
        let template = Template::parse(value, open.block.pattern.names(), <[u8]>::to_vec)?;
        let value = if template.literal().is_some() {
            FieldValue::Fixed(parsed)
        } else {
            let note = "Netlify sends placeholders in values as literal text";
            self.complaints.note(number, note);
            FieldValue::Template(template)
        };
        if matches!(
            name.as_str(),
            "alt-svc" | "content-encoding" | "server" | "set-cookie"
        ) {
            let note = format!("Netlify ignores {name} here");
            self.complaints.note(number, note);
        }
        if !open.names.insert(name.clone()) && has_one_value(&name) {
            let reason =
                format!("{name} can have only one value: this one replaces the previous one");
            self.complaints.warning(number, reason);
        }
        open.block.set.push((name, value));
        Ok(())
    }

    /// Takes over the block that ends here.
    fn close(&mut self) {
        let Current::Block(open) = std::mem::replace(&mut self.current, Current::Nothing) else {
            return;
        };
        let OpenBlock { path, block, .. } = *open;
        let line = block.line;
        if block.set.is_empty() && block.removed.is_empty() {
            self.complaints
                .warning(line, "no fields follow this path: it has no effect");
            return;
        }
        if block.size() > MAX_OVERLAY_SIZE {
            let reason = "more than 64 KiB of fields follow this path: the last ones are ignored";
            self.complaints.error(line, reason);
        }
        frame(&mut self.hasher, &path);
        self.hasher
            .update(&(block.removed.len() as u64).to_le_bytes());
        for name in &block.removed {
            frame(&mut self.hasher, name.as_str().as_bytes());
        }
        self.hasher.update(&(block.set.len() as u64).to_le_bytes());
        for (name, value) in &block.set {
            frame(&mut self.hasher, name.as_str().as_bytes());
            match value {
                FieldValue::Fixed(value) => frame(&mut self.hasher, value.as_bytes()),
                FieldValue::Template(template) => frame(&mut self.hasher, &template.text()),
            }
        }
        self.blocks.push(block);
        if self.blocks.len() == MAX_CLOUDFLARE_BLOCKS + 1 {
            let note = "Cloudflare reads only the first 100 paths";
            self.complaints.note(line, note);
        }
    }

    fn finish(mut self) -> (Headers, Vec<Complaint>) {
        self.close();
        let mut table = Table::new(MATCHING_OPTIONS);
        for (number, block) in (0..).zip(&self.blocks) {
            table.insert(number, &block.pattern);
        }
        let headers = Headers {
            has_codings: self.blocks.iter().any(|block| {
                let mut set = block.set.iter();
                set.any(|(name, _)| name == header::CONTENT_ENCODING)
            }),
            has_hosts: self.blocks.iter().any(|block| block.host.is_some()),
            blocks: self.blocks,
            table,
            hash: *self.hasher.finalize().as_bytes(),
        };
        (headers, self.complaints.finish())
    }
}

fn field_name(name: &[u8]) -> Result<HeaderName, Cow<'static, str>> {
    if name.is_empty() {
        return Err("the field name is missing".into());
    }
    let Ok(parsed) = HeaderName::from_bytes(name) else {
        return Err(format!("{} is not a valid field name", shown(name)).into());
    };
    match refusal(&parsed) {
        Some(reason) => Err(format!("rules cannot set or remove {parsed}: {reason}").into()),
        None => Ok(parsed),
    }
}

/// The coding that a rule says content has. A file that was encoded twice has no name for that.
fn content_coding(value: &[u8]) -> Result<Coding, Cow<'static, str>> {
    Coding::from_token(value)
        .filter(|coding| *coding != Coding::Identity)
        .ok_or_else(|| {
            let value = shown(value);
            format!("content-encoding is one of gzip, br and zstd, not {value}").into()
        })
}

fn is_path(line: &[u8]) -> bool {
    line.starts_with(b"/") || scheme(line).is_some()
}

/// What follows `https://` or another scheme.
fn scheme(line: &[u8]) -> Option<&[u8]> {
    let end = line.iter().position(|byte| !byte.is_ascii_alphanumeric())?;
    let (scheme, rest) = line.split_at(end);
    (!scheme.is_empty()).then_some(())?;
    rest.strip_prefix(b"://")
}

/// Why no rule may set or remove a field.
fn refusal(name: &HeaderName) -> Option<&'static str> {
    Some(match name.as_str() {
        "etag" => "the tag is computed from the content",
        "last-modified" => "the date is the file's; --last-modified off omits it",
        "content-length" | "content-range" | "accept-ranges" => "it is computed from the content",
        "repr-digest" | "content-digest" | "digest" | "content-md5" => {
            "a digest is computed from the content; see --repr-digest"
        }
        "date" | "age" => "the server's clock sets it",
        "allow" => "it states what the server supports",
        "location" => "redirects belong in _redirects",
        "connection"
        | "keep-alive"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade" => "it controls the connection",
        "basic-auth" => "etagd does not check passwords: the path is not protected",
        _ => return None,
    })
}
