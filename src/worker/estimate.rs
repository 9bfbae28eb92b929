//! What a submission would cost: its prompts rendered and counted as they would be, without asking the model.

use crate::domain::catalog::Catalog;
use crate::domain::chat::Refusal;
use crate::domain::code::Code;
use crate::domain::item::ItemDraft;
use crate::domain::job::JobSpec;
use crate::extract::prompt;
use crate::models::manager::Manager;
use crate::models::served::Served;

/// Tokens of some prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptTokens {
    pub all: u64,
    /// What all prompts begin with, once for each but the first.
    pub shared: u64,
    /// Prompts that leave no room for an answer. Not part of the above.
    pub too_long: u64,
}

/// What a model needs to be asked.
pub struct Asked {
    pub spec: JobSpec,
    pub catalog: Option<Catalog>,
    pub drafts: Vec<ItemDraft>,
}

/// Counts the prompts of a stage with the tokenizer of its model. `None`: the model is not ready.
pub async fn prompt_tokens(
    models: &Manager,
    model: &str,
    asked: Asked,
) -> Result<(Option<PromptTokens>, Asked), Refusal> {
    let Ok(served) = models.get_model(model) else { return Ok((None, asked)) };
    // work: not for a thread that serves requests
    let counted =
        tokio::task::spawn_blocking(move || count(&served, &asked).map(|tokens| (Some(tokens), asked)));
    counted.await.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?
}

/// Tokens per second that a ready model's engine has worked off while it was busy; `None` before its first step.
pub fn rows_per_s(models: &Manager, model: &str) -> Option<f64> {
    let stats = models.get_model(model).ok()?.engine().stats();
    (stats.rows > 0 && stats.step_ms_sum > 0.0).then(|| stats.rows as f64 / (stats.step_ms_sum / 1e3))
}

fn count(served: &Served, asked: &Asked) -> Result<PromptTokens, Refusal> {
    let mut tokens = PromptTokens::default();
    let mut first: Option<Vec<u32>> = None;
    let mut n_shared = 0;
    let mut n_prompts = 0;
    for draft in &asked.drafts {
        let prompt = prompt::prompt(&asked.spec, asked.catalog.as_ref(), draft)
            .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
        let rendered = served
            .render(&prompt.messages)
            .map_err(|error| Refusal::new(Code::InvalidInput, error.to_string()))?;
        if rendered.len() >= served.context_tokens() {
            tokens.too_long += 1;
            continue;
        }
        tokens.all += rendered.len() as u64;
        n_prompts += 1;
        match &first {
            None => {
                n_shared = rendered.len();
                first = Some(rendered);
            }
            Some(first) => {
                n_shared = first[..n_shared].iter().zip(&rendered).take_while(|(a, b)| a == b).count();
            }
        }
    }
    tokens.shared = n_shared as u64 * u64::saturating_sub(n_prompts, 1);
    Ok(tokens)
}
