//! Files: uploads in parts, streamed in and out with bounded memory, and the rows of batches' files.

use chrono::{DateTime, Utc};
use sqlx::Transaction;
use sqlx::postgres::Postgres;
use uuid::Uuid;

use super::words::At;
use super::{Store, StoreError};
use crate::domain::batch::FileRole;
use crate::domain::id::{BatchId, FileId};

/// Bytes of one part, which is all that an upload or a reader holds in memory.
const PART_BYTES: usize = 256 << 10;

/// A file as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    pub id: FileId,
    pub role: FileRole,
    pub filename: String,
    /// Of the file of a batch that goes on: 0.
    pub bytes: i64,
    /// The batch whose results it holds.
    pub batch: Option<BatchId>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// What a list of files shows.
#[derive(Clone, Debug)]
pub struct FileFilter {
    pub tenant: String,
    /// Files that clients uploaded, or those of batches; `None`: both.
    pub uploaded: Option<bool>,
    /// The last file of the page before.
    pub after: Option<FileId>,
    pub oldest_first: bool,
    pub limit: u32,
}

/// An open upload. Dropped before [`Upload::commit`], it leaves nothing behind.
pub struct Upload {
    tx: Transaction<'static, Postgres>,
    id: FileId,
    next_part: i32,
    bytes: i64,
    buffer: Vec<u8>,
}

struct RawFile {
    id: Uuid,
    role: String,
    filename: String,
    bytes: i64,
    batch_id: Option<Uuid>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Opens an upload, which holds a connection until it ends.
    pub async fn upload_begin(&self, tenant: &str) -> Result<Upload, StoreError> {
        let mut tx = self.pool.begin().await?;
        // its locks are on its own rows alone, and its client may be slow
        sqlx::query("set local idle_in_transaction_session_timeout = 0").execute(&mut *tx).await?;
        let id = FileId::new();
        // the name comes with the form, whose fields may follow in any order
        sqlx::query!(
            "insert into files (id, tenant, role, filename) values ($1, $2, 'input', 'unnamed')",
            id.0,
            tenant,
        )
        .execute(&mut *tx)
        .await?;
        Ok(Upload { tx, id, next_part: 0, bytes: 0, buffer: Vec::with_capacity(PART_BYTES) })
    }

    /// `None`: there is no such file, or its time is over.
    pub async fn file(&self, tenant: &str, id: FileId) -> Result<Option<FileRow>, StoreError> {
        let row = sqlx::query_as!(
            RawFile,
            r#"select id, role::text as "role!", filename, bytes, batch_id, created_at, expires_at from files
               where id = $1 and tenant = $2 and (expires_at is null or expires_at > now())"#,
            id.0,
            tenant,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(to_file).transpose()
    }

    /// A page of files. Those of batches are listed once they hold something and are whole.
    pub async fn files(&self, filter: &FileFilter) -> Result<Vec<FileRow>, StoreError> {
        let rows = sqlx::query_as!(
            RawFile,
            r#"select id, role::text as "role!", filename, bytes, batch_id, created_at, expires_at from files
               where tenant = $1 and (expires_at is null or expires_at > now())
                 and (batch_id is null or bytes > 0)
                 and ($2::bool is null or (batch_id is null) = $2)
                 and ($3::uuid is null or case when $4 then id > $3 else id < $3 end)
               order by case when $4 then id end, id desc limit $5"#,
            filter.tenant,
            filter.uploaded,
            filter.after.map(|file| file.0),
            filter.oldest_first,
            i64::from(filter.limit),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(to_file).collect()
    }

    /// One part of an upload, from 0; `None` after the last.
    pub async fn file_part(&self, id: FileId, part: i32) -> Result<Option<Vec<u8>>, StoreError> {
        let data =
            sqlx::query_scalar!("select data from file_parts where file_id = $1 and part = $2", id.0, part)
                .fetch_optional(&self.pool)
                .await?;
        Ok(data)
    }

    /// Removes a file; of a batch's file only this way to its results. Returns whether there was one.
    pub async fn delete_file(&self, tenant: &str, id: FileId) -> Result<bool, StoreError> {
        let deleted = sqlx::query!("delete from files where id = $1 and tenant = $2", id.0, tenant)
            .execute(&self.pool)
            .await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Removes files whose time is over. Returns how many.
    pub async fn expire_files(&self) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "delete from files where id in (select id from files where expires_at <= now() limit 100)"
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

impl Upload {
    /// Bytes so far.
    pub fn bytes(&self) -> i64 {
        self.bytes
    }

    pub async fn push(&mut self, mut data: &[u8]) -> Result<(), StoreError> {
        self.bytes += data.len() as i64;
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(PART_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            if self.buffer.len() == PART_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Makes the file real. `ttl_s` is the time after which it goes away.
    pub async fn commit(mut self, filename: &str, ttl_s: Option<i64>) -> Result<FileRow, StoreError> {
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        let row = sqlx::query_as!(
            RawFile,
            r#"update files set filename = $2, bytes = $3, expires_at = created_at + make_interval(secs => $4::float8)
               where id = $1
               returning id, role::text as "role!", filename, bytes, batch_id, created_at, expires_at"#,
            self.id.0,
            filename,
            self.bytes,
            ttl_s.map(|s| s as f64),
        )
        .fetch_one(&mut *self.tx)
        .await?;
        self.tx.commit().await?;
        to_file(row)
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "insert into file_parts (file_id, part, data) values ($1, $2, $3)",
            self.id.0,
            self.next_part,
            &self.buffer,
        )
        .execute(&mut *self.tx)
        .await?;
        self.next_part += 1;
        self.buffer.clear();
        Ok(())
    }
}

fn to_file(row: RawFile) -> Result<FileRow, StoreError> {
    Ok(FileRow {
        id: FileId(row.id),
        role: At { table: "files", column: "role", row: &row.id }.file_role(&row.role)?,
        filename: row.filename,
        bytes: row.bytes,
        batch: row.batch_id.map(BatchId),
        created_at: row.created_at,
        expires_at: row.expires_at,
    })
}
