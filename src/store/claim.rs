//! Claims: taking chunks, reading their items, keeping and giving back the lease.

use serde_json::Value;
use uuid::Uuid;

use super::words::At;
use super::{Store, StoreError};
use crate::domain::id::{ChunkId, JobId, Seq, WorkerId};
use crate::domain::job::Class;
use crate::domain::lease::{Claim, Fence, ItemRange};
use crate::domain::task::Stage;

/// Claims lost to another worker between reading the candidates and locking them are tried again this often.
const MAX_RACES: u32 = 3;

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct ClaimRequest<'a> {
    pub worker: WorkerId,
    pub model: &'a str,
    /// Items the claim should hold; the last chunk may exceed it, a first chunk that would is cut.
    pub budget: i32,
    pub lease_ms: u64,
    /// Chunks whose workers died this often are claimed alone, one at a time in this process, so that a
    /// further death accuses nobody else.
    pub suspect_deaths: u16,
    /// Jobs of which this process has enough in hand. If there are any, only what is level with the head of
    /// the queue and of none of these jobs is claimed.
    pub besides: &'a [JobId],
}

/// An item of a claim that has not ended yet.
#[derive(Clone, Debug)]
pub struct ClaimedItem {
    pub chunk: ChunkId,
    pub job: JobId,
    pub seq: Seq,
    pub stage: Stage,
    /// Of its job.
    pub class: Class,
    pub input: Value,
}

#[derive(sqlx::FromRow)]
struct ClaimRow {
    id: i64,
    job_id: Uuid,
    stage: String,
    lo: i32,
    hi: i32,
    seqs: Option<Vec<i32>>,
    attempt: i32,
    tries: i16,
}

impl Store {
    /// Claims the fairest waiting chunks of a model. Empty: nothing waits.
    pub async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<Claim>, StoreError> {
        for _ in 0..MAX_RACES {
            let mut tx = self.pool.begin().await?;
            // a claim that a crash of Postgres loses is only claimed again
            sqlx::query!("set local synchronous_commit = off").execute(&mut *tx).await?;
            cut_first(&mut tx, request).await?;
            let rows: Vec<ClaimRow> = sqlx::query_as(include_str!("claim.sql"))
                .bind(request.worker.0)
                .bind(request.model)
                .bind(request.budget)
                .bind(request.lease_ms as f64)
                .bind(i32::from(request.suspect_deaths))
                .bind(besides(request))
                .fetch_all(&mut *tx)
                .await?;
            let jobs: Vec<Uuid> = rows.iter().map(|row| row.job_id).collect();
            if !jobs.is_empty() {
                start_jobs(&mut tx, &jobs).await?;
            }
            tx.commit().await?;
            if !rows.is_empty() {
                return rows.into_iter().map(|row| to_claim(row, request.worker)).collect();
            }
        }
        Ok(Vec::new())
    }

