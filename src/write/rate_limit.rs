//! Limits wrong tokens: ten at once from one network, then one a second.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::client::Peer;

/// Time by which a wrong token delays the next attempt.
const DELAY_PER_FAILURE: Duration = Duration::from_secs(1);
/// Delay up to which attempts are still allowed.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// Networks to remember: without a limit a client with many addresses could fill the memory.
const MAX_ADDRESSES: NonZeroUsize = match NonZeroUsize::new(4096) {
    Some(most) => most,
    None => NonZeroUsize::MIN,
};

/// The network that counts as one client: for IPv6 a /64, since a host may use all its addresses
/// (RFC 7934).
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

/// When the delay of each network ends.
pub(super) struct FailedLogins(Mutex<LruCache<Option<IpAddr>, Instant>>);

impl Default for FailedLogins {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_ADDRESSES)))
    }
}

impl FailedLogins {
    /// Whether this client may try a token now.
    pub(super) fn is_allowed(&self, client: Peer, now: Instant) -> bool {
        let mut debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let debt = debts.get(&network(client));
        debt.is_none_or(|paid| *paid + DELAY_PER_FAILURE <= now + MAX_DELAY)
    }

    /// Records a wrong token.
    pub(super) fn record(&self, client: Peer, now: Instant) {
        let mut debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let paid = debts.get_or_insert_mut(network(client), || now);
        *paid = (*paid).max(now) + DELAY_PER_FAILURE;
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
            let moments = (0..seconds * 100).map(|step| from + step * Duration::from_millis(10));
            let allowed = moments.filter(|&now| {
                let is_allowed = failed_logins.is_allowed(peer, now);
                if is_allowed {
                    failed_logins.record(peer, now);
                }
                is_allowed
            });
            allowed.count()
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
