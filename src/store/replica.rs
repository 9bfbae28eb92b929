//! What each process says about its models.

use chrono::{DateTime, Utc};

use super::words::{At, to_json};
use super::{Store, StoreError};
use crate::domain::id::WorkerId;
use crate::domain::model::ModelStatus;

/// One process's view of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    pub worker: WorkerId,
    pub model: String,
    pub status: ModelStatus,
    pub updated_at: DateTime<Utc>,
}

impl Store {
    pub async fn put_replica(
        &self,
        worker: WorkerId,
        model: &str,
        status: &ModelStatus,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into replicas (worker, model, state, status) values ($1, $2, $3, $4::text::json)
             on conflict (worker, model) do update
             set state = excluded.state, status = excluded.status, updated_at = now()",
            worker.0,
            model,
            status.state().as_str(),
            to_json(status),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Who has spoken of its models within the last `max_age_ms`, newest first.
    pub async fn all_replicas(&self, max_age_ms: u64) -> Result<Vec<Replica>, StoreError> {
        let rows = sqlx::query!(
            r#"select worker, model, status::text as "status!", updated_at from replicas
               where updated_at > now() - make_interval(secs => $1::float8 / 1000)
               order by updated_at desc"#,
            max_age_ms as f64,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let status =
                    At { table: "replicas", column: "status", row: &row.worker }.json(&row.status)?;
                Ok(Replica {
                    worker: WorkerId(row.worker),
                    model: row.model,
                    status,
                    updated_at: row.updated_at,
                })
            })
            .collect()
    }

    /// Removes what a process said, when it ends; and what silent ones said long ago.
    pub async fn forget_replicas(&self, worker: WorkerId, max_age_ms: u64) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from replicas where worker = $1 or updated_at < now() - make_interval(secs => $2::float8 / 1000)",
            worker.0,
            max_age_ms as f64,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
