//! Applies the header rules of a site to its resources. That happens at publication, so that a
//! request finds the fields and the tags of its answer ready.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::header::{self, HeaderName, HeaderValue};

use crate::representation::{Fields, NO_STORE, REVALIDATE, Resource, Ruled};
use crate::rules::{Matching, Overlay, Rules};
use crate::semantics::coding::Coding;
use crate::semantics::dictionary::USE_AS_DICTIONARY;

/// Rules, and the fields they have produced so far.
#[derive(Debug, Default)]
pub(super) struct HeaderRules {
    rules: Arc<Rules>,
    /// Keyed by the address of the built-in fields, which the produced ones keep alive, and the
    /// matching rules.
    shared: RwLock<HashMap<(usize, Matching), Arc<Fields>>>,
}

/// Distinct sets of fields to keep; beyond this number they are produced for each resource.
const MAX_SHARED_FIELDS: usize = 1 << 16;

impl HeaderRules {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            shared: RwLock::default(),
        }
    }

    pub(super) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The resource with the fields that the rules give it, or the same one if it has them already.
    pub(super) fn apply_to(&self, resource: Arc<Resource>) -> Arc<Resource> {
        let is_plain = resource.fields.ruled.is_none() && resource.clean().is_none();
        if self.rules.headers.is_empty() && is_plain {
            return resource;
        }
        let built_in = resource.fields.built_in();
        let fields = self.fields(built_in, &with_slash(&resource.path));
        let clean = clean_path(&resource.path)
            .map(|path| self.fields(built_in, &with_slash(path)))
            .filter(|clean| *clean != fields);
        // A coding that was just proven has no suffix yet, even if the fields are those it needs.
        let suffix = fields.suffix();
        let are_tagged = resource
            .representations()
            .chain(resource.of_files().1)
            .all(|each| each.etag.fields() == suffix);
        let has_clean = resource.clean().is_some() || clean.is_some();
        if fields == resource.fields && are_tagged && !has_clean {
            return resource;
        }
        let mut ruled = resource.with_fields(fields);
        ruled.set_clean(clean.map(|fields| Arc::new(resource.with_fields(fields))));
        Arc::new(ruled)
    }

    /// The resource with the fields that the rules give it at another path, for a host.
    pub(super) fn resource_at_path<'m>(
        &self,
        resource: &'m Arc<Resource>,
        path: &[u8],
        host: Option<&str>,
    ) -> Cow<'m, Arc<Resource>> {
        let headers = &self.rules.headers;
        if headers.is_empty() {
            return Cow::Borrowed(resource);
        }
        if !headers.has_hosts() {
            if *path == *resource.path {
                return Cow::Borrowed(resource);
            }
            let clean = clean_path(&resource.path);
            if clean.is_some_and(|clean| path.strip_suffix(b"/").unwrap_or(path) == clean) {
                return Cow::Borrowed(resource.clean().unwrap_or(resource));
            }
        }
        let asked = with_slash(path);
        let matching = headers.matching(&asked, host);
        let at_own_path = headers.matching(&with_slash(&resource.path), None);
        if matching == at_own_path && headers.is_fixed_for(&matching) {
            return Cow::Borrowed(resource);
        }
        let overlay = headers.overlay(&matching, &asked);
        let fields = make(resource.fields.built_in(), overlay);
        if fields == resource.fields {
            return Cow::Borrowed(resource);
        }
        Cow::Owned(Arc::new(resource.with_fields(fields)))
    }

    /// A generated page with the fields that the rules give to `path` and `host`. Fields about the
    /// content are left out, since they are meant for the site's own, and the page's policy
    /// replaces that of the rules, which may forbid its style and script.
    pub(super) fn page_at_path(
        &self,
        page: &Resource,
        policy: Option<HeaderValue>,
        path: &[u8],
        host: Option<&str>,
    ) -> Resource {
        let headers = &self.rules.headers;
        let path = with_slash(path);
        let mut overlay = headers.overlay(&headers.matching(&path, host), &path);
        overlay
            .lines
            .retain(|(name, _)| !name.as_str().starts_with("content-"));
        overlay
            .lines
            .extend(policy.map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
        page.with_fields(make(page.fields.built_in(), overlay))
    }

    /// The fields that the rules produce from built-in ones for a path, shared by all paths that
    /// match the same rules.
    fn fields(&self, built_in: &Arc<Fields>, path: &[u8]) -> Arc<Fields> {
        let headers = &self.rules.headers;
        let matching = headers.matching(path, None);
        if matching.is_empty() {
            return Arc::clone(built_in);
        }
        if !headers.is_fixed_for(&matching) {
            return make(built_in, headers.overlay(&matching, path));
        }
        let key = (Arc::as_ptr(built_in) as usize, matching);
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(fields) = shared.get(&key) {
            return Arc::clone(fields);
        }
        drop(shared);
        let fields = make(built_in, headers.overlay(&key.1, path));
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        if shared.len() >= MAX_SHARED_FIELDS {
            return fields;
        }
        Arc::clone(shared.entry(key).or_insert(fields))
    }
}

