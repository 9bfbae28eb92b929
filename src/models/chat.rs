//! Messages to a prompt, through the checkpoint's own chat template.
//!
//! Templates are foreign code: they run in a sandboxed interpreter with a bound on steps, and see nothing
//! but the messages. Text of a message never becomes a control token: where it spells one, a guard
//! character (one that occurs nowhere in the messages) is put inside, and taken out again when the rendered
//! prompt is encoded.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

use super::error::ModelError;
use super::tokenizer::Tokenizer;
use crate::clock::Clock;
use crate::domain::message::{Message, Role};

/// Interpreter steps of one rendering.
const FUEL: u64 = 5_000_000;
/// Used where a checkpoint brings no template: Gemma's format where its tokenizer has the tokens for it.
const TURNS: &str = "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}\
    {{ raise_exception('no system role') }}{% endif %}{{ '<start_of_turn>' + \
    ('model' if message.role == 'assistant' else message.role) + '\\n' + message.content + \
    '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";
/// Else this one.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + \
    '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A template with the texts that it may refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `None`: a ChatML-like one.
    pub template: Option<String>,
    /// Where it came from, for errors.
    pub origin: String,
    pub bos_token: String,
    pub eos_token: String,
}

pub struct ChatTemplate {
    environment: Environment<'static>,
    source: Source,
}

impl Source {
    /// The template, or the one that goes best with the tokenizer's control tokens.
    pub fn or_fallback(mut self, tokenizer: &Tokenizer) -> Self {
        if self.template.is_none() && tokenizer.control_id("<start_of_turn>").is_some() {
            self.template = Some(TURNS.into());
        }
        self
    }
}

impl ChatTemplate {
    pub fn new(source: Source, clock: Clock) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        // as the reference implementation renders chat templates
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|cause| failed(&source.origin, &cause))?;
        environment.set_fuel(Some(FUEL));
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |text: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        environment
            .add_function("strftime_now", move |format: String| clock.now().format(&format).to_string());
        // as in Jinja: nothing is not iterable, a text is
        environment.add_test("iterable", |value: &Value| {
            !value.is_none() && (value.as_str().is_some() || value.try_iter().is_ok())
        });
        let text = source.template.as_deref().unwrap_or(CHATML);
        environment
            .add_template_owned("chat", plain_blocks(text))
            .map_err(|cause| failed(&source.origin, &cause))?;
        Ok(Self { environment, source })
    }

    /// Token ids of the conversation, ended so that the assistant's answer follows.
    pub fn encode(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>, ModelError> {
        let guard = self.guard(messages)?;
        let guarded: Vec<Message> = messages
            .iter()
            .map(|message| Message {
                role: message.role,
                content: defuse(&message.content, tokenizer, guard),
            })
            .collect();
        let text = match self.render(&guarded) {
            Ok(text) => text,
            // some templates refuse a system role: its text then leads the first user message
            Err(_) if messages.first().is_some_and(|first| first.role == Role::System) => {
                self.render(&fold_system(&guarded))?
            }
            Err(cause) => return Err(cause),
        };
        tokenizer.encode_template(&text, Some(guard))
    }

    /// Text of the conversation, ended so that the assistant's answer follows; `messages` as they are.
    pub fn render(&self, messages: &[Message]) -> Result<String, ModelError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => role_word(message.role), content => message.content.as_str() })
            .collect();
        let context = context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => self.source.bos_token.as_str(),
            eos_token => self.source.eos_token.as_str(),
            tools => Value::from(()),
            documents => Value::from(()),
            // reasoning before the answer would stand where the schema's text has to begin
            enable_thinking => false,
        };
        self.environment
            .get_template("chat")
            .and_then(|template| template.render(context))
            .map_err(|cause| failed(&self.source.origin, &cause))
    }

    /// A noncharacter that no message contains.
    fn guard(&self, messages: &[Message]) -> Result<char, ModelError> {
        ('\u{fdd0}'..='\u{fdef}')
            .find(|guard| !messages.iter().any(|message| message.content.contains(*guard)))
            .ok_or_else(|| ModelError::Template {
                origin: self.source.origin.clone(),
                cause: "the messages hold every noncharacter from U+FDD0 to U+FDEF".into(),
            })
    }
}

/// The template with `{% generation %}` blocks, by which the reference marks what a model said, as plain ones.
fn plain_blocks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((tag, after)) = tag.split_once("%}") else { break };
        let plain = match tag.trim_matches(['-', '+', ' ', '\t', '\n']) {
            "generation" => &tag.replace("generation", "if true"),
            "endgeneration" => &tag.replace("endgeneration", "endif"),
            _ => tag,
        };
        out.extend([before, "{%", plain, "%}"]);
        rest = after;
    }
    out + rest
}

/// Puts the guard after the first character of everything that spells a control token.
fn defuse(content: &str, tokenizer: &Tokenizer, guard: char) -> String {
    let mut content = content.to_string();
    for control in tokenizer.control_texts() {
        if content.contains(control) {
            let first = control.chars().next().map_or(0, char::len_utf8);
            content = content.replace(control, &format!("{}{guard}{}", &control[..first], &control[first..]));
        }
    }
    content
}

fn fold_system(messages: &[Message]) -> Vec<Message> {
    let Some((system, rest)) = messages.split_first() else { return Vec::new() };
    let mut folded = rest.to_vec();
    match folded.first_mut() {
        Some(first) if first.role == Role::User => {
            first.content = format!("{}\n\n{}", system.content, first.content);
        }
        _ => folded.insert(0, Message { role: Role::User, content: system.content.clone() }),
    }
    folded
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

fn failed(origin: &str, cause: &minijinja::Error) -> ModelError {
    ModelError::Template { origin: origin.into(), cause: format!("{cause:#}") }
}
