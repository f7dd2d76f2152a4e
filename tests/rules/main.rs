//! What `_headers` and `_redirects` mean, case by case. Each case names where the behaviour is
//! documented or implemented; `etagd` where it is a decision of this server.
//!
//! | Source | Where |
//! |---|---|
//! | `cf-headers` | <https://developers.cloudflare.com/pages/configuration/headers/> |
//! | `cf-parse-headers` | cloudflare/workers-sdk, `workers-shared/utils/configuration/parseHeaders.ts` and its tests |
//! | `cf-parse-redirects` | the same, `parseRedirects.ts` and its tests |
//! | `cf-redirects` | <https://developers.cloudflare.com/pages/configuration/redirects/> |
//! | `cf-rules-engine` | cloudflare/workers-sdk, `asset-worker/src/utils/rules-engine.ts` and its tests |
//! | `cf-handler` | the same, `asset-worker/src/handler.ts` and `utils/headers.ts` |
//! | `gitlab` | gitlab-org/gitlab-pages, `internal/redirects/matching_test.go` |
//! | `ipfs` | <https://specs.ipfs.tech/http-gateways/web-redirects-file/> |
//! | `netlify-headers` | <https://docs.netlify.com/routing/headers/> |
//! | `netlify-for-regexp` | netlify/build, `packages/headers-parser/src/for_regexp.ts` and its tests |
//! | `netlify-headers-parser` | the same, `line_parser.ts`, `normalize.ts` and their tests |
//! | `netlify-options` | <https://docs.netlify.com/routing/redirects/redirect-options/> |
//! | `netlify-redirect-parser` | netlify/build, `packages/redirect-parser/src/line_parser.js` and its tests |
//! | `netlify-redirects` | netlify/primitives, `packages/redirects/src/main.ts` |
//! | `rfc6265`, `rfc9110` | the RFC |

// Each expectation is of a table; none of these can fail but by the code under test.
#![allow(clippy::expect_used, reason = "all of it is a test")]

mod headers;
mod limits;
mod redirects;

use etagd::rules::{Complaint, Severity};

/// `3 error: the reason`, in order, one a line; only those at least as severe as `from`.
fn text(complaints: &[Complaint], from: Severity) -> Vec<String> {
    let wanted = complaints.iter().filter(|each| each.severity >= from);
    let text = wanted.map(|each| {
        let severity = match each.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        format!("{} {severity}: {}", each.line, each.reason)
    });
    text.collect()
}

/// Whether each complaint contains what is wanted of it, in order.
fn assert_complaints(case: &str, complaints: &[Complaint], from: Severity, wanted: &[&str]) {
    let found = text(complaints, from);
    let is_so = found.len() == wanted.len()
        && found.iter().zip(wanted).all(|(found, wanted)| {
            let (start, rest) = wanted.split_once(": ").unwrap_or((wanted, ""));
            found.starts_with(start) && found.contains(rest)
        });
    assert!(is_so, "{case}: complains\n{found:#?}\nwanted\n{wanted:#?}");
}
