//! A chat completion that is answered while its client waits. It needs no database and passes the queue by: its
//! class is interactive, and its place is in the engine.

use uuid::Uuid;

use super::request::{Turn, request};
use super::speech::{Piece, Speech};
use crate::domain::chat::{ChatRequest, Finish, Refusal};
use crate::domain::code::Code;
use crate::domain::job::Class;
use crate::domain::usage::Usage;
use crate::engine::request::EngineError;
use crate::extract::{answer, prompt};
use crate::models::error::ModelError;
use crate::models::manager::Manager;
use crate::telemetry::metric::{self, Metric};

/// An answer on its way. Dropping it frees its sequence within one step.
pub struct Reply {
    model: String,
    speech: Speech,
    is_counted: bool,
}

/// Hands a request to its model's engine, or says why not.
pub async fn begin(models: &Manager, mut asked: ChatRequest) -> Result<Reply, Refusal> {
    let served = models.get_model(&asked.model).map_err(|error| of_model(&error))?;
    // who names no seed wants chance
    let chance = Uuid::new_v4().as_u64_pair();
    let turn = Turn { priority: Class::Interactive as u8, group: chance.0, seed_shift: chance.1 };
    let (model, stop) = (asked.model.clone(), std::mem::take(&mut asked.stop));
    let rendered = tokio::task::spawn_blocking(move || {
        let request = request(&served, prompt::of_chat(asked), turn);
        request.map(|request| (served, request))
    });
    let (served, request) =
        rendered.await.map_err(|error| Refusal::new(Code::Internal, error.to_string()))??;
    let speech = Speech::begin(served, request, stop).map_err(|error| of_engine(&error))?;
    Ok(Reply { model, speech, is_counted: false })
}

impl Reply {
    /// The next piece; `None` at the end, which [`Reply::end`] then tells of.
    pub async fn next(&mut self) -> Result<Option<Piece>, Refusal> {
        let next = self.speech.next().await;
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.count(self.speech.end().map_or("failed", |(finish, _)| finish.as_str())),
            Err(_) => self.count("failed"),
        }
        next.map_err(|error| of_engine(&error))
    }

    /// How it ended; `None` while it goes on.
    pub fn end(&self) -> Option<(Finish, Usage)> {
        self.speech.end()
    }

    fn count(&mut self, how: &str) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        metric::count(Metric::ChatCompletions, &[("model", &self.model), ("end", how)], 1);
        if let Some((_, usage)) = self.speech.end() {
            super::count_tokens(&self.model, &usage);
        }
    }
}

impl Drop for Reply {
    /// The client went away.
    fn drop(&mut self) {
        self.count("gone");
    }
}

/// Whether a whole answer has the form that was asked for. The grammar is not trusted alone.
pub fn check(asked: &ChatRequest, finish: Finish, text: &str) -> Result<(), Refusal> {
    // what a bound or a stop text cut off is no whole answer, and the client is told so
    if finish == Finish::Length || !asked.stop.is_empty() {
        return Ok(());
    }
    answer::check_chat(asked, text).map_err(|error| Refusal::new(error.code(), error.to_string()))
}

fn of_model(error: &ModelError) -> Refusal {
    let param = matches!(error, ModelError::Unknown { .. }).then(|| "model".to_string());
    Refusal { code: error.code(), message: error.to_string(), param }
}

fn of_engine(error: &EngineError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}
