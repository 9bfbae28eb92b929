//! OpenAPI schemas of the domain's words, so that the document lists every value there is.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::batch::BatchState;
use crate::domain::code::Code;
use crate::domain::item::OutcomeKind;
use crate::domain::job::{Class, JobState};
use crate::domain::key::{KeyState, Scope};
use crate::domain::message::Role;
use crate::domain::model::{LoadStage, ModelState};
use crate::domain::task::{Stage, Task};

macro_rules! word_schema {
    ($word:ty, $name:literal, $about:literal, $values:expr) => {
        impl PartialSchema for $word {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($about))
                    .enum_values(Some($values))
                    .into()
            }
        }

        impl ToSchema for $word {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    };
}

word_schema!(Task, "Task", "What to extract.", Task::ALL.map(Task::as_str));
word_schema!(
    Stage,
    "Stage",
    "What one item asks of a model; a task runs one or more stages in order.",
    Stage::ALL.map(Stage::as_str)
);
word_schema!(
    Class,
    "Class",
    "Priority class. Within a class, jobs share fairly; a higher class goes first.",
    ["bulk", "normal", "interactive"]
);
word_schema!(
    JobState,
    "JobState",
    "queued → running → completed, or cancelled or failed from either of the first two.",
    JobState::ALL.map(JobState::as_str)
);
word_schema!(
    BatchState,
    "BatchState",
    "validating → in_progress → finalizing → completed or expired; failed from the first, cancelling → cancelled from the first two.",
    BatchState::ALL.map(BatchState::as_str)
);
word_schema!(OutcomeKind, "Outcome", "How an item ended.", ["succeeded", "failed", "cancelled", "expired"]);
word_schema!(ModelState, "ModelState", "Can the model serve?", ["not_loaded", "loading", "ready", "error"]);
word_schema!(
    LoadStage,
    "LoadStage",
    "What a load is doing now.",
    ["waiting", "download", "read", "upload", "adapter", "warm_up", "self_test"]
);
word_schema!(Scope, "Scope", "What a key lets its holder do.", Scope::ALL.map(Scope::as_str));
word_schema!(KeyState, "KeyState", "Whether a key opens anything.", KeyState::ALL.map(KeyState::as_str));
word_schema!(Role, "Role", "Who speaks.", ["system", "user", "assistant"]);
word_schema!(
    Code,
    "Code",
    "Stable error code; the table at /docs says what each means.",
    Code::ALL.iter().map(|code| code.as_str())
);

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    /// The words of the document are the words that serde writes.
    fn check<T: ToSchema + Serialize>(values: &[T]) {
        let document = serde_json::to_value(T::schema()).unwrap();
        let listed = document["enum"].as_array().unwrap();
        let written: Vec<_> = values.iter().map(|value| serde_json::to_value(value).unwrap()).collect();
        assert_eq!(*listed, written, "{}", T::name());
    }

    #[test]
    fn documented_words_are_the_written_words() {
        check(&Task::ALL);
        check(&Stage::ALL);
        check(&[Class::Bulk, Class::Normal, Class::Interactive]);
        check(&JobState::ALL);
        check(&BatchState::ALL);
        check(&Scope::ALL);
        check(&KeyState::ALL);
        check(&[OutcomeKind::Succeeded, OutcomeKind::Failed, OutcomeKind::Cancelled, OutcomeKind::Expired]);
        check(&[ModelState::NotLoaded, ModelState::Loading, ModelState::Ready, ModelState::Error]);
        check(&[
            LoadStage::Waiting,
            LoadStage::Download,
            LoadStage::Read,
            LoadStage::Upload,
            LoadStage::Adapter,
            LoadStage::WarmUp,
            LoadStage::SelfTest,
        ]);
        check(&[Role::System, Role::User, Role::Assistant]);
        check(Code::ALL);
    }
}
