//! Jobs made from an earlier one: what is read of it, and what is kept to compare them by.

use sqlx::PgConnection;
use uuid::Uuid;

use super::carry::{self, Serving};
use super::submit::{Share, Submission};
use super::words::{At, to_json};
use super::{Store, StoreError};
use crate::domain::basis::Basis;
use crate::domain::catalog::Catalog;
use crate::domain::difference::TableChanges;
use crate::domain::fact::DataModel;
use crate::domain::id::{JobId, Seq};
use crate::domain::item::{Carried, ItemDraft, Outcome, StageItems};
use crate::domain::job::{JobSpec, JobState};

/// A job as another is made from it.
#[derive(Clone, Debug)]
pub struct EarlierJob {
    pub id: JobId,
    pub tenant: String,
    pub state: JobState,
    pub spec: JobSpec,
    pub basis: Option<Basis>,
    pub catalog: Option<Catalog>,
}

/// An item of it. Of one that has no result, `outcome` is `Cancelled`.
#[derive(Clone, Debug)]
pub struct EarlierItem {
    pub seq: Seq,
    pub draft: ItemDraft,
    pub outcome: Outcome,
}

/// What a job with `since` was made from.
#[derive(Clone, Debug)]
pub struct Rerun {
    pub since: JobId,
    pub tables: TableChanges,
    /// What the earlier job had found.
    pub model: DataModel,
}

impl Store {
    /// A job and its items, to say what another that is made from it would take.
    pub async fn earlier_job(&self, id: JobId) -> Result<Option<(EarlierJob, Vec<EarlierItem>)>, StoreError> {
        let mut tx = self.pool.begin_with("begin isolation level repeatable read, read only").await?;
        let Some(job) = read_job(&mut tx, id).await? else { return Ok(None) };
        let items = read_items(&mut tx, id).await?;
        tx.rollback().await?;
        Ok(Some((job, items)))
    }

    /// `None`: no job of this id was made from another.
    pub async fn rerun(&self, id: JobId) -> Result<Option<Rerun>, StoreError> {
        let row = sqlx::query!(
            r#"select j.since as "since!", r.tables::text as "tables!", r.model::text as "model!"
               from reruns r join jobs j on j.id = r.job_id where r.job_id = $1"#,
            id.0
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let at = |column| At { table: "reruns", column, row: &id };
        Ok(Some(Rerun {
            since: JobId(row.since),
            tables: at("tables").json(&row.tables)?,
            model: at("model").json(&row.model)?,
        }))
    }
}

impl Submission {
    /// Whether an earlier submission under the same key has made the job: what is written is dropped.
    pub fn is_repeated(&self) -> bool {
        self.earlier.is_some()
    }

    /// The job that this one is made from. It can be neither retried nor deleted until the submission ends.
    pub async fn hold(&mut self, id: JobId) -> Result<Option<EarlierJob>, StoreError> {
        sqlx::query!("select id from jobs where id = $1 for share", id.0)
            .fetch_optional(&mut *self.tx)
            .await?;
        read_job(&mut self.tx, id).await
    }

    pub async fn items_of(&mut self, id: JobId) -> Result<Vec<EarlierItem>, StoreError> {
        read_items(&mut self.tx, id).await
    }

    /// Makes the job of `stages`, in the place of pushes. `carried` are the answers for them and for later stages;
    /// of each stage but the last everything is carried over. A last stage with nothing to run ends the job with the
    /// commit.
    pub async fn write_rerun(
        &mut self,
        rerun: &Rerun,
        carried: &[Carried],
        stages: &[StageItems],
    ) -> Result<(), StoreError> {
        let (job, spec) = (self.job.id, self.job.spec.clone());
        insert_rerun(&mut self.tx, job.0, rerun).await?;
        carry::keep(&mut self.tx, job, rerun.since, carried).await?;
        let share = Share { class: self.job.class, weight: self.job.weight };
        let serving = Serving { job, spec: &spec, share, chunk_items: self.chunk_items };
        for items in stages {
            carry::write_stage(&mut self.tx, &mut self.rows, serving, items).await?;
        }
        let last = stages.last().ok_or(StoreError::Empty(job))?;
        let has_ended = last.drafts.is_empty();
        sqlx::query!(
            "update jobs set stage = $2::text::stage,
                    state = case when $3 then 'completed'::job_state else state end,
                    finished_at = case when $3 then now() end
             where id = $1",
            job.0,
            last.stage.as_str(),
            has_ended,
        )
        .execute(&mut *self.tx)
        .await?;
        self.has_chunks = true;
        Ok(())
    }
}

async fn insert_rerun(tx: &mut PgConnection, job: Uuid, rerun: &Rerun) -> Result<(), StoreError> {
    sqlx::query!(
        "with made as (
             insert into reruns (job_id, tables, model) values ($1, $3::text::json, $4::text::json))
         update jobs set since = $2 where id = $1",
        job,
        rerun.since.0,
        to_json(&rerun.tables),
        to_json(&rerun.model),
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn read_job(tx: &mut PgConnection, id: JobId) -> Result<Option<EarlierJob>, StoreError> {
    let row = sqlx::query!(
        r#"select tenant, state::text as "state!", spec::text as "spec!", basis::text, catalog::text
           from jobs where id = $1"#,
        id.0
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let at = |column| At { table: "jobs", column, row: &id };
    Ok(Some(EarlierJob {
        id,
        tenant: row.tenant,
        state: at("state").job_state(&row.state)?,
        spec: at("spec").json(&row.spec)?,
        basis: row.basis.as_deref().map(|text| at("basis").json(text)).transpose()?,
        catalog: row.catalog.as_deref().map(|text| at("catalog").json(text)).transpose()?,
    }))
}

async fn read_items(tx: &mut PgConnection, id: JobId) -> Result<Vec<EarlierItem>, StoreError> {
    let rows = sqlx::query!(
        r#"select i.seq, i.stage::text as "stage!", i.input::text as "input!", r.output::text as "output?",
                  r.error_code as "error_code?", r.error as "error?"
           from items i left join results r on r.job_id = i.job_id and r.seq = i.seq
           where i.job_id = $1 order by i.seq"#,
        id.0
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let place = format!("{id}/{}", row.seq);
            let at = |table, column| At { table, column, row: &place };
            let outcome = match (row.output, row.error_code) {
                (Some(output), _) => Outcome::Succeeded { output: at("results", "output").json(&output)? },
                (None, Some(code)) => Outcome::Failed {
                    code: at("results", "error_code").code(&code)?,
                    message: row.error.unwrap_or_default(),
                },
                (None, None) => Outcome::Cancelled,
            };
            let draft = ItemDraft {
                stage: at("items", "stage").stage(&row.stage)?,
                input: at("items", "input").json(&row.input)?,
            };
            Ok(EarlierItem { seq: row.seq, draft, outcome })
        })
        .collect()
}
