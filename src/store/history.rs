//! When the work of a job was done, from its chunks' counters.

use chrono::{DateTime, Utc};

use super::{Store, StoreError};
use crate::domain::id::JobId;

/// A stretch of time and what ended within it. The items of a chunk since its last claim are held to have ended
/// evenly between that claim and the last write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    pub items: f64,
    pub prompt_tokens: f64,
    pub output_tokens: f64,
}

impl Store {
    /// By beginning; they overlap where chunks ran side by side. Reads chunk rows, never results. Work that an
    /// earlier claim of a chunk had done is not in it: its time is not kept.
    pub async fn stretches(&self, job: JobId) -> Result<Vec<Stretch>, StoreError> {
        let rows = sqlx::query!(
            r#"select claimed_at as "from!", result_at as "until!", n_succeeded + n_failed as "ended!", n_before,
                      prompt_tokens, output_tokens
               from chunks
               where job_id = $1 and result_at > claimed_at and n_succeeded + n_failed > n_before
               order by claimed_at, id"#,
            job.0
        )
        .fetch_all(&self.pool)
        .await?;
        let stretches = rows.into_iter().map(|row| {
            let items = f64::from(row.ended - row.n_before);
            let share = items / f64::from(row.ended);
            Stretch {
                from: row.from,
                until: row.until,
                items,
                prompt_tokens: row.prompt_tokens as f64 * share,
                output_tokens: row.output_tokens as f64 * share,
            }
        });
        Ok(stretches.collect())
    }
}
