//! Accept-Encoding: the choice is one of what is there, never a refused one while identity or
//! another is acceptable, and does not depend on the order in which representations are listed.
//!
//! Input: a line with the representations (`i`, `b`, `z`, `g`, each with its length behind it),
//! then the lines of Accept-Encoding.
#![no_main]

use etagd::semantics::coding::{Coding, prefer};
use etagd_fuzz::{append, lines, trim};
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = lines(input);
    let mut available = available(lines.next().unwrap_or_default());
    let lines: Vec<_> = lines.collect();
    let mut fields = HeaderMap::new();
    if append(&mut fields, &ACCEPT_ENCODING, lines.iter().copied()).is_none() {
        return;
    }
    let index = prefer(&fields, &available);
    let Some(chosen) = available.get(index).copied() else {
        assert!(index == 0 && available.is_empty());
        return;
    };
    let has_identity = available
        .iter()
        .any(|(coding, _)| *coding == Coding::Identity);

    if available.len() > 1 && has_identity {
        // One of them alone is sent as it is; without identity anything is better than nothing.
        let weight = |coding| weight(&lines, coding);
        let known = read(&lines).is_some() && !lines.is_empty();
        let is_fallback = chosen.0 == Coding::Identity;
        assert!(is_fallback || (known && weight(chosen.0) > Some(0)));
        for (coding, length) in &available {
            if known && *coding != Coding::Identity && weight(*coding) > Some(0) {
                let (chosen, better) = (
                    (weight(chosen.0).unwrap_or(0), u64::MAX - chosen.1),
                    (weight(*coding).unwrap_or(0), u64::MAX - length),
                );
                assert!(chosen >= better, "{coding:?} is wanted more, or shorter");
            }
        }
        for _ in 0..available.len() {
            available.rotate_left(1);
            assert_eq!(available[prefer(&fields, &available)], chosen);
        }
        available.reverse();
        assert_eq!(available[prefer(&fields, &available)], chosen);
    }
});

/// Each coding once, as a resource has them.
fn available(line: &[u8]) -> Vec<(Coding, u64)> {
    let mut available: Vec<(Coding, u64)> = Vec::new();
    for byte in line {
        let coding = match byte {
            b'i' => Coding::Identity,
            b'b' => Coding::Brotli,
            b'z' => Coding::Zstd,
            b'g' => Coding::Gzip,
            digit => {
                if let Some((_, length)) = available.last_mut() {
                    *length = length.wrapping_mul(10).wrapping_add(u64::from(digit & 15));
                }
                continue;
            }
        };
        if available.iter().all(|(known, _)| *known != coding) {
            available.push((coding, 0));
        }
    }
    available
}

/// Thousandths for `coding`: what its first member says, else what `*` says.
fn weight(lines: &[&[u8]], coding: Coding) -> Option<u32> {
    let members = read(lines)?;
    let find = |tokens: &[&str]| {
        let named = |(name, _): &&(String, u32)| tokens.contains(&name.as_str());
        members.iter().find(named).map(|(_, weight)| *weight)
    };
    let own = match coding {
        Coding::Gzip => find(&["gzip", "x-gzip"]),
        coding => find(&[coding.token()]),
    };
    own.or_else(|| find(&["*"]))
}

/// All members with their weights; `None` where one does not parse.
fn read(lines: &[&[u8]]) -> Option<Vec<(String, u32)>> {
    let members = lines
        .iter()
        .flat_map(|line| line.split(|byte| *byte == b','));
    let members = members.map(trim).filter(|member| !member.is_empty());
    members.map(member).collect()
}

fn member(member: &[u8]) -> Option<(String, u32)> {
    let text = str::from_utf8(member).ok()?;
    let (name, parameter) = match text.split_once(';') {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (text, None),
    };
    let ows = [' ', '\t'];
    let name = name.trim_end_matches(ows).to_ascii_lowercase();
    let is_token = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        return None;
    }
    let Some(parameter) = parameter else {
        return Some((name, 1000));
    };
    let parameter = parameter.trim_matches(ows).to_ascii_lowercase();
    let qvalue = parameter.strip_prefix("q=")?;
    let (whole, fraction) = qvalue.split_once('.').unwrap_or((qvalue, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u32 = format!("{fraction:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some((name, thousandths)),
        ("1", 0) => Some((name, 1000)),
        _ => None,
    }
}
