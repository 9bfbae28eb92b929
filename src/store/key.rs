//! API keys: made, found by their prefix, listed, revoked. Only the hash of a key's text comes here.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::words::At;
use super::{Store, StoreError};
use crate::domain::id::KeyId;
use crate::domain::key::{Key, KeyHash, KeyText, NewKey};

/// Keys of one list, newest first.
const MAX_KEYS: i64 = 1_000;

struct RawKey {
    id: Uuid,
    tenant: String,
    name: String,
    prefix: String,
    hash: Vec<u8>,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    rate_per_minute: Option<i32>,
    max_queued_tokens: Option<i64>,
}

impl Store {
    /// Keeps a key that was just made; `text` itself is not kept.
    pub async fn create_key(&self, made: &NewKey, text: &KeyText) -> Result<Key, StoreError> {
        let scopes: Vec<String> = made.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        let hash = text.hash();
        let row = sqlx::query_as!(
            RawKey,
            "insert into api_keys (id, tenant, name, prefix, hash, scopes, expires_at, rate_per_minute,
                                   max_queued_tokens)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             returning id, tenant, name, prefix, hash, scopes, created_at, expires_at, revoked_at, last_used_at,
                       rate_per_minute, max_queued_tokens",
            KeyId::new().0,
            made.tenant,
            made.name,
            text.prefix(),
            hash.as_bytes(),
            &scopes,
            made.expires_at,
            made.rate_per_minute,
            made.max_queued_tokens,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(to_key(row)?.0)
    }

    /// The key with this prefix and the hash that its text must have, revoked or expired ones too.
    pub async fn key_by_prefix(&self, prefix: &str) -> Result<Option<(Key, KeyHash)>, StoreError> {
        let row = sqlx::query_as!(
            RawKey,
            "select id, tenant, name, prefix, hash, scopes, created_at, expires_at, revoked_at, last_used_at,
                    rate_per_minute, max_queued_tokens
             from api_keys where prefix = $1",
            prefix,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(to_key).transpose()
    }

    /// Newest first, of one tenant or of all; revoked and expired ones too.
    pub async fn keys(&self, tenant: Option<&str>) -> Result<Vec<Key>, StoreError> {
        let rows = sqlx::query_as!(
            RawKey,
            "select id, tenant, name, prefix, hash, scopes, created_at, expires_at, revoked_at, last_used_at,
                    rate_per_minute, max_queued_tokens
             from api_keys where $1::text is null or tenant = $1 order by id desc limit $2",
            tenant,
            MAX_KEYS,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|row| Ok(to_key(row)?.0)).collect()
    }

    /// Ends a key, of this tenant if one is named; `None`: there is none. Ending it twice is no error.
    pub async fn revoke_key(&self, tenant: Option<&str>, id: KeyId) -> Result<Option<Key>, StoreError> {
        let row = sqlx::query_as!(
            RawKey,
            "update api_keys set revoked_at = coalesce(revoked_at, now())
             where id = $1 and ($2::text is null or tenant = $2)
             returning id, tenant, name, prefix, hash, scopes, created_at, expires_at, revoked_at, last_used_at,
                       rate_per_minute, max_queued_tokens",
            id.0,
            tenant,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok(to_key(row)?.0)).transpose()
    }

    /// Remembers that a key was used, at most once a minute: a use is no reason to write a row.
    pub async fn touch_key(&self, id: KeyId) -> Result<(), StoreError> {
        sqlx::query!(
            "update api_keys set last_used_at = now()
             where id = $1 and (last_used_at is null or last_used_at < now() - interval '1 minute')",
            id.0
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Whether anybody could come in with a key.
    pub async fn has_valid_key(&self) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"select exists (select from api_keys where revoked_at is null
                              and (expires_at is null or expires_at > now())) as "found!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(found)
    }
}

fn to_key(row: RawKey) -> Result<(Key, KeyHash), StoreError> {
    let at = |column| At { table: "api_keys", column, row: &row.id };
    let scopes = row.scopes.iter().map(|word| at("scopes").parse(word)).collect::<Result<_, _>>()?;
    // the table holds no other length
    let hash = KeyHash::from_bytes(&row.hash).ok_or_else(|| StoreError::Corrupt {
        table: "api_keys",
        column: "hash",
        row: row.id.to_string(),
        cause: "it has not 32 bytes".into(),
    })?;
    let key = Key {
        id: KeyId(row.id),
        prefix: row.prefix,
        made: NewKey {
            tenant: row.tenant,
            name: row.name,
            scopes,
            expires_at: row.expires_at,
            rate_per_minute: row.rate_per_minute,
            max_queued_tokens: row.max_queued_tokens,
        },
        created_at: row.created_at,
        revoked_at: row.revoked_at,
        last_used_at: row.last_used_at,
    };
    Ok((key, hash))
}
