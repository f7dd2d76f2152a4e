//! Why a store does not do what it was asked for, and what may help.
//!
//! No error has a secret: what object_store says of a failed signature may include the request that was
//! signed, with its session token, so of the answers of a store only the code and the message are shown.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use super::layout::ObjectKey;
use crate::settings::StoreUrl;

/// What was being done to an object, or to several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreAction {
    /// The store was opened.
    Open,
    /// An object was read.
    Read,
    /// An object was written.
    Write,
    /// Objects were listed.
    List,
    /// An object was deleted.
    Delete,
}

impl StoreAction {
    /// The permission of S3 that it needs.
    const fn permission(self) -> &'static str {
        match self {
            Self::Open | Self::List => "s3:ListBucket on the bucket",
            Self::Read => "s3:GetObject",
            Self::Write => "s3:PutObject",
            Self::Delete => "s3:DeleteObject",
        }
    }

    /// The permission of a folder that it needs.
    const fn access(self) -> &'static str {
        match self {
            Self::Open | Self::Read | Self::List => "read",
            Self::Write | Self::Delete => "write",
        }
    }
}

impl fmt::Display for StoreAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

/// What kind of failure it is, for those who can do something about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreErrorKind {
    /// There is no such object.
    Missing,
    /// The bucket or the folder does not exist.
    NoBucket,
    /// The store knows who asks, and does not allow it.
    Forbidden,
    /// The store does not know who asks: no credentials, wrong ones, or ones that have expired.
    Unauthenticated,
    /// There is no answer, or one that breaks off.
    Unreachable,
    /// The store answers that it can't now: 5xx, or 429.
    Busy,
    /// It does what was asked, and not as it was asked, or says that it never will.
    Refused,
    /// An object is longer than anything that etagd writes there.
    TooLarge,
    /// What was read is damaged, or of another version.
    Unusable,
    /// The disk of a folder is full, or can't be written to.
    NoRoom,
    /// This program lacks a feature.
    Unsupported,
}

/// Why a store does not do what it was asked for.
#[derive(Clone, Debug)]
pub struct StoreError {
    /// What kind of failure it is.
    pub kind: StoreErrorKind,
    action: StoreAction,
    /// The object, or the folder of objects; `None` for the store as a whole.
    key: Option<String>,
    store: StoreUrl,
    reason: String,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            action,
            key,
            store,
            reason,
            ..
        } = self;
        match key {
            Some(key) => write!(f, "cannot {action} {key} of {store}: {reason}"),
            None => write!(f, "cannot {action} {store}: {reason}"),
        }
    }
}

impl StdError for StoreError {}

impl StoreError {
    /// Whether the same request may succeed later, without anybody doing anything about it here.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Unreachable | StoreErrorKind::Busy
        )
    }
}

/// What an error is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorContext<'a> {
    pub(super) action: StoreAction,
    pub(super) key: Option<&'a str>,
    pub(super) store: &'a StoreUrl,
}

impl<'a> ErrorContext<'a> {
    pub(super) fn opening(store: &'a StoreUrl) -> Self {
        Self {
            action: StoreAction::Open,
            key: None,
            store,
        }
    }

    pub(super) fn of(action: StoreAction, key: &'a ObjectKey, store: &'a StoreUrl) -> Self {
        Self {
            action,
            key: Some(key.as_str()),
            store,
        }
    }

    pub(super) fn error(self, kind: StoreErrorKind, reason: impl Into<String>) -> StoreError {
        StoreError {
            kind,
            action: self.action,
            key: self.key.map(str::to_owned),
            store: self.store.clone(),
            reason: reason.into(),
        }
    }

    /// The error that a crate's error is.
    pub(super) fn translate(self, error: &object_store::Error) -> StoreError {
        match self.store {
            StoreUrl::Folder(_) => self.of_folder(error),
            StoreUrl::S3 { .. } => self.of_bucket(error),
        }
    }

    fn of_folder(self, error: &object_store::Error) -> StoreError {
        use object_store::Error as E;

        if matches!(error, E::NotFound { .. }) {
            return self.error(StoreErrorKind::Missing, "it is not there");
        }
        let Some(source) = find::<io::Error>(error) else {
            return self.error(StoreErrorKind::Refused, error.to_string());
        };
        let (kind, advice) = match source.kind() {
            io::ErrorKind::NotFound => (StoreErrorKind::Missing, String::new()),
            io::ErrorKind::PermissionDenied => (
                StoreErrorKind::Forbidden,
                format!(
                    ": give the user of this process {} access",
                    self.action.access()
                ),
            ),
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem => (StoreErrorKind::NoRoom, String::new()),
            _ => (StoreErrorKind::Unreachable, String::new()),
        };
        self.error(kind, format!("{source}{advice}"))
    }

