//! `adit keys`: on the database itself, so that the first key can be made before there is anybody to ask.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};

use super::args::{Global, KeyAction, KeysArguments, ServeArguments};
use super::exit::{Exit, Stop};
use super::output::{print, print_json};
use super::report;
use super::settings as overlay;
use crate::app::Database;
use crate::clock::Clock;
use crate::domain::id::KeyId;
use crate::domain::key::{KeyText, NewKey};
use crate::store::Store;
use crate::wire::key::{Key, KeyList, KeyMade};

pub async fn run(global: &Global, args: &KeysArguments) -> Result<Exit> {
    let serve = ServeArguments { storage: args.storage.clone(), ..ServeArguments::default() };
    let settings = overlay::resolve(global, &serve)?;
    let database = Database::join(&settings).await?;
    let done = act(global, &args.action, &database.store).await;
    database.close().await;
    done.map(|()| Exit::Done)
}

async fn act(global: &Global, action: &KeyAction, store: &Store) -> Result<()> {
    let now = Clock::default().now();
    match action {
        KeyAction::Create { name, tenant, scopes, expires, rate, max_queued_tokens } => {
            let made = NewKey {
                tenant: tenant.clone(),
                name: name.clone(),
                scopes: scopes.iter().copied().collect(),
                // the flag's bounds are far within what a time can hold
                expires_at: expires.map(|life| now + TimeDelta::seconds(life.as_secs() as i64)),
                rate_per_minute: *rate,
                max_queued_tokens: *max_queued_tokens,
            };
            made.check().map_err(|bad| Stop::new(Exit::Usage, bad.to_string()))?;
            let text = KeyText::generate();
            let about = Key::of(store.create_key(&made, &text).await?, now);
            if global.is_json() {
                return print_json(&KeyMade { key: text.reveal().into(), about });
            }
            // nothing else on stdout: KEY=$(adit keys create …) has the key
            print(format_args!("{}\n", text.reveal()))?;
            eprintln!(
                "key {} of tenant '{}' may {}; it is shown this once",
                about.prefix, about.tenant, about.scopes
            );
        }
        KeyAction::List { tenant } => {
            let keys = store.keys(tenant.as_deref()).await?;
            let keys: Vec<Key> = keys.into_iter().map(|key| Key::of(key, now)).collect();
            show(global, keys)?;
        }
        KeyAction::Revoke { key } => {
            // a whole key is taken too, as it may be all that somebody has; it is not said again
            let whole = KeyText::parse(key);
            let word = whole.as_ref().map_or(key.as_str(), KeyText::prefix);
            let revoked = match find(store, word).await? {
                Some(id) => store.revoke_key(None, id).await?,
                None => None,
            };
            let Some(revoked) = revoked else {
                return Err(Stop::new(Exit::NotFound, format!("no key '{word}'")).into());
            };
            show(global, vec![Key::of(revoked, now)])?;
        }
    }
    Ok(())
}

/// By id or by prefix.
async fn find(store: &Store, word: &str) -> Result<Option<KeyId>> {
    if let Ok(id) = word.parse() {
        return Ok(Some(id));
    }
    Ok(store.key_by_prefix(word).await?.map(|(key, _)| key.id))
}

fn show(global: &Global, keys: Vec<Key>) -> Result<()> {
    if global.is_json() {
        return print_json(&KeyList { keys });
    }
    let head =
        ["prefix", "tenant", "name", "scopes", "state", "expires", "last used", "rate", "tokens", "id"];
    let time =
        |at: Option<DateTime<Utc>>| at.map_or("-".into(), |at| at.format("%Y-%m-%d %H:%M").to_string());
    let number = |n: Option<i64>| n.map_or("-".into(), |n| n.to_string());
    let rows = keys.iter().map(|key| {
        [
            key.prefix.clone(),
            key.tenant.clone(),
            key.name.clone(),
            key.scopes.to_string(),
            key.state.as_str().into(),
            time(key.expires_at),
            time(key.last_used_at),
            number(key.rate_per_minute.map(i64::from)),
            number(key.max_queued_tokens),
            key.id.to_string(),
        ]
    });
    Ok(print(report::rows(global.style(), &head, rows))?)
}
