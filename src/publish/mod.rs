//! Publishes a site into a store: `etagd push DIR s3://…`, `etagd rollback` and `etagd gc`.
//!
//! Content first, then the listing, then the release, which is one object that is created or not: nothing
//! half is ever visible, and what a killed process leaves is garbage. A publisher and a collector exclude
//! one another by locks, so that nothing is deleted that a release is about to need.

mod collect;
mod content;
mod error;
mod history;
mod hold;
mod identity;
mod lock;
mod missing;
mod presence;
mod probe;
mod release;
mod rollback;

pub use collect::{Collection, Collector};
pub use content::SiteContent;
pub use error::PublishError;
pub use history::{ReleaseHistory, history};
pub use identity::{PublisherId, publisher_id, publisher_name};
pub use lock::abandon;
pub use missing::MissingBlobs;
pub use release::ReleasePublisher;
pub use rollback::Rollback;
