//! Rules that lead to each other: those that are never used, and those that come back to where
//! they began.

use percent_encoding::percent_decode;

use super::{Action, Asked, Outcome, Parameters, Redirects, Rule};
use crate::rules::complaint::Complaints;
use crate::rules::host::Host;
use crate::rules::template::in_query;

/// Stands for what a placeholder captures: no file of rules has it.
const SEGMENT: &[u8] = b"\x01";
const REST: &[u8] = b"\x01/\x01";

/// Looks at rules. What that may cost is limited; the limit counts the segments that are looked at,
/// not time, so that every replica finds the same.
pub(super) struct Chains {
    segments_left: usize,
    is_over: bool,
}

impl Default for Chains {
    fn default() -> Self {
        Self {
            segments_left: 500_000,
            is_over: false,
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
    /// Whether not all was looked at.
    pub(super) fn are_over(&self) -> bool {
        self.is_over
    }

    /// Complains of rules that an earlier one keeps from ever being used.
    pub(super) fn find_unused(&mut self, redirects: &Redirects, complaints: &mut Complaints) {
        for (number, rule) in redirects.rules.iter().enumerate() {
            let path = rule.pattern.example(SEGMENT, REST);
            let host = rule.host.as_ref().map(Host::text);
            let query = rule.example_query();
            let query = (!query.is_empty()).then_some(&*query);
            let asked = Asked {
                path: &path,
                query,
                host,
            };
            let parameters = Parameters::new(query);
            if rule.outcome(asked, &parameters).is_none() {
                let reason = "leads to where it comes from, and so does nothing; http and https, \
                              /a and /a/ are the same here";
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
        let mut dropped = vec![false; rules.len()];
        for circle in circles(&next) {
            let members = || circle.iter().filter_map(|number| rules.get(*number));
            let Some(last) = circle.iter().max() else {
                continue;
            };
            let Some(line) = rules.get(*last).map(|rule| rule.line) else {
                continue;
            };
            let mut others: Vec<_> = members().map(|rule| rule.line).collect();
            others.retain(|other| *other != line);
            let way = match others.first() {
                Some(other) => format!(" by way of line {other}"),
                None => String::new(),
            };
            if members().all(|rule| rule.is_forced) {
                complaints.error(line, format!("leads back to itself{way}: left out"));
                if let Some(slot) = dropped.get_mut(*last) {
                    *slot = true;
                }
            } else {
                let reason = format!("leads back to itself{way} where no file ends it");
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
        let Action::Redirect(..) = rule.action else {
            return Next::End;
        };
        let path = rule.pattern.example(SEGMENT, REST);
        let host = rule.host.as_ref().map(Host::text);
        let query = rule.example_query();
        let query = (!query.is_empty()).then_some(&*query);
        let asked = Asked {
            path: &path,
            query,
            host,
        };
        let Some(Outcome::Redirect(_, location)) = rule.outcome(asked, &Parameters::new(query))
        else {
            return Next::End;
        };
        let Some((host, path, query)) = place(&location, host) else {
            return Next::End;
        };
        let asked = Asked {
            path: &path,
            query,
            host,
        };
        let parameters = Parameters::new(query);
        let found = self.first(redirects, asked, &parameters);
        let is_redirect = |number: &usize| {
            let outcome = redirects.rules.get(*number);
            let outcome = outcome.and_then(|other| other.outcome(asked, &parameters));
            matches!(outcome, Some(Outcome::Redirect(..)))
        };
        found.filter(is_redirect).map_or(Next::End, Next::Rule)
    }

    /// The first rule that matches, as long as there is something left of the limit.
    fn first(
        &mut self,
        redirects: &Redirects,
        asked: Asked<'_>,
        parameters: &Parameters<'_>,
    ) -> Option<usize> {
        for number in redirects.candidates(asked, parameters) {
            let number = usize::try_from(number).ok()?;
            let rule = redirects.rules.get(number)?;
            let Some(left) = self.segments_left.checked_sub(rule.pattern.segments()) else {
                self.is_over = true;
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

impl Rule {
    /// A query that matches.
    fn example_query(&self) -> String {
        let mut query = Vec::new();
        for parameter in &self.parameters {
            if !query.is_empty() {
                query.push(b'&');
            }
            in_query(&parameter.key, &mut query);
            query.push(b'=');
            in_query(parameter.value.as_deref().unwrap_or(SEGMENT), &mut query);
        }
        String::from_utf8(query).unwrap_or_default()
    }
}

/// Host, path and query of a `Location`; `None` where it leaves `host`.
fn place<'l>(
    location: &'l str,
    host: Option<&'l str>,
) -> Option<(Option<&'l str>, Vec<u8>, Option<&'l str>)> {
    let location = location.split('#').next().unwrap_or(location);
    let (path, query) = match location.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (location, None),
    };
    let path = match path.split_once("://") {
        None => path,
        Some((_, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            host.filter(|host| authority.eq_ignore_ascii_case(host))?;
            path
        }
    };
    Some((host, percent_decode(path.as_bytes()).collect(), query))
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