    /// The items of these claims that have not ended, in the claims' order. Whoever has lost a claim
    /// meanwhile reads items that another worker also has; the fence keeps its writes out.
    pub async fn claimed_items(&self, claims: &[Claim]) -> Result<Vec<ClaimedItem>, StoreError> {
        let chunks: Vec<i64> = claims.iter().map(|claim| claim.fence.chunk.0).collect();
        // the lateral form reads each range by the key; a plain join was measured four times slower
        let rows = sqlx::query!(
            r#"select c.id as "chunk!", i.job_id as "job_id!", i.seq as "seq!", i.stage::text as "stage!",
                      i.input::text as "input!", c.class as "class!"
               from unnest($1::bigint[]) with ordinality u (id, at)
               join chunks c on c.id = u.id
               cross join lateral (
                   select job_id, seq, stage, input from items
                   where job_id = c.job_id and seq >= c.lo and seq < c.hi
                     and (c.seqs is null or seq = any(c.seqs))
                     and not exists (select from results r where r.job_id = c.job_id and r.seq = items.seq)
                   offset 0) i
               order by u.at, i.seq"#,
            &chunks,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let place = format!("{}/{}", row.job_id, row.seq);
                Ok(ClaimedItem {
                    chunk: ChunkId(row.chunk),
                    job: JobId(row.job_id),
                    seq: row.seq,
                    stage: At { table: "items", column: "stage", row: &place }.stage(&row.stage)?,
                    class: At { table: "chunks", column: "class", row: &place }.class(row.class)?,
                    input: At { table: "items", column: "input", row: &place }.json(&row.input)?,
                })
            })
            .collect()
    }

    /// Extends the leases of these claims, and returns those that are still held. A lease that ran out but
    /// was not taken away yet is held.
    pub async fn renew(&self, fences: &[Fence], lease_ms: u64) -> Result<Vec<Fence>, StoreError> {
        let (ids, attempts) = columns(fences);
        let worker = fences.first().map(|fence| fence.worker.0);
        // locked rows are being finished or cancelled at this moment; the next renewal sees to them
        sqlx::query!(
            "update chunks set lease_until = now() + make_interval(secs => $4::float8 / 1000)
             where id in (select c.id from chunks c
                          join unnest($1::bigint[], $2::int[]) u (id, attempt) on c.id = u.id and c.attempt = u.attempt
                          where c.state = 'running' and c.worker = $3
                          order by c.id for update of c skip locked)",
            &ids,
            &attempts,
            worker,
            lease_ms as f64,
        )
        .execute(&self.pool)
        .await?;
        let held = sqlx::query_scalar!(
            r#"select c.id from chunks c
               join unnest($1::bigint[], $2::int[]) u (id, attempt) on c.id = u.id and c.attempt = u.attempt
               where c.state = 'running' and c.worker = $3"#,
            &ids,
            &attempts,
            worker,
        )
        .fetch_all(&self.pool)
        .await?;
        let held: std::collections::HashSet<i64> = held.into_iter().collect();
        Ok(fences.iter().filter(|fence| held.contains(&fence.chunk.0)).copied().collect())
    }

    /// Gives claims back: what has not ended waits again, at once and without any mark against it.
    /// Returns how many were still held.
    pub async fn release(&self, fences: &[Fence]) -> Result<u64, StoreError> {
        let (ids, attempts) = columns(fences);
        let worker = fences.first().map(|fence| fence.worker.0);
        // a chunk all of whose items have ended stays running, for finish; a worker that dies before that
        // leaves it to the rescue
        let released = sqlx::query!(
            "with mine as (
                 select c.id from chunks c
                 join unnest($1::bigint[], $2::int[]) u (id, attempt) on c.id = u.id and c.attempt = u.attempt
                 where c.state = 'running' and c.worker = $3 order by c.id for update of c)
             update chunks c set state = 'ready', worker = null, lease_until = null
             from mine where c.id = mine.id",
            &ids,
            &attempts,
            worker,
        )
        .execute(&self.pool)
        .await?;
        Ok(released.rows_affected())
    }

    /// Makes delayed chunks whose time has come claimable. Returns how many.
    pub async fn promote_due(&self) -> Result<u64, StoreError> {
        let promoted = sqlx::query!(
            "update chunks set state = 'ready', run_at = null
             where id in (select id from chunks where state = 'delayed' and run_at <= now()
                          order by run_at limit 1000 for update skip locked)"
        )
        .execute(&self.pool)
        .await?;
        Ok(promoted.rows_affected())
    }
}

fn besides(request: &ClaimRequest<'_>) -> Vec<Uuid> {
    request.besides.iter().map(|job| job.0).collect()
}

/// Cuts the fairest chunk in two when it alone holds more than the budget, so that a claim stays some
/// seconds of work on a slow machine too. Only whole spans that nobody has worked on are cut.
async fn cut_first(tx: &mut sqlx::PgConnection, request: &ClaimRequest<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "with first as (
             select id from chunks
             where state = 'ready' and model = $1
               and (cardinality($3::uuid[]) = 0
                    or job_id <> all($3)
                       and (class, vtime) = (select class, vtime from chunks where state = 'ready' and model = $1
                                             order by class desc, vtime limit 1))
             order by class desc, vtime, id limit 1),
         big as (
             select c.* from chunks c join first using (id)
             where c.state = 'ready' and c.seqs is null and c.n_succeeded + c.n_failed = 0 and c.deaths = 0
               and c.n_items > $2 + $2 / 2
             for update of c skip locked),
         -- the rest keeps its place in line behind what is taken now
         rest as (
             insert into chunks (job_id, stage, model, lo, hi, n_items, class, vtime, tries)
             select job_id, stage, model, lo + $2, hi, n_items - $2, class, 
                    vtime + $2::bigint * 100000 / (select weight from jobs where id = job_id), tries
             from big)
         update chunks c set hi = c.lo + $2, n_items = $2 from big where c.id = big.id",
        request.model,
        request.budget.max(1),
        &besides(request),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A job that somebody else has locked is being started, ended or cancelled there.
async fn start_jobs(tx: &mut sqlx::PgConnection, jobs: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "update jobs set state = 'running', started_at = coalesce(started_at, now())
         where id in (select id from jobs where id = any($1) and state = 'queued' for no key update skip locked)",
        jobs,
    )
    .execute(tx)
    .await?;
    Ok(())
}

fn to_claim(row: ClaimRow, worker: WorkerId) -> Result<Claim, StoreError> {
    Ok(Claim {
        fence: Fence { chunk: ChunkId(row.id), worker, attempt: row.attempt },
        job: JobId(row.job_id),
        stage: At { table: "chunks", column: "stage", row: &row.id }.stage(&row.stage)?,
        range: match row.seqs {
            Some(seqs) => ItemRange::List(seqs),
            None => ItemRange::Span { lo: row.lo, hi: row.hi },
        },
        tries: row.tries,
    })
}

pub(super) fn columns(fences: &[Fence]) -> (Vec<i64>, Vec<i32>) {
    fences.iter().map(|fence| (fence.chunk.0, fence.attempt)).unzip()
}
