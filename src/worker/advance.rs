//! From one stage of a job to the next.

use tokio::sync::mpsc;

use super::context::{Contexts, JobContext};
use crate::domain::id::JobId;
use crate::domain::item::{Carried, ItemDraft, StageItems};
use crate::domain::task::Stage;
use crate::extract::pipeline::Finished;
use crate::extract::since;
use crate::queue::ended;
use crate::shutdown::Shutdown;
use crate::store::advance::{Advanced, NextStage};
use crate::store::finish::StageDone;
use crate::store::{Store, StoreError};

/// Results read at once.
const PAGE: u32 = 1_000;

/// Advances jobs as their stages end. A failure is logged; the stage is handed out again later.
pub async fn run(
    mut stages: mpsc::UnboundedReceiver<StageDone>,
    store: Store,
    contexts: Contexts,
    shutdown: Shutdown,
) {
    loop {
        let done = tokio::select! {
            done = stages.recv() => done,
            () = shutdown.requested_now() => None,
        };
        let Some(done) = done else { return };
        if let Err(error) = advance(&store, &contexts, done).await {
            tracing::warn!(%error, job = %done.job, stage = %done.stage, "the job could not be advanced yet");
        }
    }
}

async fn advance(store: &Store, contexts: &Contexts, mut done: StageDone) -> Result<(), StoreError> {
    let Some(context) = contexts.get(done.job).await? else { return Ok(()) };
    let finished = finished_items(store, done.job).await?;
    loop {
        let carried = match context.spec.task.stage_after(done.stage) {
            Some(after) => store.carried(done.job, after).await?,
            None => Vec::new(),
        };
        let next = next(&context, done.stage, &finished, carried);
        let advanced = store.advance(done, next).await?;
        tracing::info!(job = %done.job, stage = %done.stage, ?advanced, "stage done");
        match advanced {
            Advanced::Passed(after) => done = after,
            Advanced::Ended => {
                ended::tell(store, done.job).await;
                return Ok(());
            }
            Advanced::Started | Advanced::Stale => return Ok(()),
        }
    }
}

/// Every item of the job that has ended, of all stages.
pub async fn finished_items(store: &Store, job: JobId) -> Result<Vec<Finished>, StoreError> {
    let mut finished = Vec::new();
    let mut after = None;
    loop {
        let page = store.results(job, after, PAGE, None).await?;
        let Some(last) = page.rows.last() else { return Ok(finished) };
        after = Some(last.seq);
        finished.extend(page.rows.into_iter().map(|row| Finished {
            draft: ItemDraft { stage: row.stage, input: row.input },
            outcome: row.outcome,
        }));
    }
}

/// What follows `stage`, all of whose items have ended; `carried` is what an earlier job answered of it.
fn next(context: &JobContext, stage: Stage, finished: &[Finished], carried: Vec<Carried>) -> NextStage {
    let nothing = || NextStage::Items(StageItems { stage, carried: Vec::new(), drafts: Vec::new() });
    let Some(catalog) = &context.catalog else { return nothing() };
    match since::next_stage(&context.spec, catalog, stage, finished, carried) {
        Ok(items) => items.map_or_else(nothing, NextStage::Items),
        Err(error) => NextStage::Fail { code: error.code(), message: error.to_string() },
    }
}
