//! API keys as clients see them. The text of a key is in one answer only: that to its making.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::key::{self, KeyState, Scope, Scopes};

/// A key to be made, of the caller's own tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// What a person calls it.
    pub name: String,
    #[schema(value_type = Vec<Scope>)]
    pub scopes: Scopes,
    /// Seconds that it opens anything; absent: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// Requests a minute of each process; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_minute: Option<i32>,
    /// Estimated tokens that may wait; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued_tokens: Option<i64>,
}

/// A key without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    pub id: Uuid,
    /// The part of its text that is no secret.
    pub prefix: String,
    pub tenant: String,
    pub name: String,
    #[schema(value_type = Vec<Scope>)]
    pub scopes: Scopes,
    pub state: KeyState,
    pub created_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
    /// To the minute or so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_minute: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queued_tokens: Option<i64>,
}

/// A key that was just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyMade {
    /// The secret. It is not kept, and not shown again.
    pub key: String,
    #[serde(flatten)]
    pub about: Key,
}

impl fmt::Debug for KeyMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMade").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Keys, newest first; revoked and expired ones too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    pub keys: Vec<Key>,
}

impl Key {
    /// As it stands at `now`.
    pub fn of(key: key::Key, now: DateTime<Utc>) -> Self {
        let state = key.state(now);
        let made = key.made;
        Self {
            id: key.id.0,
            prefix: key.prefix,
            tenant: made.tenant,
            name: made.name,
            scopes: made.scopes,
            state,
            created_at: key.created_at,
            expires_at: made.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            rate_per_minute: made.rate_per_minute,
            max_queued_tokens: made.max_queued_tokens,
        }
    }
}