    fn of_bucket(self, error: &object_store::Error) -> StoreError {
        use object_store::Error as E;

        let text = error.to_string();
        let answer = StoreReply::in_text(&text);
        if let Some(found) = answer.code.and_then(|code| self.of_code(code, &answer)) {
            return found;
        }
        match error {
            E::NotFound { .. } => self.error(StoreErrorKind::Missing, "it is not there"),
            E::PermissionDenied { .. } => self.forbidden(&answer),
            E::Unauthenticated { .. } => self.error(
                StoreErrorKind::Unauthenticated,
                format!(
                    "the store does not know these credentials{}",
                    answer.shown()
                ),
            ),
            _ if is_about_credentials(&text) => self.error(
                StoreErrorKind::Unauthenticated,
                "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run \
                 where a role gives some (AWS_SKIP_SIGNATURE=true reads a public bucket)",
            ),
            _ => self.of_status(&answer, error),
        }
    }

    /// The codes of S3's errors that say what is wrong with the request, rather than with the moment.
    fn of_code(self, code: &str, answer: &StoreReply<'_>) -> Option<StoreError> {
        use StoreErrorKind::{Missing, NoBucket, Refused, Unauthenticated};

        let (kind, reason) = match code {
            "NoSuchKey" => (Missing, "it is not there"),
            "NoSuchBucket" => (
                NoBucket,
                "there is no such bucket: make it, or correct the name",
            ),
            "AccessDenied" | "AllAccessDisabled" => return Some(self.forbidden(answer)),
            "InvalidAccessKeyId" => (
                Unauthenticated,
                "the store does not know the access key: correct AWS_ACCESS_KEY_ID",
            ),
            "SignatureDoesNotMatch" => (
                Unauthenticated,
                "the signature is wrong: AWS_SECRET_ACCESS_KEY is not that of AWS_ACCESS_KEY_ID",
            ),
            "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" => (
                Unauthenticated,
                "the credentials have expired: get new ones",
            ),
            "RequestTimeTooSkewed" => (
                Unauthenticated,
                "the clocks of this machine and of the store differ by minutes: set this one",
            ),
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => {
                let shown = answer.shown();
                let reason = format!("the bucket is in another region: set AWS_REGION{shown}");
                return Some(self.error(Refused, reason));
            }
            _ => return None,
        };
        Some(self.error(kind, reason))
    }

    fn forbidden(self, answer: &StoreReply<'_>) -> StoreError {
        let permission = self.action.permission();
        let shown = answer.shown();
        // S3 tells only those who may list that an object is missing.
        let or = match self.action {
            StoreAction::Read => ", or s3:ListBucket and the object is missing",
            _ => "",
        };
        let reason = format!("the credentials lack a permission: {permission}{or}{shown}");
        self.error(StoreErrorKind::Forbidden, reason)
    }

    fn of_status(self, answer: &StoreReply<'_>, error: &object_store::Error) -> StoreError {
        match answer.status {
            Some(status) => {
                let kind = match status {
                    // Not Implemented is for good.
                    501 => StoreErrorKind::Refused,
                    429 | 500..=599 => StoreErrorKind::Busy,
                    _ => StoreErrorKind::Refused,
                };
                self.error(kind, format!("{answer}{}", answer.attempts()))
            }
            None => {
                let reason = innermost(error);
                let reason = format!("{reason}{}", answer.attempts());
                self.error(StoreErrorKind::Unreachable, reason)
            }
        }
    }
}

/// Where credentials are asked for when none are set.
const CREDENTIAL_SOURCES: [&str; 3] = ["169.254.169.254", "169.254.170.2", "/latest/api/token"];

fn is_about_credentials(text: &str) -> bool {
    CREDENTIAL_SOURCES
        .iter()
        .any(|source| text.contains(source))
}

/// What a store has answered, as far as an error's text says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreReply<'t> {
    status: Option<u16>,
    code: Option<&'t str>,
    message: Option<&'t str>,
    /// How often it was asked again before this answer.
    retries: Option<u32>,
}

/// As it is told, if it has a status.
impl fmt::Display for StoreReply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.unwrap_or_default();
        write!(f, "the store answers {status}{}", self.shown())
    }
}

impl<'t> StoreReply<'t> {
    /// An answer with this status, whose content has the elements of S3's errors.
    #[cfg(feature = "s3")]
    pub(super) fn of(status: u16, text: &'t str) -> Self {
        Self {
            status: Some(status),
            ..Self::in_text(text)
        }
    }

    /// object_store keeps its error's status to itself, and how often it has asked, and writes them down.
    fn in_text(text: &'t str) -> Self {
        // What follows is the store's.
        let own = text.split_once(" - ").map_or(text, |(own, _)| own);
        let status = text.split_once("status code: ").and_then(|(_, after)| {
            let digits = after.get(..3)?;
            digits.parse().ok()
        });
        Self {
            status,
            code: between(text, "<Code>", "</Code>").or_else(|| {
                // One of several objects that were to be deleted.
                text.rsplit_once("(code: ")?.1.split(')').next()
            }),
            message: between(text, "<Message>", "</Message>"),
            retries: between(own, ", after ", " retries").and_then(|it| it.parse().ok()),
        }
    }