/// Built-in fields with the changes of an overlay.
fn make(built_in: &Arc<Fields>, overlay: Overlay) -> Arc<Fields> {
    let Overlay {
        lines,
        removed,
        vary,
        ..
    } = overlay;
    // A file that was still changing may be stored by nobody, whatever a rule says.
    let is_settled = built_in.cache_control != NO_STORE;
    let removed: Box<[_]> = removed
        .into_iter()
        .filter(|name| {
            (*name == header::CACHE_CONTROL && is_settled)
                || *name == header::X_CONTENT_TYPE_OPTIONS
                || *name == USE_AS_DICTIONARY
        })
        .collect();
    let mut content_type = built_in.content_type.clone();
    let mut cache_control = match removed.contains(&header::CACHE_CONTROL) {
        true => REVALIDATE,
        false => built_in.cache_control.clone(),
    };
    let mut content_encoding = built_in.content_encoding;
    // A rule may say that content is compressed only where the scan has proven it, and then the type
    // is that of what comes out, unless a rule has that too.
    let decoded = built_in.decoded.as_ref().filter(|decoded| {
        let token = decoded.decoding.coding.token();
        let mut lines = lines.iter();
        lines.any(|(name, value)| *name == header::CONTENT_ENCODING && value == token)
    });
    if let Some(decoded) = decoded {
        content_encoding = Some(decoded.decoding.coding);
        content_type = decoded.content_type.clone();
    }
    let mut others = Vec::with_capacity(lines.len());
    for (name, value) in lines {
        match name {
            header::CONTENT_ENCODING => {}
            header::CONTENT_TYPE => content_type = value,
            header::CACHE_CONTROL if is_settled => cache_control = value,
            header::CACHE_CONTROL => {}
            name => others.push((name, value)),
        }
    }
    let mut ruled = Ruled {
        built_in: Arc::clone(built_in),
        lines: others.into(),
        removed,
        vary,
        suffix: None,
    };
    let is_same = content_type == built_in.content_type
        && content_encoding == built_in.content_encoding
        && cache_control == built_in.cache_control
        && ruled.lines.is_empty()
        && ruled.removed.is_empty()
        && ruled.vary.is_none();
    if is_same {
        return Arc::clone(built_in);
    }
    ruled.suffix = suffix(&content_type, content_encoding, &ruled);
    Arc::new(Fields {
        content_type,
        cache_control,
        content_encoding,
        decoded: built_in.decoded.clone(),
        ruled: Some(Box::new(ruled)),
    })
}

/// The suffix of the tag (P1): the first 4 bytes of the BLAKE3 of the fields that a browser does
/// not update from a 304 and that differ from the built-in ones, hashed as lines `name: value`
/// with LF, ordered. `None` if there are none.
fn suffix(
    content_type: &HeaderValue,
    content_encoding: Option<Coding>,
    ruled: &Ruled,
) -> Option<[u8; 4]> {
    let mut pinned: Vec<(&str, &[u8])> = Vec::new();
    if let Some(coding) = content_encoding
        && ruled.built_in.content_encoding != Some(coding)
    {
        let token = coding.token().as_bytes();
        pinned.push((header::CONTENT_ENCODING.as_str(), token));
    }
    if *content_type != ruled.built_in.content_type {
        pinned.push((header::CONTENT_TYPE.as_str(), content_type.as_bytes()));
    }
    pinned.extend(
        ruled
            .lines
            .iter()
            .filter(|(name, value)| {
                let is_built_in = *name == header::X_CONTENT_TYPE_OPTIONS && value == "nosniff";
                is_pinned(name) && !is_built_in
            })
            .map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
    pinned.extend(
        ruled
            .removed
            .iter()
            .filter(|name| is_pinned(name))
            .map(|name| (name.as_str(), &b""[..])),
    );
    if pinned.is_empty() {
        return None;
    }
    pinned.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (name, value) in pinned {
        for piece in [name.as_bytes(), b": ", value, b"\n"] {
            hasher.update(piece);
        }
    }
    hasher.finalize().as_bytes().first_chunk().copied()
}

/// Whether browsers keep the old value of a field when a 304 has a new one (Chromium
/// decides it in `ShouldUpdateHeader`, net/http/http_response_headers.cc).
fn is_pinned(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "content-type" | "content-language" | "content-disposition" | "x-frame-options"
    ) || name.starts_with("x-content-")
}

fn with_slash(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

/// The other path at which an HTML file answers: `about` for `about.html`, `docs` for
/// `docs/index.html`. Rules ignore a slash at its end.
fn clean_path(path: &[u8]) -> Option<&[u8]> {
    match path.strip_suffix(b"index.html") {
        Some([]) => Some(&[]),
        Some([directory @ .., b'/']) => Some(directory),
        _ => path.strip_suffix(b".html"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Dialect, RuleFile};

    #[test]
    fn no_rule_makes_a_file_cacheable_that_is_still_changing() {
        for (text, settled) in [
            (
                "/*\n  Cache-Control: public, max-age=60\n",
                "public, max-age=60",
            ),
            ("/*\n  ! Cache-Control\n", "none"),
            ("/*\n  ! Cache-Control\n  X-Any: x\n", "none"),
        ] {
            let rules =
                Rules::default().with(RuleFile::Headers, Some(text.as_bytes()), Dialect::Netlify);
            let rules = HeaderRules::new(Arc::new(rules.expect("other rules")));
            let cache_control = |built_in: HeaderValue| {
                let text = HeaderValue::from_static("text/plain");
                let fields = rules.fields(&Arc::new(Fields::new(text, built_in)), b"/file");
                let removed = fields.ruled.as_ref().map(|ruled| &ruled.removed);
                match removed.is_some_and(|names| names.contains(&header::CACHE_CONTROL)) {
                    true => HeaderValue::from_static("none"),
                    false => fields.cache_control.clone(),
                }
            };
            assert_eq!(cache_control(REVALIDATE), settled, "{text}");
            assert_eq!(cache_control(NO_STORE), NO_STORE, "{text}");
        }
    }
}
