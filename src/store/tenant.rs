//! What belongs to whom. Everything below a job (items, results, chunks) belongs to the job's tenant, so that one
//! question answers for all of them.

use super::{Store, StoreError};
use crate::domain::id::JobId;

impl Store {
    /// Whether the tenant has such a job. Another's job is as good as none.
    pub async fn has_job(&self, tenant: &str, id: JobId) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"select exists (select from jobs where id = $1 and tenant = $2) as "found!""#,
            id.0,
            tenant,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(found)
    }
}
