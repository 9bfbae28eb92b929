//! What a job is expected to ask, drawn once for each job: stages to come, and the size of its prompts.

use super::work::Prompts;
use crate::domain::catalog::Catalog;
use crate::domain::id::JobId;
use crate::domain::item::ItemDraft;
use crate::domain::job::JobSpec;
use crate::domain::task::Stage;
use crate::extract::pipeline;
use crate::models::manager::Manager;
use crate::store::{Store, StoreError};
use crate::worker::estimate::{self, Asked};

/// Prompts of a stage that are rendered to see how long they are.
const SAMPLES: i64 = 8;

/// A job's part that does not change, as far as a forecast needs it.
pub(super) struct Sketch {
    /// Stands for what is asked, whatever the inputs.
    pub digest: String,
    stages: Vec<StageSketch>,
    /// Until every stage's prompts are counted.
    asked: Option<Asked>,
}

struct StageSketch {
    stage: Stage,
    model: String,
    items: f64,
    samples: Vec<ItemDraft>,
    prompts: Count,
}

enum Count {
    /// Its model has not been ready yet.
    Due,
    Done(Option<Prompts>),
}

impl Sketch {
    /// `None`: the job is gone.
    pub async fn draw(store: &Store, job: JobId, total: i64) -> Result<Option<Self>, StoreError> {
        let Some((spec, catalog)) = store.job_spec(job).await? else { return Ok(None) };
        let digest = store.digest(&spec).await?;
        let first = store.some_items(job, total, SAMPLES).await?;
        // work: not for a thread that serves requests
        let drawn = tokio::task::spawn_blocking(move || {
            let stages = foreseen(&spec, catalog.as_ref());
            (Asked { spec, catalog, drafts: Vec::new() }, stages)
        });
        let Ok((asked, mut stages)) = drawn.await else { return Ok(None) };
        for stage in &mut stages {
            // answers of an earlier job, which are not asked for again
            let kept = store.carried(job, stage.stage).await?.len();
            stage.items = (stage.items - kept as f64).max(0.0);
        }
        if stages.is_empty()
            && let Some(stage) = first.first().map(|draft| draft.stage)
        {
            let mut only = StageSketch::new(&asked.spec, stage, first);
            only.items = total as f64;
            stages.push(only);
        }
        Ok(Some(Self { digest, stages, asked: Some(asked) }))
    }

    /// Counts the prompts of stages whose model is ready, once.
    pub async fn count(&mut self, models: &Manager) {
        for stage in &mut self.stages {
            let (Count::Due, Some(mut asked)) = (&stage.prompts, self.asked.take()) else { continue };
            if !models.is_ready(&stage.model) {
                self.asked = Some(asked);
                continue;
            }
            asked.drafts = std::mem::take(&mut stage.samples);
            match estimate::prompt_tokens(models, &stage.model, asked).await {
                Ok((Some(tokens), asked)) => {
                    stage.prompts = Count::Done(tokens.means(stage.items));
                    self.asked = Some(asked);
                }
                // unloaded meanwhile
                Ok((None, mut asked)) => {
                    stage.samples = std::mem::take(&mut asked.drafts);
                    self.asked = Some(asked);
                }
                // such items fail; what is known of others has to do, for this stage and those after it
                Err(refusal) => {
                    tracing::debug!(?refusal, "prompts could not be rendered for a forecast");
                    stage.prompts = Count::Done(None);
                }
            }
        }
        if self.stages.iter().all(|stage| matches!(stage.prompts, Count::Done(_))) {
            self.asked = None;
        }
    }

    /// Items that a stage will have, and its model; `None`: it is not known to have any.
    pub fn stage(&self, stage: Stage) -> Option<(f64, &str)> {
        self.of(stage).map(|stage| (stage.items, stage.model.as_str()))
    }

    pub fn prompts(&self, stage: Stage) -> Option<&Prompts> {
        match &self.of(stage)?.prompts {
            Count::Done(prompts) => prompts.as_ref(),
            Count::Due => None,
        }
    }

    fn of(&self, stage: Stage) -> Option<&StageSketch> {
        self.stages.iter().find(|of| of.stage == stage)
    }
}

/// All stages of a job that has several. One whose stages cannot be foreseen has none that are expected.
fn foreseen(spec: &JobSpec, catalog: Option<&Catalog>) -> Vec<StageSketch> {
    let Some(catalog) = catalog.filter(|_| spec.task.stages().len() > 1) else { return Vec::new() };
    let expected = pipeline::expected_items(spec, catalog).unwrap_or_default();
    expected.into_iter().map(|(stage, drafts)| StageSketch::new(spec, stage, drafts)).collect()
}

impl StageSketch {
    fn new(spec: &JobSpec, stage: Stage, drafts: Vec<ItemDraft>) -> Self {
        let n = drafts.len();
        let some = (SAMPLES as usize).min(n);
        let samples = (0..some).map(|k| drafts[k * n / some].clone());
        let model = spec.model_of(stage).to_string();
        Self { stage, model, items: n as f64, samples: samples.collect(), prompts: Count::Due }
    }
}
