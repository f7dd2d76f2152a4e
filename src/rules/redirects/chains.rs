//! Rules that lead to each other: those that are never used, and those that come back to where
//! they began.

use percent_encoding::percent_decode;

use super::{Action, Parameters, Query, Redirects, Rule, RuleOutcome};
use crate::rules::complaint::Complaints;
use crate::rules::template::in_query;

/// Stands for what a placeholder captures: no rule file contains it.
const SEGMENT: &[u8] = b"\x01";
const REST: &[u8] = b"\x01/\x01";

/// Browsers give up after 20 redirects (WHATWG Fetch, HTTP-redirect fetch).
const MAX_REDIRECTS: usize = 20;

/// Looks at rules. What that may cost is limited; the limit counts the segments that are looked at,
/// not time, so that every replica finds the same.
pub(super) struct Chains {
    segments_left: usize,
    is_over_budget: bool,
}

impl Default for Chains {
    fn default() -> Self {
        Self {
            segments_left: 500_000,
            is_over_budget: false,
        }
    }
}

/// Where a rule leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// To no other redirect.
    End,
    /// To this rule.
    Rule(usize),
}

impl Chains {
    /// Whether the limit was reached, so that some loops may have been missed.
    pub(super) fn is_over_budget(&self) -> bool {
        self.is_over_budget
    }

    /// Complains of rules that an earlier one keeps from ever being used.
    pub(super) fn find_unused(&mut self, redirects: &Redirects, complaints: &mut Complaints) {
        for (number, rule) in redirects.rules.iter().enumerate() {
            let example = rule.example();
            let asked = example.asked();
            let parameters = Parameters::new(asked.query);
            if rule.outcome(asked, &parameters).is_none() {
                let reason = "redirects to itself: it changes at most the scheme or a trailing slash, \
                              which are ignored when matching";
                complaints.warning(rule.line, reason);
                continue;
            }
            let Some(before) = self.first(redirects, asked, &parameters) else {
                continue;
            };
            let Some(earlier) = redirects.rules.get(before).filter(|_| before < number) else {
                continue;
            };
            // One example says enough of a single path, and of what lets anything follow.
            let is_same = rule.pattern.is_exact() || earlier.pattern.is_open();
            if is_same && earlier.parameters.is_empty() {
                let reason = format!("never used: line {} matches first", earlier.line);
                complaints.warning(rule.line, reason);
            }
        }
    }

    /// Complains of rules that lead back to themselves. Where no file can end a loop, the rule that
    /// closes it is left out: the result is what remains then.
    pub(super) fn without_loops(
        &mut self,
        redirects: &Redirects,
        complaints: &mut Complaints,
    ) -> Option<Vec<Rule>> {
        let rules = &redirects.rules;
        let next: Vec<Next> = rules
            .iter()
            .map(|rule| self.next(redirects, rule))
            .collect();
        let by_example = circles(&next);
        let mut dropped = vec![false; rules.len()];
        for circle in by_example.into_iter().chain(self.walks(redirects, &next)) {
            let members = || circle.iter().filter_map(|number| rules.get(*number));
            let Some(last) = circle.iter().max() else {
                continue;
            };
            let Some(line) = rules.get(*last).map(|rule| rule.line) else {
                continue;
            };
            let mut others: Vec<_> = members().map(|rule| rule.line).collect();
            others.retain(|other| *other != line);
            others.sort_unstable();
            let way = match others.first() {
                Some(other) => format!(" through line {other}"),
                None => String::new(),
            };
            if members().all(|rule| rule.is_forced) {
                complaints.error(line, format!("ignored: redirect loop{way}"));
                if let Some(slot) = dropped.get_mut(*last) {
                    *slot = true;
                }
            } else {
                let reason = format!("redirect loop{way} unless a file exists there");
                complaints.warning(line, reason);
            }
        }
        if !dropped.contains(&true) {
            return None;
        }
        let kept = rules.iter().zip(&dropped).filter(|(_, dropped)| !**dropped);
        Some(kept.map(|(rule, _)| rule.clone()).collect())
    }

    /// The redirect that answers whoever follows this one.
    fn next(&mut self, redirects: &Redirects, rule: &Rule) -> Next {
        let found = self.follow(redirects, rule, &rule.example());
        found.map_or(Next::End, |(number, _)| Next::Rule(number))
    }

