//! What to do about one path: pure.

use crate::semantics::etag::ETag;

/// The BLAKE3 of some content.
pub(super) type Hash = [u8; 32];

/// Which versions on the server may be given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Base {
    /// The one that was seen there.
    Seen,
    /// This one, or none; what is other was changed by somebody else.
    Was(Option<Hash>),
}

/// What to do about one path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It is as it should be.
    Nothing,
    /// The server has nothing there.
    Create,
    /// The server has this version there.
    Replace(ETag),
    /// The server has this version there, and should not.
    Delete(ETag),
    /// Somebody else has changed it to this.
    Conflict(Option<ETag>),
}

impl Step {
    /// What brings the server from `remote` to `local`, if `base` allows it.
    pub(super) fn of(local: Option<Hash>, remote: Option<ETag>, base: Base) -> Self {
        let there = remote.map(|tag| *tag.hash());
        if there == local {
            return Self::Nothing;
        }
        if base != Base::Seen && base != Base::Was(there) {
            return Self::Conflict(remote);
        }
        match (local, remote) {
            (Some(_), None) => Self::Create,
            (Some(_), Some(tag)) => Self::Replace(tag),
            (None, Some(tag)) => Self::Delete(tag),
            (None, None) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ways() {
        let (a, b, c) = ([1; 32], [2; 32], [3; 32]);
        let (tag_a, tag_b) = (ETag::new(a), ETag::new(b));
        let ruled = tag_a.with_fields([7; 4]);
        let cases = [
            ("new", Some(a), None, Base::Seen, Step::Create),
            ("same", Some(a), Some(tag_a), Base::Seen, Step::Nothing),
            (
                "same under rules",
                Some(a),
                Some(ruled),
                Base::Seen,
                Step::Nothing,
            ),
            (
                "changed",
                Some(a),
                Some(tag_b),
                Base::Seen,
                Step::Replace(tag_b),
            ),
            (
                "removed",
                None,
                Some(tag_b),
                Base::Seen,
                Step::Delete(tag_b),
            ),
            ("nowhere", None, None, Base::Seen, Step::Nothing),
            ("new to all", Some(a), None, Base::Was(None), Step::Create),
            (
                "changed here",
                Some(a),
                Some(tag_b),
                Base::Was(Some(b)),
                Step::Replace(tag_b),
            ),
            (
                "removed here",
                None,
                Some(tag_b),
                Base::Was(Some(b)),
                Step::Delete(tag_b),
            ),
            (
                "changed alike",
                Some(a),
                Some(tag_a),
                Base::Was(Some(b)),
                Step::Nothing,
            ),
            (
                "removed alike",
                None,
                None,
                Base::Was(Some(b)),
                Step::Nothing,
            ),
            (
                "changed there",
                Some(a),
                Some(tag_b),
                Base::Was(Some(a)),
                Step::Conflict(Some(tag_b)),
            ),
            (
                "changed twice",
                Some(a),
                Some(tag_b),
                Base::Was(Some(c)),
                Step::Conflict(Some(tag_b)),
            ),
            (
                "created twice",
                Some(a),
                Some(tag_b),
                Base::Was(None),
                Step::Conflict(Some(tag_b)),
            ),
            (
                "removed there",
                Some(a),
                None,
                Base::Was(Some(a)),
                Step::Conflict(None),
            ),
            (
                "removed here, changed there",
                None,
                Some(tag_b),
                Base::Was(Some(a)),
                Step::Conflict(Some(tag_b)),
            ),
        ];
        for (name, local, remote, base, want) in cases {
            assert_eq!(Step::of(local, remote, base), want, "{name}");
        }
    }
}
