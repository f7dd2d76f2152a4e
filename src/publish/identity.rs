//! Who publishes.

use std::collections::hash_map::RandomState;
use std::env;
use std::fmt;
use std::hash::BuildHasher;

use super::hold::LockHold;

/// The longest name, in characters: it is one column of a list.
const MAX_NAME_LENGTH: usize = 200;

/// What tells a publisher or collector from all others, 32 hex digits, and what it knows of its lock.
#[derive(Debug)]
pub struct PublisherId {
    text: String,
    pub(super) hold: LockHold,
}

impl PublisherId {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PublisherId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A name that no other publisher or collector has.
#[must_use]
pub fn publisher_id() -> PublisherId {
    // Each has its own keys, which come from the system's random numbers.
    let half = || RandomState::new().hash_one(std::process::id());
    PublisherId {
        text: format!("{:016x}{:016x}", half(), half()),
        hold: LockHold::default(),
    }
}

/// The user and the machine, for people who read a list of releases.
#[must_use]
pub fn publisher_name() -> String {
    let user = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| env::var(name).ok().filter(|name| !name.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let system = rustix::system::uname();
    format!("{user}@{}", system.nodename().to_string_lossy())
        .chars()
        .filter(|character| !character.is_control())
        .take(MAX_NAME_LENGTH)
        .collect()
}

/// A number from 0 to `end`, without it, to spread what would otherwise happen at once.
pub(super) fn random_below(end: u64) -> u64 {
    RandomState::new().hash_one(0) % end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_have_the_same_name() {
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| publisher_id().text).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32));
        assert!(publisher_name().contains('@'));
    }
}
