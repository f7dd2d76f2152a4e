//! The access log: no client ends a field or a line, what is told is what was sent, and only
//! trusted proxies name a client.
//!
//! Input: User-Agent, Referer and the request target, a line each; further lines are
//! X-Forwarded-For.
#![no_main]

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use etagd::access::{AccessEntry, combined, json};
use etagd::client::{Peer, TrustedProxies, TrustedProxy};
use etagd::manifest::Manifest;
use etagd::metrics::{Door, Outcome};
use etagd::settings::Settings;
use etagd_fuzz::{append, lines};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use libfuzzer_sys::fuzz_target;

const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fuzz_target!(|input: &[u8]| {
    let mut lines = lines(input);
    let mut field = || HeaderValue::from_bytes(lines.next().unwrap_or_default()).ok();
    let (user_agent, referer) = (field(), field());
    let target = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let mut fields = HeaderMap::new();
    let name = HeaderName::from_static("x-forwarded-for");
    if append(&mut fields, &name, lines).is_none() {
        return;
    }
    let trusted = TrustedProxies::from(vec![TrustedProxy::Network("10.0.0.0/8".parse().unwrap())]);
    let client = trusted.client(NEAR.into(), &fields);
    if client != Peer::from(NEAR) {
        let Peer::Address(address) = client else {
            panic!("nobody came over a Unix socket");
        };
        // Somebody wrote it, in one way or another.
        let said = fields.get_all(&name).iter().map(|line| line.as_bytes());
        let said = said
            .map(String::from_utf8_lossy)
            .collect::<Vec<_>>()
            .join(",");
        let is_it = |text: &str| {
            let bare = text.trim_matches(['[', ']']);
            let with_port = text.parse().map(|socket: std::net::SocketAddr| socket.ip());
            let found = bare.parse().or(with_port).ok();
            found.is_some_and(|found: IpAddr| found.to_canonical() == address)
        };
        assert!(
            said.split(',').any(|each| is_it(each.trim_ascii())),
            "{said}: {client}"
        );
    }
    let stranger: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(trusted.client(stranger.into(), &fields), stranger.into());
    let mut ids = HeaderMap::new();
    for (name, id) in ["traceparent", "x-request-id"]
        .into_iter()
        .zip([&user_agent, &referer])
    {
        if let Some(id) = id {
            ids.insert(name, id.clone());
        }
    }
    assert_eq!(trusted.request_id(stranger.into(), &ids), None);
    let entry = AccessEntry {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(input.len() as u64),
        client,
        method: &Method::GET,
        target: &target,
        host: None,
        request_id: trusted.request_id(NEAR.into(), &ids),
        version: Version::HTTP_11,
        door: Door::Http1,
        status: Some(StatusCode::OK),
        bytes: 1,
        is_cut: false,
        elapsed: Duration::ZERO,
        tag: None,
        outcome: Outcome::None,
        coding: None,
        digest: Some(Manifest::empty(Settings::default()).digest()),
        referer: referer.as_ref(),
        user_agent: user_agent.as_ref(),
    };
    let mut line = Vec::new();
    combined(&entry, &mut line).expect("a vector");
    assert_one_line(&line);
    assert_eq!(closing_quotes(&line), Some(3));
    line.clear();
    json(&entry, &mut line).expect("a vector");
    assert_one_line(&line);
    let read: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
    assert_eq!(read["target"], *target);
    let told = user_agent.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    assert_eq!(read["user_agent"].as_str(), told.as_deref());
});

fn assert_one_line(line: &[u8]) {
    let inside = line.strip_suffix(b"\n").expect("its end");
    assert!(inside.iter().all(|byte| matches!(byte, b' '..=b'~')));
}

/// Quoted strings in a line; `None` where the last is open.
fn closing_quotes(line: &[u8]) -> Option<usize> {
    let (mut quotes, mut is_escaped) = (0, false);
    for byte in line {
        match (byte, is_escaped) {
            (_, true) => is_escaped = false,
            (b'\\', false) => is_escaped = true,
            (b'"', false) => quotes += 1,
            _ => {}
        }
    }
    (quotes % 2 == 0).then_some(quotes / 2)
}
