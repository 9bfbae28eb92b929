//! Answers that go from one job to another: kept beside the job until their stage begins, then results like all
//! others. They are copies: the earlier job may be deleted at any time after the submission.

use sqlx::PgConnection;

use super::submit::{Cut, ItemRows, Share, insert_chunks, notify_work};
use super::words::{At, to_json};
use super::{Store, StoreError};
use crate::domain::id::{JobId, Seq};
use crate::domain::item::{Carried, ItemDraft, StageItems};
use crate::domain::job::JobSpec;
use crate::domain::task::Stage;

/// Rows of one statement.
const ROWS: usize = 2_000;

impl Store {
    /// What was kept for a stage of a job, by seq in the earlier one. Of most jobs: nothing.
    pub async fn carried(&self, job: JobId, stage: Stage) -> Result<Vec<Carried>, StoreError> {
        let rows = sqlx::query!(
            r#"select seq, input::text as "input!", output::text as "output!" from carried
               where job_id = $1 and stage = $2::text::stage order by seq"#,
            job.0,
            stage.as_str(),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let place = format!("{job}/{}", row.seq);
                let at = |column| At { table: "carried", column, row: &place };
                let draft = ItemDraft { stage, input: at("input").json(&row.input)? };
                Ok(Carried { seq: row.seq, draft, output: at("output").json(&row.output)? })
            })
            .collect()
    }
}

/// Copies results of `earlier` into what is kept for `job`.
pub(super) async fn keep(
    tx: &mut PgConnection,
    job: JobId,
    earlier: JobId,
    carried: &[Carried],
) -> Result<(), StoreError> {
    for rows in carried.chunks(ROWS) {
        let columns = Columns::of(rows);
        let kept = sqlx::query!(
            "insert into carried (job_id, seq, stage, input, output, result)
             select $1, u.seq, u.stage::stage, u.input::json, u.output::json,
                    to_jsonb(carried_result(r, $1, u.seq, null)) - 'output'
             from unnest($3::int[], $4::text[], $5::text[], $6::text[]) u (seq, stage, input, output)
             join results r on r.job_id = $2 and r.seq = u.seq and r.outcome = 'succeeded'",
            job.0,
            earlier.0,
            &columns.seqs,
            &columns.stages as &[&str],
            &columns.inputs,
            &columns.outputs,
        )
        .execute(&mut *tx)
        .await?;
        // the caller holds the earlier job, whose results cannot go away
        debug_assert_eq!(kept.rows_affected(), rows.len() as u64);
    }
    Ok(())
}

/// Of whom and how the items of a stage are served.
#[derive(Clone, Copy)]
pub(super) struct Serving<'a> {
    pub job: JobId,
    pub spec: &'a JobSpec,
    pub share: Share,
    pub chunk_items: i32,
}

/// Writes the items of a stage behind those that are there: carried ones with their results, in chunks that have
/// ended; then the others, which wait. What is kept for the stage and not carried is let go. Returns the seq after
/// the last.
pub(super) async fn write_stage(
    tx: &mut PgConnection,
    rows: &mut ItemRows,
    serving: Serving<'_>,
    items: &StageItems,
) -> Result<i32, StoreError> {
    let Serving { job, spec, share, chunk_items } = serving;
    let (stage, model) = (items.stage, spec.model_of(items.stage));
    let lo = rows.finish(tx).await?;
    for one in &items.carried {
        rows.push(tx, &one.draft).await?;
    }
    let hi = rows.finish(tx).await?;
    let mut at = lo;
    for part in items.carried.chunks(ROWS) {
        insert_results(tx, job, at, part).await?;
        at += i32::try_from(part.len()).expect("a part is small");
    }
    insert_carried_chunks(tx, job, stage, model, share, Cut { lo, hi, chunk_items }).await?;
    sqlx::query!("delete from carried where job_id = $1 and stage = $2::text::stage", job.0, stage.as_str())
        .execute(&mut *tx)
        .await?;
    for draft in &items.drafts {
        rows.push(tx, draft).await?;
    }
    let end = rows.finish(tx).await?;
    if end > hi {
        insert_chunks(tx, job, stage, model, share, Cut { lo: hi, hi: end, chunk_items }).await?;
        notify_work(tx, model).await?;
    }
    Ok(end)
}

/// Results of items from `first` on, made of what was kept.
async fn insert_results(
    tx: &mut PgConnection,
    job: JobId,
    first: Seq,
    carried: &[Carried],
) -> Result<(), StoreError> {
    let columns = Columns::of(carried);
    let made = sqlx::query!(
        "insert into results
         select p.* from unnest($3::int[], $4::text[]) with ordinality u (seq, output, at)
         join carried c on c.job_id = $1 and c.seq = u.seq
         cross join lateral carried_result(jsonb_populate_record(null::results, c.result), $1,
                                           $2 + (u.at - 1)::int, u.output::json) p",
        job.0,
        first,
        &columns.seqs,
        &columns.outputs,
    )
    .execute(tx)
    .await?;
    match made.rows_affected() == carried.len() as u64 {
        true => Ok(()),
        false => Err(StoreError::Corrupt {
            table: "carried",
            column: "result",
            row: job.to_string(),
            cause: "answers that were kept are not there any more".into(),
        }),
    }
}

/// Chunks all of whose items ended in an earlier job; nobody claims them.
async fn insert_carried_chunks(
    tx: &mut PgConnection,
    job: JobId,
    stage: Stage,
    model: &str,
    share: Share,
    cut: Cut,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into chunks (job_id, stage, model, lo, hi, n_items, n_succeeded, class, vtime, state, carried)
         select $1, $2::text::stage, $3, g, least(g + $6, $5), least(g + $6, $5) - g, least(g + $6, $5) - g, $7, 0,
                'done', true
         from generate_series($4, $5 - 1, $6) g",
        job.0,
        stage.as_str(),
        model,
        cut.lo,
        cut.hi,
        cut.chunk_items,
        share.class as i16,
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[derive(Default)]
struct Columns {
    seqs: Vec<Seq>,
    stages: Vec<&'static str>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Columns {
    fn of(carried: &[Carried]) -> Self {
        let mut columns = Self::default();
        for one in carried {
            columns.seqs.push(one.seq);
            columns.stages.push(one.draft.stage.as_str());
            columns.inputs.push(to_json(&one.draft.input));
            columns.outputs.push(to_json(&one.output));
        }
        columns
    }
}
