//! Failed items of a job, by stage and code.

use super::words::At;
use super::{Store, StoreError};
use crate::domain::code::Code;
use crate::domain::id::{JobId, Seq};
use crate::domain::task::Stage;

/// Items that failed alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    pub stage: Stage,
    pub code: Code,
    pub items: i64,
    /// The first of them, and what it says.
    pub first: Seq,
    pub message: String,
    /// Whether [`Store::retry_failed`] takes them: failures of an earlier stage have been used by its successor.
    pub can_retry: bool,
}

impl Store {
    /// Most frequent first. Reads the failed results only, over their own index.
    pub async fn failures(&self, job: JobId) -> Result<Vec<Failures>, StoreError> {
        let rows = sqlx::query!(
            r#"select alike.stage::text as "stage!", alike.error_code as "code!", alike.items as "items!",
                      alike.first as "first!", r.error as "message!",
                      (alike.stage = j.stage and j.state <> 'cancelled') as "can_retry!"
               from (select i.stage, f.error_code, count(*) as items, min(f.seq) as first
                     from results f join items i on i.job_id = f.job_id and i.seq = f.seq
                     where f.job_id = $1 and f.outcome = 'failed' group by i.stage, f.error_code) alike
               join results r on r.job_id = $1 and r.seq = alike.first
               join jobs j on j.id = $1
               order by alike.items desc, alike.stage, alike.error_code"#,
            job.0
        )
        .fetch_all(&self.pool)
        .await?;
        let at = |table, column| At { table, column, row: &job };
        let failures = rows.into_iter().map(|row| {
            Ok(Failures {
                stage: at("items", "stage").stage(&row.stage)?,
                code: at("results", "error_code").code(&row.code)?,
                items: row.items,
                first: row.first,
                message: row.message,
                can_retry: row.can_retry,
            })
        });
        failures.collect()
    }
}
