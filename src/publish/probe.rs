//! Whether a store does what releases rely on.

use bytes::Bytes;

use super::error::PublishError;
use super::identity::PublisherId;
use crate::store::{Creation, Store, StoreErrorKind, layout};

/// Finds out whether the store refuses to create an object that exists. Some answer 200 and replace it.
///
/// # Errors
/// When it does not refuse, or can't be asked.
pub(super) async fn probe(store: &Store, id: &PublisherId) -> Result<(), PublishError> {
    let key = layout::probe(id.as_str());
    let refused = || PublishError::NoCreate(store.url().to_string());
    // The first may exist, too: an attempt whose answer was lost has made it.
    let created = match store.create(&key, Bytes::from_static(b"1")).await {
        Ok(_) => store.create(&key, Bytes::from_static(b"2")).await,
        Err(error) => Err(error),
    };
    // What can't be removed does no harm, and the collector tries again.
    let _ = store.delete(&key).await;
    match created {
        Ok(Creation::Exists) => Ok(()),
        Ok(Creation::Created) => Err(refused()),
        // It does not know the condition (501 Not Implemented, or 400).
        Err(error) if error.kind == StoreErrorKind::Refused => {
            tracing::warn!(%error, "{error}");
            Err(refused())
        }
        Err(error) => Err(error.into()),
    }
}
