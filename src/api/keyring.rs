//! Keys as this process knows them: looked up once in a while, and what each may still ask this minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::id::KeyId;
use crate::domain::key::{Key, KeyHash, KeyText};
use crate::store::{Store, StoreError};

/// Prefixes that are remembered, unknown ones among them. Beyond that the memory begins anew.
const MAX_ENTRIES: usize = 10_000;

/// Cloning shares everything.
#[derive(Clone)]
pub struct Keyring {
    store: Store,
    /// How long an entry is believed.
    kept: Duration,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    buckets: Arc<Mutex<HashMap<KeyId, Bucket>>>,
}

#[derive(Clone)]
struct Entry {
    /// `None`: there is no such key.
    known: Option<Arc<(Key, KeyHash)>>,
    read_at: Instant,
}

impl Keyring {
    pub fn new(store: Store, kept: Duration) -> Self {
        Self { store, kept, entries: Arc::default(), buckets: Arc::default() }
    }

    /// How long a change in the database may go unnoticed.
    pub fn kept(&self) -> Duration {
        self.kept
    }

    /// The key with this text, which may be expired or revoked. `None`: there is none.
    pub async fn find(&self, text: &KeyText) -> Result<Option<Key>, StoreError> {
        let known = self.look_up(text.prefix()).await?;
        // hashed and compared also where there is nothing to compare with, so that time does not tell which
        // prefixes exist
        let own = text.hash();
        let nobody = KeyHash::from_bytes(&[0; 32]).expect("a hash has 32 bytes");
        let wanted = known.as_ref().map_or(&nobody, |known| &known.1);
        let matches = own.matches(wanted);
        Ok(known.filter(|_| matches).map(|known| known.0.clone()))
    }

    async fn look_up(&self, prefix: &str) -> Result<Option<Arc<(Key, KeyHash)>>, StoreError> {
        let seen = lock(&self.entries).get(prefix).cloned();
        if let Some(entry) = seen.filter(|entry| entry.read_at.elapsed() < self.kept) {
            return Ok(entry.known);
        }
        // before the look: what changes while it is under way is seen by the next one
        let read_at = Instant::now();
        let known = self.store.key_by_prefix(prefix).await?.map(Arc::new);
        if let Some(known) = &known
            && let Err(error) = self.store.touch_key(known.0.id).await
        {
            tracing::debug!(%error, "the use of a key was not noted");
        }
        let mut entries = lock(&self.entries);
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(prefix.into(), Entry { known: known.clone(), read_at });
        Ok(known)
    }

    /// This process need not wait to notice that a key has changed.
    pub fn forget(&self, prefix: &str) {
        lock(&self.entries).remove(prefix);
    }

    /// Counts a request of the key; an error is the time until the next one may come.
    pub fn admit(&self, key: &Key, now: Instant) -> Result<(), Duration> {
        let Some(rate) = key.made.rate_per_minute else { return Ok(()) };
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= MAX_ENTRIES {
            // a full bucket is as good as none
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < MINUTE);
        }
        buckets.entry(key.id).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }
}

/// No code runs under these locks that could panic and leave half a change.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const MINUTE: Duration = Duration::from_secs(60);

/// A token bucket that holds one minute's requests, and so lets them come at once.
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: i32, now: Instant) -> Self {
        Self { left: f64::from(rate), at: now }
    }

    fn take(&mut self, rate: i32, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(rate);
        let per_s = rate / MINUTE.as_secs_f64();
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * per_s).min(rate);
        self.at = self.at.max(now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / per_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_its_requests_and_no_more() {
        let begun = Instant::now();
        let mut bucket = Bucket::full(3, begun);
        for _ in 0..3 {
            assert_eq!(bucket.take(3, begun), Ok(()));
        }
        let wait = bucket.take(3, begun).unwrap_err();
        assert!((wait.as_secs_f64() - 20.0).abs() < 0.01, "{wait:?}");
        // a clock that goes back gives nothing
        assert!(bucket.take(3, begun.checked_sub(MINUTE).unwrap_or(begun)).is_err());
        assert!(bucket.take(3, begun + Duration::from_secs(19)).is_err());
        assert_eq!(bucket.take(3, begun + Duration::from_secs(21)), Ok(()));
        // time that passes unused is not saved beyond a minute
        let later = begun + Duration::from_secs(3_600);
        assert_eq!((0..10).filter(|_| bucket.take(3, later).is_ok()).count(), 3);
    }
}