    /// What an example can't show: ways that come back to where they began by a rule for that one
    /// path and another for many.
    fn walks(&mut self, redirects: &Redirects, next: &[Next]) -> Vec<Vec<usize>> {
        let rules = &redirects.rules;
        let mut circles = Vec::new();
        for (start, (rule, next)) in rules.iter().zip(next).enumerate() {
            let Next::Rule(second) = next else { continue };
            if !rule.pattern.is_exact()
                || rules
                    .get(*second)
                    .is_none_or(|second| second.pattern.is_exact())
            {
                continue;
            }
            let (mut at, mut rule) = (rule.example(), rule);
            let mut circle = vec![start];
            while circle.len() <= MAX_REDIRECTS {
                let Some((number, place)) = self.follow(redirects, rule, &at) else {
                    break;
                };
                if number == start {
                    circles.push(circle);
                    break;
                }
                let Some(following) = rules.get(number) else {
                    break;
                };
                circle.push(number);
                (at, rule) = (place, following);
            }
        }
        circles
    }

    /// The redirect that answers whoever follows `rule` from a place, and where that is.
    fn follow(
        &mut self,
        redirects: &Redirects,
        rule: &Rule,
        from: &ExampleRequest,
    ) -> Option<(usize, ExampleRequest)> {
        let Action::Redirect(..) = rule.action else {
            return None;
        };
        let asked = from.asked();
        let outcome = rule.outcome(asked, &Parameters::new(asked.query))?;
        let RuleOutcome::Redirect(_, location) = outcome else {
            return None;
        };
        let place = ExampleRequest::from_location(&location, asked.host)?;
        let asked = place.asked();
        let parameters = Parameters::new(asked.query);
        let number = self.first(redirects, asked, &parameters)?;
        let outcome = redirects.rules.get(number)?.outcome(asked, &parameters)?;
        matches!(outcome, RuleOutcome::Redirect(..)).then_some((number, place))
    }

    /// The first rule that matches, as long as there is something left of the limit.
    fn first(
        &mut self,
        redirects: &Redirects,
        asked: Query<'_>,
        parameters: &Parameters<'_>,
    ) -> Option<usize> {
        for number in redirects.candidates(asked, parameters) {
            let number = usize::try_from(number).ok()?;
            let rule = redirects.rules.get(number)?;
            let Some(left) = self.segments_left.checked_sub(rule.pattern.segments()) else {
                self.is_over_budget = true;
                return None;
            };
            self.segments_left = left;
            if rule.outcome(asked, parameters).is_some() {
                return Some(number);
            }
        }
        None
    }
}

/// A request that a rule matches, to find out which rule comes next.
pub(super) struct ExampleRequest {
    path: Vec<u8>,
    query: Option<String>,
    host: Option<String>,
}

impl ExampleRequest {
    pub(super) fn asked(&self) -> Query<'_> {
        Query {
            path: &self.path,
            query: self.query.as_deref(),
            host: self.host.as_deref(),
        }
    }

    /// Where a `Location` leads; `None` where it leaves `host`.
    fn from_location(location: &str, host: Option<&str>) -> Option<Self> {
        let location = location.split('#').next().unwrap_or(location);
        let (path, query) = match location.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (location, None),
        };
        let path = match path.split_once("://").filter(|_| !path.starts_with('/')) {
            None => path,
            Some((_, rest)) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                host.filter(|host| authority.eq_ignore_ascii_case(host))?;
                path
            }
        };
        Some(Self {
            path: percent_decode(path.as_bytes()).collect(),
            query: query.map(str::to_owned),
            host: host.map(str::to_owned),
        })
    }
}

impl Rule {
    /// A request that the rule matches, with control characters for what is captured.
    pub(super) fn example(&self) -> ExampleRequest {
        let mut query = Vec::new();
        for parameter in &self.parameters {
            if !query.is_empty() {
                query.push(b'&');
            }
            in_query(&parameter.key, &mut query);
            query.push(b'=');
            in_query(parameter.value.as_deref().unwrap_or(SEGMENT), &mut query);
        }
        let query = String::from_utf8(query).ok();
        ExampleRequest {
            path: self.pattern.example(SEGMENT, REST),
            query: query.filter(|query| !query.is_empty()),
            host: self.host.as_ref().map(|host| host.text().to_owned()),
        }
    }
}

/// The circles in a map where everything leads to one thing at most.
fn circles(next: &[Next]) -> Vec<Vec<usize>> {
    // Which walk has come by: 0 for none.
    let mut seen = vec![0_usize; next.len()];
    let mut circles = Vec::new();
    for start in 0..next.len() {
        let walk = start + 1;
        let mut at = start;
        let mut path = Vec::new();
        loop {
            match seen.get_mut(at) {
                Some(mark) if *mark == 0 => *mark = walk,
                Some(mark) if *mark == walk => {
                    let begin = path.iter().position(|seen| *seen == at);
                    circles.extend(begin.and_then(|begin| path.get(begin..).map(<[_]>::to_vec)));
                    break;
                }
                _ => break,
            }
            path.push(at);
            match next.get(at) {
                Some(Next::Rule(following)) => at = *following,
                _ => break,
            }
        }
    }
    circles
}
