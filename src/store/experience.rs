//! What items took of late, to say what others will take.

use super::words::to_json;
use super::{Store, StoreError};
use crate::domain::job::JobSpec;
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
    pub forced_tokens: f64,
}

impl std::ops::AddAssign for Experience {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.prompt_tokens += other.prompt_tokens;
        self.prefix_hit_tokens += other.prefix_hit_tokens;
        self.output_tokens += other.output_tokens;
        self.forced_tokens += other.forced_tokens;
    }
}

/// How fast a model has worked off tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Of prompts what the prefix cache had not, and answers.
    pub rows: f64,
    /// Time in which at least one chunk was at work.
    pub seconds: f64,
}

impl Store {
    /// Of a model's newest chunks of a stage in which items have ended, by what was asked ([`Store::digest`]).
    pub async fn experience(
        &self,
        model: &str,
        stage: Stage,
    ) -> Result<Vec<(String, Experience)>, StoreError> {
        let rows = sqlx::query!(
            r#"select md5(j.spec::text) as "digest!", sum(n_succeeded + n_failed)::float8 as "items!",
                      sum(prompt_tokens)::float8 as "prompt!", sum(prefix_hit_tokens)::float8 as "hits!",
                      sum(output_tokens)::float8 as "output!", sum(forced_tokens)::float8 as "forced!"
               from (select * from chunks
                     where model = $1 and stage = $2::text::stage and n_succeeded + n_failed > 0
                       and claimed_at is not null and not carried
                     order by id desc limit $3) recent
               join jobs j on j.id = recent.job_id group by 1"#,
            model,
            stage.as_str(),
            MAX_CHUNKS,
        )
        .fetch_all(&self.pool)
        .await?;
        let experience = rows.into_iter().map(|row| {
            let of_digest = Experience {
                items: row.items,
                prompt_tokens: row.prompt,
                prefix_hit_tokens: row.hits,
                output_tokens: row.output,
                forced_tokens: row.forced,
            };
            (row.digest, of_digest)
        });
        Ok(experience.collect())
    }

    /// Of a model's newest chunks in which items have ended; `None` if there are none.
    pub async fn pace(&self, model: &str) -> Result<Option<Pace>, StoreError> {
        let row = sqlx::query!(
            r#"with recent as (
                   select claimed_at, result_at, (n_succeeded + n_failed - n_before)::float8 / (n_succeeded + n_failed)
                              * (prompt_tokens - prefix_hit_tokens + output_tokens) as rows
                   from chunks
                   where model = $1 and n_succeeded + n_failed > 0 and result_at > claimed_at and not carried
                   order by id desc limit $2),
               busy as (select unnest(range_agg(tstzrange(claimed_at, result_at))) as part from recent)
               select (select sum(rows) from recent)::float8 as "rows",
                      (select sum(extract(epoch from upper(part) - lower(part))) from busy)::float8 as "seconds""#,
            model,
            MAX_CHUNKS,
        )
        .fetch_one(&self.pool)
        .await?;
        let pace = row.rows.zip(row.seconds).map(|(rows, seconds)| Pace { rows, seconds });
        Ok(pace.filter(|pace| pace.rows > 0.0 && pace.seconds > 0.0))
    }

    /// Stands for what is asked: two jobs with the same one differ in their inputs alone.
    pub async fn digest(&self, spec: &JobSpec) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar!(r#"select md5($1) as "digest!""#, to_json(spec)).fetch_one(&self.pool).await?)
    }
}
