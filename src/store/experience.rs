//! What items took of late, to say what others will take.

use super::{Store, StoreError};
use crate::domain::task::Stage;

/// Chunks that are looked at, newest first.
const MAX_CHUNKS: i64 = 100;

/// Sums over items that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Experience {
    pub items: f64,
    pub prompt_tokens: f64,
    pub prefix_hit_tokens: f64,
    pub output_tokens: f64,
}

impl Experience {
    /// Tokens of an answer, on average; nothing if none has ended.
    pub fn output_per_item(&self) -> Option<f64> {
        (self.items > 0.0).then(|| self.output_tokens / self.items)
    }

    /// Tokens that an item takes through the forward pass, on average.
    pub fn rows_per_item(&self) -> Option<f64> {
        let rows = self.prompt_tokens - self.prefix_hit_tokens + self.output_tokens;
        (self.items > 0.0).then(|| rows / self.items)
    }
}

impl Store {
    /// Of a model's newest chunks that have ended; of one stage, or of all.
    pub async fn experience(&self, model: &str, stage: Option<Stage>) -> Result<Experience, StoreError> {
        let row = sqlx::query!(
            r#"select coalesce(sum(n_succeeded + n_failed), 0)::float8 as "items!",
                      coalesce(sum(prompt_tokens), 0)::float8 as "prompt!",
                      coalesce(sum(prefix_hit_tokens), 0)::float8 as "hits!",
                      coalesce(sum(output_tokens), 0)::float8 as "output!"
               from (select * from chunks
                     where model = $1 and state = 'done' and not carried and ($2::text is null or stage = $2::text::stage)
                     order by id desc limit $3) recent"#,
            model,
            stage.map(Stage::as_str),
            MAX_CHUNKS,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Experience {
            items: row.items,
            prompt_tokens: row.prompt,
            prefix_hit_tokens: row.hits,
            output_tokens: row.output,
        })
    }
}
