//! Who failed_logins tokens: so many wrong ones at once, then one a second.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::client::Peer;

/// Time that a wrong token costs.
const PENALTY: Duration = Duration::from_secs(1);
/// Time that may be owed.
const MAX_DEBT: Duration = Duration::from_secs(10);
/// Addresses that are remembered.
const MAX_ADDRESSES: NonZeroUsize = match NonZeroUsize::new(4096) {
    Some(most) => most,
    None => NonZeroUsize::MIN,
};

/// The smallest network that is one customer's: who has one address of IPv6 has many.
fn network(client: Peer) -> Option<IpAddr> {
    match client {
        Peer::Unix => None,
        Peer::Address(IpAddr::V6(address)) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Some(Ipv6Addr::from_bits(network).into())
        }
        Peer::Address(address) => Some(address),
    }
}

/// When each address will have paid for its wrong tokens.
pub(super) struct FailedLogins(Mutex<LruCache<Option<IpAddr>, Instant>>);

impl Default for FailedLogins {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_ADDRESSES)))
    }
}

impl FailedLogins {
    /// Whether a token of this client is worth a look.
    pub(super) fn is_allowed(&self, client: Peer, now: Instant) -> bool {
        let mut debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let debt = debts.get(&network(client));
        debt.is_none_or(|paid| *paid + PENALTY <= now + MAX_DEBT)
    }

    /// Notes a wrong token.
    pub(super) fn record(&self, client: Peer, now: Instant) {
        let mut debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let paid = debts.get_or_insert_mut(network(client), || now);
        *paid = (*paid).max(now) + PENALTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Address(address.parse().expect("an address"))
    }

    #[test]
    fn ten_at_once_and_then_one_a_second() {
        let (failed_logins, start) = (FailedLogins::default(), Instant::now());
        let count = |peer, from: Instant, seconds: u32| {
            let steps = (0..seconds * 100).map(|step| from + step * Duration::from_millis(10));
            let tried = steps.filter(|&now| {
                let is_allowed = failed_logins.is_allowed(peer, now);
                if is_allowed {
                    failed_logins.record(peer, now);
                }
                is_allowed
            });
            tried.count()
        };
        let one = peer("192.0.2.1");
        assert_eq!(count(one, start, 5), 10 + 4);
        assert_eq!(count(peer("192.0.2.2"), start, 1), 10);
        assert_eq!(count(Peer::Unix, start, 1), 10);
        let later = start + Duration::from_secs(60);
        assert_eq!(count(one, later, 1), 10);
    }

    #[test]
    fn a_network_of_ipv6_is_one() {
        let (failed_logins, now) = (FailedLogins::default(), Instant::now());
        for host in 0..10 {
            failed_logins.record(peer(&format!("2001:db8::{host:x}")), now);
        }
        assert!(!failed_logins.is_allowed(peer("2001:db8::ffff"), now));
        assert!(failed_logins.is_allowed(peer("2001:db8:0:1::1"), now));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let (failed_logins, now) = (FailedLogins::default(), Instant::now());
        for address in 0..10_000_u32 {
            failed_logins.record(Peer::Address(IpAddr::V4(address.into())), now);
        }
        assert_eq!(
            failed_logins.0.lock().expect("no panic").len(),
            MAX_ADDRESSES.get()
        );
    }
}
