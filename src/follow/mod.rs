//! `etagd serve STORE`: follows a channel of a store of releases, and publishes each release as a whole.
//!
//! Damage and mix-ups in a store are found; who may write to it decides what is served. A release is served once its listing makes up the digest that
//! its record has, and what is sent of it is proven against its tag, piece by piece. While the store is
//! away, or a release can't be served, the last good one stays.
//!
//! | File | Subject |
//! |---|---|
//! | `channel` | which releases there are |
//! | `schedule` | when to look for a newer one; pure |
//! | `taking` | what is fetched of a release before it is served |
//! | `listed` | from its listing to a manifest |
//! | `changes` | from one manifest to the next; pure |
//! | `earlier` | what earlier releases had (`--keep-old`) |
//! | `depot` | the bytes: memory, `--cache`, the store |
//! | `fetchers` | the threads that wait for the store |
//! | `names` | what is kept under which name in `--cache` |
//! | `start` | the first release, with the store or without it |
//! | `follower` | the task that brings these together |

mod changes;
mod channel;
mod depot;
mod earlier;
mod error;
mod fetchers;
mod follower;
mod listed;
mod names;
mod schedule;
mod start;
mod taking;

pub use error::{FollowError, Followed, RefusalReason, RefusedRelease};
pub use follower::{FollowHandle, follow};
pub use start::StoreFollower;
