//! Whether a page's Content-Security-Policy (CSP level 3) lets it reload by itself: pure.

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use http::{HeaderMap, header};

/// The first policy of a response that keeps its page from reloading by itself. `host` is the
/// authority that the request names.
pub(super) fn forbidding(fields: &HeaderMap, page: &[u8], host: &str) -> Option<String> {
    fields
        .get_all(header::CONTENT_SECURITY_POLICY)
        .iter()
        .filter_map(|line| Some(line.to_str().ok()?.to_owned()))
        .chain(policies_in_markup(page))
        .find_map(|line| {
            // Several policies may stand in one field line; each of them has to allow it.
            let mut policies = line.split(',').map(str::trim);
            policies
                .find(|policy| !is_allowed_by(policy, host))
                .map(str::to_owned)
        })
}

/// Whether a policy allows a script of the site, and an event stream through it: in a worker or
/// in the page.
fn is_allowed_by(policy: &str, host: &str) -> bool {
    let directive = |name: &str| {
        policy.split(';').find_map(|directive| {
            let mut words = directive.split_ascii_whitespace();
            let is_named = words.next()?.eq_ignore_ascii_case(name);
            is_named.then(|| words.map(str::to_ascii_lowercase).collect::<Vec<_>>())
        })
    };
    // CSP section 6.8: a directive that is not there falls back to the next of its list.
    let is_allowed = |names: &[&str]| {
        let sources = names.iter().find_map(|name| directive(name));
        sources.is_none_or(|sources| is_source(&sources, host))
    };
    let sandbox = directive("sandbox");
    let has_origin = sandbox.is_none_or(|allowed| {
        ["allow-scripts", "allow-same-origin"]
            .iter()
            .all(|keyword| allowed.iter().any(|word| word == keyword))
    });
    has_origin
        && is_allowed(&["script-src-elem", "script-src", "default-src"])
        && (is_allowed(&["worker-src", "child-src", "script-src", "default-src"])
            || is_allowed(&["connect-src", "default-src"]))
}

/// Whether this site is among the sources of a directive.
fn is_source(sources: &[String], host: &str) -> bool {
    // CSP section 8.2: with this keyword only scripts with a nonce or a hash are allowed.
    if sources.iter().any(|source| source == "'strict-dynamic'") {
        return false;
    }
    sources.iter().any(|source| {
        let authority = source.split_once("://").map_or(&**source, |(_, rest)| rest);
        matches!(&**source, "'self'" | "*" | "http:" | "https:")
            || authority.trim_end_matches('/').eq_ignore_ascii_case(host)
    })
}

/// The policies in the head of a page: `<meta http-equiv="Content-Security-Policy" content=..>`.
/// Elsewhere they have no effect (HTML, section 4.2.5.3).
fn policies_in_markup(page: &[u8]) -> impl Iterator<Item = String> + '_ {
    let mut emitter = DefaultEmitter::default();
    // The content of <script> and <style> is no markup.
    emitter.naively_switch_states(true);
    Tokenizer::new_with_emitter(page, emitter)
        .map_while(|token| match token.ok()? {
            Token::StartTag(tag) if !HEAD.contains(&&**tag.name) => None,
            Token::StartTag(tag) => Some(policy_of(&tag)),
            _ => Some(None),
        })
        .flatten()
}

/// What a head consists of: the first tag of anything else ends it (HTML, section 13.2.6.4.4).
const HEAD: [&[u8]; 10] = [
    b"base",
    b"head",
    b"html",
    b"link",
    b"meta",
    b"noscript",
    b"script",
    b"style",
    b"template",
    b"title",
];

fn policy_of(tag: &StartTag<()>) -> Option<String> {
    let value = |name: &[u8]| {
        let value = tag.attributes.get(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let is_policy = **tag.name == *b"meta"
        && value(b"http-equiv")?.eq_ignore_ascii_case("content-security-policy");
    value(b"content").filter(|_| is_policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_allows_the_script_or_forbids_it() {
        for policy in [
            "",
            "default-src 'self'",
            "Default-Src 'SELF'; img-src *",
            "default-src 'none'; script-src 'self'; connect-src 'self'",
            "script-src 'self'; worker-src 'none'",
            "default-src http://localhost:8080",
            "script-src localhost:8080 'nonce-x'; object-src 'none'",
            "default-src *",
            "img-src 'none'",
            "sandbox allow-scripts allow-same-origin",
        ] {
            assert!(is_allowed_by(policy, "localhost:8080"), "{policy}");
        }
        for policy in [
            "default-src 'none'",
            "default-src",
            "script-src 'nonce-x'",
            "script-src 'self' 'strict-dynamic' 'nonce-x'",
            "script-src 'self'; script-src-elem 'none'",
            "default-src 'none'; script-src 'self'; worker-src 'none'",
            "script-src https://cdn.example",
            "sandbox allow-scripts",
        ] {
            assert!(!is_allowed_by(policy, "localhost:8080"), "{policy}");
        }
    }

    #[test]
    fn a_page_may_have_policies_of_its_own() {
        let found = |page: &str| policies_in_markup(page.as_bytes()).collect::<Vec<_>>();
        assert_eq!(
            found(
                "<!doctype html><META content=\"default-src 'self'; img-src *\" \
                 http-equiv=Content-Security-Policy><meta charset=utf-8>\
                 <meta http-equiv='content-security-policy' content='script-src &#39;none&#39;' />"
            ),
            ["default-src 'self'; img-src *", "script-src 'none'"]
        );
        for none in [
            "",
            "<meta",
            "<meta http-equiv=refresh content=1>",
            "<meta name=x><p content=y http-equiv=content-security-policy>",
            "<meta http-equiv=\"content-security-policy",
            "<meta =>",
            "<meta http-equiv=content-security-policy content",
            "<!-- <meta http-equiv=content-security-policy content=x> -->",
            "<script>'<meta http-equiv=content-security-policy content=x>'</script>",
            "<body><meta http-equiv=content-security-policy content=x>",
        ] {
            assert_eq!(found(none), [""; 0], "{none}");
        }
    }

    /// Looking from each `<meta` to the end of the page would take hours for these.
    #[test]
    fn time_is_linear_in_the_page() {
        for part in ["<meta x ", "<meta x=\"", "<meta ", "<", "<meta><"] {
            let page = format!("<!doctype html>{}", part.repeat(1 << 19));
            assert_eq!(policies_in_markup(page.as_bytes()).count(), 0, "{part}");
        }
    }

    #[test]
    fn the_first_policy_that_forbids_is_found() {
        let mut fields = HeaderMap::new();
        let value = "default-src 'self', script-src 'none'";
        let value = value.parse().expect("a value");
        fields.insert(header::CONTENT_SECURITY_POLICY, value);
        let found = forbidding(&fields, b"", "localhost");
        assert_eq!(found.as_deref(), Some("script-src 'none'"));
        assert_eq!(forbidding(&HeaderMap::new(), b"<html>", "localhost"), None);
    }
}