    /// How often it was asked in vain, if more than once.
    fn attempts(&self) -> String {
        match self.retries {
            None => String::new(),
            Some(retries) => format!("; it was asked {} times", retries.saturating_add(1)),
        }
    }

    /// In brackets, after what it means.
    fn shown(&self) -> String {
        match (self.code, self.message) {
            (Some(code), Some(message)) if !message.is_empty() => format!(" ({code}: {message})"),
            (Some(code), _) => format!(" ({code})"),
            (None, _) => String::new(),
        }
    }
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let (_, after) = text.split_once(start)?;
    after.split_once(end).map(|(between, _)| between)
}

/// An error, and those that it comes from.
pub(super) fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The error of this type that an error comes from.
fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// What an error comes from in the end: those around it say where, which is known here.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    fn translated(action: StoreAction, error: &object_store::Error) -> StoreError {
        let store = "s3://bucket/prefix".parse().expect("a URL");
        let context = ErrorContext {
            action,
            key: Some("channels/live/latest"),
            store: &store,
        };
        context.translate(error)
    }

    #[test]
    fn errors_of_stores() {
        use StoreErrorKind as Kind;

        let answer = |status: &str, code: &str| {
            format!(
                "Error performing GET http://h/b/k in 1ms - Server returned non-2xx status code: \
                 {status}: <Error><Code>{code}</Code><Message>why</Message></Error>"
            )
        };
        for (status, code, kind, says) in [
            (
                "404 Not Found",
                "NoSuchBucket",
                Kind::NoBucket,
                "there is no such bucket",
            ),
            (
                "403 Forbidden",
                "AccessDenied",
                Kind::Forbidden,
                "s3:GetObject, or s3:ListBucket",
            ),
            (
                "403 Forbidden",
                "InvalidAccessKeyId",
                Kind::Unauthenticated,
                "AWS_ACCESS_KEY_ID",
            ),
            (
                "403 Forbidden",
                "SignatureDoesNotMatch",
                Kind::Unauthenticated,
                "SECRET",
            ),
            (
                "400 Bad Request",
                "ExpiredToken",
                Kind::Unauthenticated,
                "have expired",
            ),
            (
                "403 Forbidden",
                "RequestTimeTooSkewed",
                Kind::Unauthenticated,
                "clocks",
            ),
            (
                "301 Moved",
                "PermanentRedirect",
                Kind::Refused,
                "set AWS_REGION",
            ),
            (
                "503 Service Unavailable",
                "SlowDown",
                Kind::Busy,
                "answers 503 (SlowDown: why)",
            ),
            (
                "500 Internal Server Error",
                "InternalError",
                Kind::Busy,
                "answers 500",
            ),
            (
                "400 Bad Request",
                "Other",
                Kind::Refused,
                "answers 400 (Other: why)",
            ),
        ] {
            let error = translated(StoreAction::Read, &generic(&answer(status, code)));
            assert_eq!(error.kind, kind, "{code}");
            let text = error.to_string();
            let begins = "cannot read channels/live/latest of s3://bucket/prefix: ";
            assert!(text.starts_with(begins) && text.contains(says), "{text}");
        }
        let missing = translated(
            StoreAction::Write,
            &generic("connecting to 169.254.169.254"),
        );
        assert_eq!(missing.kind, Kind::Unauthenticated);
        assert!(
            missing.to_string().contains("there are no credentials"),
            "{missing}"
        );
        let again = "Error performing PUT http://h/b/k in 3.2s, after 5 retries, max_retries: 5, \
                     retry_timeout: 60s  - Server returned non-2xx status code: 503 Service Unavailable: \
                     <Error><Code>SlowDown</Code></Error>";
        let again = translated(StoreAction::Write, &generic(again)).to_string();
        let says = "the store answers 503 (SlowDown); it was asked 6 times";
        assert!(again.ends_with(says), "{again}");
        // What a store says about that is no fact.
        for number in ["7", "4294967295"] {
            let text = format!(
                "Error performing GET http://h/b/k in 1ms - Server returned non-2xx status code: 400 Bad \
                 Request: <Error><Code>Other</Code><Message>x, after {number} retries</Message></Error>"
            );
            let text = translated(StoreAction::Read, &generic(&text)).to_string();
            assert!(!text.contains("it was asked"), "{text}");
        }
        let unreachable = translated(StoreAction::Write, &generic("connection refused"));
        assert_eq!(unreachable.kind, Kind::Unreachable);
        assert!(unreachable.is_passing() && !missing.is_passing());
    }
}
