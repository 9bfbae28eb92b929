//! What a submission would cost: its prompts rendered and counted as they would be, without asking the model.

use super::forecast::work::Prompts;
use crate::domain::catalog::Catalog;
use crate::domain::chat::Refusal;
use crate::domain::code::Code;
use crate::domain::item::ItemDraft;
use crate::domain::job::JobSpec;
use crate::domain::message::Message;
use crate::extract::prompt;
use crate::models::manager::Manager;
use crate::models::served::Served;

/// Tokens of some prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptTokens {
    pub all: u64,
    /// What all prompts begin with, once for each but the first.
    pub shared: u64,
    /// Prompts that leave no room for an answer. Not part of the others.
    pub too_long: u64,
    pub prompts: u64,
    /// What comes before an item's own text, in one prompt.
    pub head: u64,
    /// Bounds on the answers.
    pub answer_limit: u64,
}

impl PromptTokens {
    /// Of these prompts, or of `items` of which these are some.
    pub fn means(&self, items: f64) -> Option<Prompts> {
        let n = self.prompts as f64;
        (self.prompts > 0).then(|| Prompts {
            items,
            tokens: self.all as f64 / n,
            head: self.head as f64,
            answer_limit: self.answer_limit as f64 / n,
        })
    }
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

fn count(served: &Served, asked: &Asked) -> Result<PromptTokens, Refusal> {
    let mut tokens = PromptTokens::default();
    let mut first: Option<Vec<u32>> = None;
    let mut n_shared = 0;
    for draft in &asked.drafts {
        let prompt = prompt::prompt(&asked.spec, asked.catalog.as_ref(), draft)
            .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
        let render = |messages: &[Message]| {
            served.render(messages).map_err(|error| Refusal::new(Code::InvalidInput, error.to_string()))
        };
        let rendered = render(&prompt.messages)?;
        if rendered.len() >= served.context_tokens() {
            tokens.too_long += 1;
            continue;
        }
        tokens.all += rendered.len() as u64;
        tokens.prompts += 1;
        let room = served.context_tokens() - rendered.len();
        tokens.answer_limit += u64::from(prompt.max_tokens).min(room as u64);
        match &first {
            None => {
                let mut without = prompt.messages;
                without.last_mut().into_iter().for_each(|message| message.content.clear());
                tokens.head = n_common(&rendered, &render(&without)?) as u64;
                n_shared = rendered.len();
                first = Some(rendered);
            }
            Some(first) => {
                n_shared = n_common(&first[..n_shared], &rendered);
            }
        }
    }
    tokens.shared = n_shared as u64 * tokens.prompts.saturating_sub(1);
    Ok(tokens)
}

/// Tokens that both begin with.
fn n_common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
