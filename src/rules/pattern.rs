//! Paths as rule files write them: `/blog/:year/*`.
//!
//! A [`Pattern`] is held against a path that is decoded, has its leading slash and no empty
//! segments. That is linear in the path: a placeholder ends at the next slash, and what stands
//! around a `*` is anchored, or searched for once from left to right.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memmem, memrchr};
use percent_encoding::percent_decode;

/// The platforms read the same text differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MatchOptions {
    /// `/a` and `/a/` are one path, and `/a/*` matches `/a` (Netlify).
    pub(super) lenient: bool,
    /// `:name` is a placeholder anywhere in a segment (Cloudflare), not only at its beginning.
    pub(super) inner_placeholders: bool,
    /// ASCII letters stand for either case. Paths are then to be given in lower case.
    pub(super) any_case: bool,
    /// More than one `*` is allowed.
    pub(super) many_splats: bool,
}

/// Limit for the placeholders and splats of a pattern, and of a target.
pub(super) const MAX_NAMES: usize = 16;
/// What a `*` is called in targets and values.
pub(super) const SPLAT: &str = "splat";

/// A pattern for paths.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern {
    options: MatchOptions,
    head: Run,
    /// Each `*`, and what follows it; what follows the last one is anchored at the end.
    splats: Vec<Splat>,
    /// Of all placeholders and splats, in the order written.
    names: Vec<Box<str>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Splat {
    /// It is a segment of its own, which may be missing together with its slash.
    is_optional: bool,
    name: usize,
    after: Run,
}

/// Segments with slashes between them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Run(Vec<PatternSegment>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct PatternSegment {
    before: Box<[u8]>,
    hole: Option<Hole>,
}

/// A placeholder, and what follows it in its segment.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Hole {
    name: usize,
    after: Box<[u8]>,
}

/// What a match has found for each name, as places in the path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Captures(Vec<Range<usize>>);

impl Captures {
    /// What stands in `path` for the name with this number.
    pub(super) fn captured<'p>(&self, name: usize, path: &'p [u8]) -> &'p [u8] {
        let range = self.0.get(name).cloned().unwrap_or_default();
        path.get(range).unwrap_or_default()
    }
}

impl Pattern {
    /// Reads what begins with a slash; escapes stand for the bytes they encode.
    ///
    /// # Errors
    /// The reason why no path could be meant, or only one that etagd does not search for.
    pub(super) fn parse(text: &[u8], options: MatchOptions) -> Result<Self, &'static str> {
        let text = &without_empty_segments(text)[..];
        let text = match text.strip_suffix(b"/") {
            Some(rest) if options.lenient => rest,
            _ => text,
        };
        let mut runs = text.split(|byte| *byte == b'*').peekable();
        let mut names = Names::default();
        let mut splats: Vec<Splat> = Vec::new();
        let mut run = runs.next().unwrap_or_default();
        let mut head = None;
        loop {
            let next = runs.peek().copied();
            let is_own_segment = |after: &[u8]| {
                options.lenient && run.ends_with(b"/") && matches!(after, [] | [b'/', ..])
            };
            let is_optional = next.is_some_and(is_own_segment);
            if is_optional {
                run = run.strip_suffix(b"/").unwrap_or(run);
            }
            let leads = next.is_some() && !is_optional;
            let parsed = Run::parse(run, options, head.is_some(), leads, &mut names)?;
            match splats.last_mut() {
                None => head = Some(parsed),
                Some(splat) => splat.after = parsed,
            }
            if next.is_none() {
                break;
            }
            run = runs.next().unwrap_or_default();
            // `/*/*` asks for no more than `/*`.
            let is_same = splats
                .last()
                .is_some_and(|last| last.after.is_empty() && last.is_optional == is_optional);
            if !is_same {
                splats.push(Splat {
                    is_optional,
                    name: names.add(SPLAT)?,
                    after: Run(Vec::new()),
                });
            }
        }
        if splats.len() > 1 {
            if !options.many_splats {
                return Err("more than one *");
            }
            let between = splats.split_last().map_or(&[][..], |(_, others)| others);
            if between.iter().any(|splat| splat.after.has_holes()) {
                return Err("a placeholder between two * is not supported");
            }
        }
        Ok(Self {
            options,
            head: head.unwrap_or(Run(Vec::new())),
            splats,
            names: names.0,
        })
    }

    /// The names of what a match captures, in the order of their numbers.
    pub(super) fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Whether exactly one path matches, but for its slash.
    pub(super) fn is_exact(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether anything may follow.
    pub(super) fn is_open(&self) -> bool {
        self.splats.last().is_some_and(|last| last.after.is_empty())
    }

    /// How often a `*` was written.
    pub(super) fn splats(&self) -> usize {
        self.splats.len()
    }

    /// What a match has to look at, roughly.
    pub(super) fn segments(&self) -> usize {
        let after = self.splats.iter().map(|splat| splat.after.0.len() + 1);
        self.head.0.len() + after.sum::<usize>()
    }

    /// What `path` has for each name; `None` where it does not match.
    pub(super) fn captures(&self, path: &[u8]) -> Option<Captures> {
        // Most do not match, and need no memory to find that out.
        if !self.matches(path) {
            return None;
        }
        let mut ranges = vec![0..0; self.names.len()];
        self.find(path, &mut |name, range| {
            if let Some(slot) = ranges.get_mut(name) {
                *slot = range;
            }
        });
        Some(Captures(ranges))
    }

    /// Whether `path` matches.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        self.find(path, &mut |_, _| {})
    }

    fn find(&self, path: &[u8], note: &mut impl FnMut(usize, Range<usize>)) -> bool {
        let path = if self.is_open() {
            path
        } else {
            trim_slash(path, self.options)
        };
        let Some(mut at) = self.head.at_start(path, note) else {
            return false;
        };
        let Some((last, between)) = self.splats.split_last() else {
            return at == path.len();
        };
        for (splat, next) in between.iter().zip(self.splats.iter().skip(1)) {
            let Some(found) = splat.search(path, at, next) else {
                return false;
            };
            note(splat.name, splat.captured(path, at..found.start));
            at = found.end;
        }
        let Some(end) = last.after.at_end(path, at, note) else {
            return false;
        };
        let is_match = last.may_cover(path, at, end);
        if is_match {
            note(last.name, last.captured(path, at..end));
        }
        is_match
    }

    /// The path, where exactly one matches, but for its slash.
    pub(super) fn path(&self) -> Option<Vec<u8>> {
        let segments = self.head.0.iter().map(|segment| &*segment.before);
        self.is_exact()
            .then(|| segments.collect::<Vec<_>>().join(&b'/'))
    }

    /// The first segment of every path that matches, where that is one.
    pub(super) fn first_segment(&self) -> Option<&[u8]> {
        let [_, first, rest @ ..] = self.head.0.as_slice() else {
            return None;
        };
        // What follows must begin with a slash.
        let is_whole = match self.splats.first() {
            Some(splat) => splat.is_optional || !rest.is_empty(),
            None => true,
        };
        (first.hole.is_none() && is_whole).then_some(&*first.before)
    }

    /// A path that matches, with `segment` for each placeholder and `rest` for each `*`.
    pub(super) fn example(&self, segment: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        self.head.write(&mut path, segment);
        for splat in &self.splats {
            if splat.is_optional {
                path.push(b'/');
            }
            path.extend_from_slice(rest);
            splat.after.write(&mut path, segment);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        path
    }
}

