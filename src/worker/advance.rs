//! From one stage of a job to the next.

use tokio::sync::mpsc;

use super::context::{Contexts, JobContext};
use crate::domain::id::JobId;
use crate::domain::item::ItemDraft;
use crate::domain::task::Stage;
use crate::extract::ExtractError;
use crate::extract::pipeline::{self, Finished};
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
        let next = next(&context, done.stage, &finished);
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

/// What follows `stage`, all of whose items have ended.
fn next(context: &JobContext, stage: Stage, finished: &[Finished]) -> NextStage {
    let fail = |error: &ExtractError| NextStage::Fail { code: error.code(), message: error.to_string() };
    let (Some(catalog), Some(after)) = (&context.catalog, context.spec.task.stage_after(stage)) else {
        return NextStage::Items { stage, drafts: Vec::new() };
    };
    match pipeline::next_items(&context.spec, catalog, stage, finished) {
        Ok(drafts) => NextStage::Items { stage: after, drafts },
        Err(error) => fail(&error),
    }
}
