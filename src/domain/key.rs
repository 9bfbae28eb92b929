//! API keys: what one is, whose it is, what its holder may do, and for how long.
//!
//! The text of a key is a secret: it has no `Display`, its `Debug` shows only the prefix, and two hashes are
//! compared in constant time or not at all.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::id::KeyId;
use super::task::UnknownWord;

/// First word of every key, by which scanners of leaked secrets know it.
const MARK: &str = "adit_";
/// Hex digits of the part that is no secret.
const PREFIX_BYTES: usize = 12;
/// 256 bits in base64url.
const SECRET_BYTES: usize = 43;

/// Longest name of a key or a tenant, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// Who everything belongs to while no keys are asked for.
pub const DEFAULT_TENANT: &str = "default";

/// A key as its holder has it: `adit_`, a prefix that is no secret, `_`, and 256 random bits.
#[derive(Clone)]
pub struct KeyText(String);

impl KeyText {
    /// A new key, from the system's random source.
    pub fn generate() -> Self {
        let mut bytes = [0; PREFIX_BYTES / 2 + 32];
        getrandom::fill(&mut bytes).expect("the system has random bytes for a server that runs on it");
        let (prefix, secret) = bytes.split_at(PREFIX_BYTES / 2);
        let prefix: String = prefix.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{MARK}{prefix}_{}", URL_SAFE_NO_PAD.encode(secret)))
    }

    /// `None`: this has not the form of a key.
    pub fn parse(text: &str) -> Option<Self> {
        let (prefix, secret) = text.strip_prefix(MARK)?.split_once('_')?;
        let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let fits = prefix.len() == PREFIX_BYTES
            && prefix.bytes().all(is_hex)
            && secret.len() == SECRET_BYTES
            && secret.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        fits.then(|| Self(text.into()))
    }

    /// The part that lists and logs may show.
    pub fn prefix(&self) -> &str {
        &self.0[MARK.len()..MARK.len() + PREFIX_BYTES]
    }

    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The secret itself, for the one time that it is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}_…", self.prefix())
    }
}

/// SHA-256 of a key's text. Deliberately without `PartialEq`: see [`KeyHash::matches`].
#[derive(Clone)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// `None`: that many bytes are no hash.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes as long for hashes that differ in the first byte as for equal ones.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What a key lets its holder do. None contains another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Send work, and end, retry or delete it.
    Submit,
    /// See jobs, results, files, models and metrics.
    Read,
    /// Load and unload models, make and revoke keys of the tenant.
    Admin,
}

impl Scope {
    pub const ALL: [Scope; 3] = [Scope::Submit, Scope::Read, Scope::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Submit => "submit",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| UnknownWord(text.into(), "submit, read, admin"))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    pub fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Scope::as_str).collect();
        f.write_str(&words.join(","))
    }
}

/// What a key is made of, beside its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    pub tenant: String,
    pub name: String,
    pub scopes: Scopes,
    pub expires_at: Option<DateTime<Utc>>,
    /// Requests a minute; `None`: any number.
    pub rate_per_minute: Option<i32>,
    /// Estimated tokens that may wait; `None`: any number.
    pub max_queued_tokens: Option<i64>,
}

/// Why a [`NewKey`] cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {cause}")]
pub struct BadKey {
    pub field: &'static str,
    pub cause: String,
}

impl NewKey {
    /// Refuses what the table would refuse, by field.
    pub fn check(&self) -> Result<(), BadKey> {
        let bad = |field, cause: &str| Err(BadKey { field, cause: cause.into() });
        for (field, text) in [("tenant", &self.tenant), ("name", &self.name)] {
            if text.is_empty() || text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
                return bad(field, "1 to 200 bytes without control characters");
            }
        }
        if self.scopes.is_empty() {
            return bad("scopes", "at least one of submit, read, admin");
        }
        if self.rate_per_minute.is_some_and(|rate| rate < 1) {
            return bad("rate_per_minute", "at least 1");
        }
        if self.max_queued_tokens.is_some_and(|tokens| tokens < 1) {
            return bad("max_queued_tokens", "at least 1");
        }
        Ok(())
    }
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: KeyId,
    pub prefix: String,
    pub made: NewKey,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// To the minute or so.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// Whether a key opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    Valid,
    Expired,
    Revoked,
}

impl KeyState {
    pub const ALL: [KeyState; 3] = [KeyState::Valid, KeyState::Expired, KeyState::Revoked];

    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Valid => "valid",
            KeyState::Expired => "expired",
            KeyState::Revoked => "revoked",
        }
    }
}

impl Key {
    pub fn state(&self, now: DateTime<Utc>) -> KeyState {
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if self.made.expires_at.is_some_and(|at| at <= now) {
            KeyState::Expired
        } else {
            KeyState::Valid
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_form_and_no_two_are_alike() {
        let (one, other) = (KeyText::generate(), KeyText::generate());
        let text = one.reveal();
        assert_eq!(text.len(), 5 + 12 + 1 + 43, "{text}");
        assert!(text.starts_with(&format!("adit_{}_", one.prefix())));
        assert_eq!(URL_SAFE_NO_PAD.decode(&text[18..]).unwrap().len(), 32);
        assert_ne!(text, other.reveal());
        let parsed = KeyText::parse(text).unwrap();
        assert!(parsed.hash().matches(&one.hash()) && !parsed.hash().matches(&other.hash()));
        assert!(!format!("{one:?}").contains(&text[18..]), "{one:?}");
    }

    #[test]
    fn what_has_not_the_form_is_no_key() {
        let text = KeyText::generate().reveal().to_string();
        let cut = &text[..text.len() - 1];
        for wrong in
            ["", "none", "adit_", "sk-abc", cut, &format!("{text}a"), &text.replace("adit_", "adit-")]
        {
            assert!(KeyText::parse(wrong).is_none(), "{wrong}");
        }
        assert!(KeyText::parse(&format!("adit_0123456789ab_{}", "é".repeat(21) + "a")).is_none());
        assert!(KeyText::parse(&text.to_uppercase()).is_none());
    }

    #[test]
    fn hashes_are_equal_only_if_every_bit_is() {
        let hash = KeyText::generate().hash();
        assert!(hash.matches(&KeyHash::from_bytes(hash.as_bytes()).unwrap()));
        for bit in 0..256 {
            let mut bytes = hash.0;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!hash.matches(&KeyHash(bytes)), "bit {bit}");
        }
        assert!(KeyHash::from_bytes(&[0; 31]).is_none());
    }

    #[test]
    fn a_key_ends_when_it_is_revoked_or_its_time_is_over() {
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        let made = NewKey {
            tenant: "t".into(),
            name: "n".into(),
            scopes: Scopes::all(),
            expires_at: Some(at(100)),
            rate_per_minute: None,
            max_queued_tokens: None,
        };
        assert_eq!(made.check(), Ok(()));
        let id = KeyId::new();
        let mut key =
            Key { id, prefix: "p".into(), made, created_at: at(0), revoked_at: None, last_used_at: None };
        assert_eq!((key.state(at(99)), key.state(at(100))), (KeyState::Valid, KeyState::Expired));
        key.revoked_at = Some(at(1));
        assert_eq!(key.state(at(99)), KeyState::Revoked);
    }
}