impl Splat {
    /// Whether it may stand for `path[at..end]`.
    fn may_cover(&self, path: &[u8], at: usize, end: usize) -> bool {
        // A segment of its own begins with its slash; if it is missing, nothing is between.
        !self.is_optional || at == end || path.get(at) == Some(&b'/')
    }

    /// What it captures of that: all but its own slash.
    fn captured(&self, path: &[u8], covered: Range<usize>) -> Range<usize> {
        let is_slash = self.is_optional && path.get(covered.clone()).is_some_and(starts_with_slash);
        covered.start + usize::from(is_slash)..covered.end
    }

    /// The first place from `at` on where what follows it stands, and `next` may come after that.
    /// It has no placeholders.
    fn search(&self, path: &[u8], at: usize, next: &Self) -> Option<Range<usize>> {
        let mut wanted = Vec::new();
        self.after.write(&mut wanted, b"");
        memmem::find_iter(path.get(at..)?, &wanted)
            .map(|offset| at + offset..at + offset + wanted.len())
            .find(|found| {
                self.may_cover(path, at, found.start) && next.may_cover(path, found.end, path.len())
            })
    }
}

fn starts_with_slash(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'/')
}

impl Run {
    /// `follows` and `leads` say whether a `*` cuts into its first and last segment.
    fn parse(
        text: &[u8],
        options: MatchOptions,
        follows: bool,
        leads: bool,
        names: &mut Names,
    ) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let last = text.iter().filter(|byte| **byte == b'/').count();
        text.split(|byte| *byte == b'/')
            .enumerate()
            .map(|(number, text)| {
                let is_cut = (number == 0 && follows) || (number == last && leads);
                let segment = PatternSegment::parse(text, options, names)?;
                match segment.hole {
                    Some(_) if is_cut => Err("a placeholder next to a * is not supported"),
                    _ => Ok(segment),
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has_holes(&self) -> bool {
        self.0.iter().any(|segment| segment.hole.is_some())
    }

    /// Where it ends, if `path` begins with it.
    fn at_start(&self, path: &[u8], note: &mut impl FnMut(usize, Range<usize>)) -> Option<usize> {
        let mut at = 0_usize;
        for (number, segment) in self.0.iter().enumerate() {
            if number > 0 {
                if path.get(at) != Some(&b'/') {
                    return None;
                }
                at += 1;
            }
            let rest = path.get(at..)?;
            at += match &segment.hole {
                None => rest
                    .starts_with(&segment.before)
                    .then_some(segment.before.len())?,
                Some(hole) => {
                    let length = memchr(b'/', rest).unwrap_or(rest.len());
                    segment.fill(hole, at, rest.get(..length)?, note)?;
                    length
                }
            };
        }
        Some(at)
    }

    /// Where it begins, not before `from`, if `path` ends with it.
    fn at_end(
        &self,
        path: &[u8],
        from: usize,
        note: &mut impl FnMut(usize, Range<usize>),
    ) -> Option<usize> {
        let mut end = path.len();
        for (number, segment) in self.0.iter().enumerate().rev() {
            let rest = path.get(from..end)?;
            if number == 0 {
                end = from + rest.strip_suffix(&*segment.before)?.len();
                break;
            }
            let slash = from + memrchr(b'/', rest)?;
            let text = path.get(slash + 1..end)?;
            match &segment.hole {
                None if *text == *segment.before => {}
                None => return None,
                Some(hole) => segment.fill(hole, slash + 1, text, note)?,
            }
            end = slash;
        }
        Some(end)
    }

    fn write(&self, path: &mut Vec<u8>, hole: &[u8]) {
        for (number, segment) in self.0.iter().enumerate() {
            if number > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&segment.before);
            if let Some(Hole { after, .. }) = &segment.hole {
                path.extend_from_slice(hole);
                path.extend_from_slice(after);
            }
        }
    }
}

impl PatternSegment {
    fn parse(text: &[u8], options: MatchOptions, names: &mut Names) -> Result<Self, &'static str> {
        let literal = |bytes: &[u8]| -> Box<[u8]> {
            let mut bytes: Vec<u8> = percent_decode(bytes).collect();
            if options.any_case {
                bytes.make_ascii_lowercase();
            }
            bytes.into()
        };
        let place = placeholder(text, 0).filter(|at| *at == 0 || options.inner_placeholders);
        let Some(place) = place else {
            return Ok(Self {
                before: literal(text),
                hole: None,
            });
        };
        let (before, rest) = text.split_at(place);
        let rest = rest.strip_prefix(b":").unwrap_or(rest);
        // A whole segment is one name, dashes included.
        let is_whole = !options.inner_placeholders && name(rest, b"-") == rest.len();
        let length = name(rest, if is_whole { b"-" } else { b"" });
        let (name, after) = rest.split_at(length);
        if placeholder(after, 0).is_some() {
            return Err("more than one placeholder in a segment");
        }
        let name = names.add(std::str::from_utf8(name).unwrap_or_default())?;
        Ok(Self {
            before: literal(before),
            hole: Some(Hole {
                name,
                after: literal(after),
            }),
        })
    }

    /// Notes what `text`, which begins at `at`, has for the placeholder.
    fn fill(
        &self,
        hole: &Hole,
        at: usize,
        text: &[u8],
        note: &mut impl FnMut(usize, Range<usize>),
    ) -> Option<()> {
        let inside = text.strip_prefix(&*self.before)?;
        let inside = inside.strip_suffix(&*hole.after)?;
        let start = at + self.before.len();
        (!inside.is_empty()).then(|| note(hole.name, start..start + inside.len()))
    }
}

#[derive(Default)]
struct Names(Vec<Box<str>>);

impl Names {
    fn add(&mut self, name: &str) -> Result<usize, &'static str> {
        if self.0.len() >= MAX_NAMES {
            return Err("more than 16 placeholders");
        }
        self.0.push(name.into());
        Ok(self.0.len() - 1)
    }
}

