//! How much a key may have waiting.
//!
//! Tokens are estimated from bytes: at a submission the model may not be loaded, and a stream has no end yet. A job
//! counts until its items have ended, each with an equal part of the job's estimate; a batch that is still to be
//! checked counts with its file. Charges of one key come one after the other, under a lock that lasts until commit,
//! so that two submissions at once cannot both take the last room.

use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use crate::domain::id::KeyId;

/// Bytes of input that count as one token: about what English text and JSON have.
pub const BYTES_PER_TOKEN: u64 = 4;

/// The key that a submission is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub key: KeyId,
    /// `None`: counted, not bounded.
    pub max_queued_tokens: Option<i64>,
}

/// The estimate of so many bytes.
pub fn tokens_of(bytes: u64) -> i64 {
    i64::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(i64::MAX)
}

/// What of the key has not ended yet, with what this transaction has written.
async fn queued_tokens(tx: &mut PgConnection, key: KeyId) -> Result<i64, StoreError> {
    let tokens = sqlx::query_scalar!(
        r#"select (coalesce((
                select sum(j.input_tokens::numeric * o.items / greatest(j.total, 1))
                from jobs j cross join lateral (
                    select sum(c.n_items - c.n_succeeded - c.n_failed) as items from chunks c
                    where c.job_id = j.id and c.state in ('ready', 'delayed', 'running')) o
                where j.key_id = $1 and j.state in ('queued', 'running')), 0)
            + coalesce((
                select sum((f.bytes + $2 - 1) / $2) from batches b join files f on f.id = b.input_file_id
                where b.key_id = $1 and b.ended_at is null and b.job_id is null
                  and b.cancel_asked_at is null), 0))::bigint as "tokens!""#,
        key.0,
        BYTES_PER_TOKEN as i64,
    )
    .fetch_one(tx)
    .await?;
    Ok(tokens)
}

/// Refuses `asked` tokens, which this transaction has written already, where they are too many.
pub(super) async fn check(tx: &mut PgConnection, charge: Charge, asked: i64) -> Result<(), StoreError> {
    let Some(max) = charge.max_queued_tokens else { return Ok(()) };
    let lock = Uuid::as_u64_pair(&charge.key.0);
    sqlx::query!("select pg_advisory_xact_lock($1)", (lock.0 ^ lock.1) as i64).fetch_one(&mut *tx).await?;
    let queued = queued_tokens(tx, charge.key).await? - asked;
    admit(queued, asked, max)
}

/// The rule itself. What exceeds the quota alone will never fit, and is no matter of waiting.
pub(super) fn admit(queued: i64, asked: i64, max: i64) -> Result<(), StoreError> {
    if asked > max {
        Err(StoreError::TooManyTokens { asked, max })
    } else if queued.saturating_add(asked) > max {
        Err(StoreError::QuotaExceeded { queued, asked, max })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_may_be_reached_and_not_passed() {
        assert!(admit(60, 40, 100).is_ok());
        assert!(matches!(admit(61, 40, 100), Err(StoreError::QuotaExceeded { queued: 61, .. })));
        assert!(matches!(admit(0, 101, 100), Err(StoreError::TooManyTokens { .. })));
        assert_eq!((tokens_of(0), tokens_of(1), tokens_of(8), tokens_of(9)), (0, 1, 2, 3));
    }
}
