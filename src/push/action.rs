//! What to do about one path; a pure function.

use crate::semantics::etag::ETag;

/// The BLAKE3 of some content.
pub(super) type ContentHash = [u8; 32];

/// Which version on the server may be replaced or deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BaseVersion {
    /// Whatever is there now.
    Current,
    /// This one, or none. Anything else was changed by somebody else.
    Known(Option<ContentHash>),
}

/// What to do about one path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PushAction {
    /// Nothing: the server has what it should have.
    Nothing,
    /// Create: the server has nothing there.
    Create,
    /// Replace the version that the server has.
    Replace(ETag),
    /// Delete the version that the server has.
    Delete(ETag),
    /// Nothing: somebody else has changed or deleted it.
    Conflict(Option<ETag>),
}

impl PushAction {
    /// The action that brings the server from `remote` to `local`, if `base` allows it.
    pub(super) fn choose(
        local: Option<ContentHash>,
        remote: Option<ETag>,
        base: BaseVersion,
    ) -> Self {
        let current = remote.map(|tag| *tag.hash());
        if current == local {
            return Self::Nothing;
        }
        if base != BaseVersion::Current && base != BaseVersion::Known(current) {
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
            (
                "new",
                Some(a),
                None,
                BaseVersion::Current,
                PushAction::Create,
            ),
            (
                "same",
                Some(a),
                Some(tag_a),
                BaseVersion::Current,
                PushAction::Nothing,
            ),
            (
                "same under rules",
                Some(a),
                Some(ruled),
                BaseVersion::Current,
                PushAction::Nothing,
            ),
            (
                "changed",
                Some(a),
                Some(tag_b),
                BaseVersion::Current,
                PushAction::Replace(tag_b),
            ),
            (
                "removed",
                None,
                Some(tag_b),
                BaseVersion::Current,
                PushAction::Delete(tag_b),
            ),
            (
                "nowhere",
                None,
                None,
                BaseVersion::Current,
                PushAction::Nothing,
            ),
            (
                "new to all",
                Some(a),
                None,
                BaseVersion::Known(None),
                PushAction::Create,
            ),
            (
                "changed here",
                Some(a),
                Some(tag_b),
                BaseVersion::Known(Some(b)),
                PushAction::Replace(tag_b),
            ),
            (
                "removed here",
                None,
                Some(tag_b),
                BaseVersion::Known(Some(b)),
                PushAction::Delete(tag_b),
            ),
            (
                "changed alike",
                Some(a),
                Some(tag_a),
                BaseVersion::Known(Some(b)),
                PushAction::Nothing,
            ),
            (
                "removed alike",
                None,
                None,
                BaseVersion::Known(Some(b)),
                PushAction::Nothing,
            ),
            (
                "changed there",
                Some(a),
                Some(tag_b),
                BaseVersion::Known(Some(a)),
                PushAction::Conflict(Some(tag_b)),
            ),
            (
                "changed twice",
                Some(a),
                Some(tag_b),
                BaseVersion::Known(Some(c)),
                PushAction::Conflict(Some(tag_b)),
            ),
            (
                "created twice",
                Some(a),
                Some(tag_b),
                BaseVersion::Known(None),
                PushAction::Conflict(Some(tag_b)),
            ),
            (
                "removed there",
                Some(a),
                None,
                BaseVersion::Known(Some(a)),
                PushAction::Conflict(None),
            ),
            (
                "removed here, changed there",
                None,
                Some(tag_b),
                BaseVersion::Known(Some(a)),
                PushAction::Conflict(Some(tag_b)),
            ),
        ];
        for (name, local, remote, base, want) in cases {
            assert_eq!(PushAction::choose(local, remote, base), want, "{name}");
        }
    }
}