/// Where the first placeholder from `from` on begins: a colon and a letter.
pub(super) fn placeholder(text: &[u8], from: usize) -> Option<usize> {
    text.windows(2)
        .skip(from)
        .position(|pair| matches!(pair, [b':', letter] if letter.is_ascii_alphabetic()))
        .map(|at| from + at)
}

/// A segment that was probably meant as a placeholder and is none, for its name does not begin with
/// a letter: `:_`, `:1st`.
pub(super) fn almost_placeholder(path: &[u8]) -> Option<&[u8]> {
    path.split(|byte| *byte == b'/').find(
        |segment| matches!(segment, [b':', first, ..] if first.is_ascii_digit() || *first == b'_'),
    )
}

/// The length of the name that `text` begins with; `also` are bytes that it may have, too.
pub(super) fn name(text: &[u8], also: &[u8]) -> usize {
    text.iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_' || also.contains(byte))
        .count()
}

/// `//` is `/`, in patterns as in paths.
pub(super) fn without_empty_segments(path: &[u8]) -> Cow<'_, [u8]> {
    if memmem::find(path, b"//").is_none() {
        return Cow::Borrowed(path);
    }
    let mut single = Vec::with_capacity(path.len());
    for byte in path {
        if *byte != b'/' || single.last() != Some(&b'/') {
            single.push(*byte);
        }
    }
    Cow::Owned(single)
}

pub(super) fn trim_slash(path: &[u8], options: MatchOptions) -> &[u8] {
    match path.strip_suffix(b"/") {
        Some(rest) if options.lenient => rest,
        _ => path,
    }
}
