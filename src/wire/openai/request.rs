//! A chat completion as it is asked for: every field is understood, refused by name, or known to say nothing.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::domain::chat::{ChatRequest, Format, Refusal};
use crate::domain::code::Code;
use crate::domain::job::Generation;
use crate::domain::message::{Message, Role};

/// Stop texts of one request, and bytes of one.
const MAX_STOPS: usize = 4;
const MAX_STOP_BYTES: usize = 256;
/// Alternatives that may be named beside each token.
const MAX_TOP_LOGPROBS: u8 = 20;

/// `POST /v1/chat/completions`, and the `body` of a batch's line. Fields that are not listed are refused by name,
/// unless their value asks for nothing (`null`, `"tools": []`, `"presence_penalty": 0`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatCompletionRequest {
    pub model: String,
    /// Roles `system`, `developer` (the same), `user`, `assistant`; contents are texts, or lists of text parts.
    pub messages: Vec<RequestMessage>,
    /// Upper bound of the answer's tokens; absent: `limits.default_completion_tokens`. `max_tokens` is its old name.
    #[schema(minimum = 1)]
    pub max_completion_tokens: Option<u32>,
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// 0 or absent: greedy, unlike OpenAI's own service, whose default is 1.
    #[schema(minimum = 0.0, maximum = 2.0)]
    pub temperature: Option<f32>,
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    pub top_p: Option<f32>,
    /// Ours.
    #[schema(minimum = 1)]
    pub top_k: Option<u32>,
    /// Ours.
    #[schema(minimum = 0.0, exclusive_maximum = 1.0)]
    pub min_p: Option<f32>,
    /// The same seed, request and model give the same answer.
    pub seed: Option<i64>,
    /// A text, or up to four, that end the answer and are not part of it.
    #[schema(value_type = Option<Vec<String>>)]
    pub stop: Option<Value>,
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    pub n: Option<u32>,
    /// `text`, `json_object`, or `json_schema`, which is enforced whether it says `strict` or not.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    pub logprobs: Option<bool>,
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<u8>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    /// Says nothing here.
    pub user: Option<String>,
}

/// A message of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestMessage {
    pub role: String,
    #[schema(value_type = String)]
    pub content: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// One more chunk at the end, with the usage and no choice.
    #[serde(default)]
    pub include_usage: bool,
    /// Accepted; nothing is added to chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_obfuscation: Option<bool>,
}

/// What a request is checked against.
pub struct Rules<'a> {
    /// Names of the configured models.
    pub models: &'a [String],
    pub max_schema_bytes: usize,
    pub max_json_depth: usize,
    /// Answer tokens of a request that names no bound.
    pub default_completion_tokens: u32,
    /// Says whether a schema can be enforced; the refusal's `param` is a JSON Pointer into it.
    pub check_schema: &'a dyn Fn(&Value) -> Result<(), Refusal>,
}

/// How the answer is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    pub stream: bool,
    pub include_usage: bool,
}

/// Whether a field of OpenAI's that this service does not have asks for nothing; `None`: OpenAI has no such field.
fn asks_nothing(name: &str, value: &Value) -> Option<bool> {
    let is_empty = match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    Some(match name {
        "frequency_penalty" | "presence_penalty" => value.as_f64() == Some(0.0),
        "tool_choice" | "function_call" | "reasoning_effort" => value == "none",
        "service_tier" => value == "auto" || value == "default",
        "store" => value == &Value::Bool(false),
        "modalities" => value == &json!(["text"]),
        // of OpenAI's own accounts and caches; of tools, which there are none
        "safety_identifier" | "prompt_cache_key" => value.is_string(),
        "parallel_tool_calls" => value.is_boolean(),
        "tools" | "functions" | "logit_bias" | "metadata" => is_empty,
        "audio" | "prediction" | "verbosity" | "web_search_options" | "prompt_cache_retention" => false,
        _ => return None,
    })
}

/// Checks a request's body.
pub fn check(body: Value, rules: &Rules) -> Result<(ChatRequest, Delivery), Refusal> {
    let Value::Object(fields) = body else {
        return Err(Refusal::new(Code::InvalidRequest, "the request is no JSON object"));
    };
    let asked = read(fields)?;
    if !rules.models.contains(&asked.model) {
        let known = rules.models.join(", ");
        let message = format!("no model '{}' is configured, only: {known}", asked.model);
        return Err(Refusal { code: Code::UnknownModel, message, param: Some("model".into()) });
    }
    let messages = messages(&asked.messages)?;
    let format = format(asked.response_format.as_ref(), rules)?;
    let generation = generation(&asked, rules)?;
    let logprobs = logprobs(&asked)?;
    let delivery = delivery(&asked)?;
    let stop = stops(asked.stop.as_ref())?;
    if asked.n.is_some_and(|n| n != 1) {
        return Err(Refusal::of("n", "n is 1 here: one answer to one request"));
    }
    Ok((ChatRequest { model: asked.model, messages, format, generation, stop, logprobs }, delivery))
}

fn read(fields: Map<String, Value>) -> Result<ChatCompletionRequest, Refusal> {
    let mut asked = ChatCompletionRequest::default();
    let (mut has_model, mut has_messages) = (false, false);
    for (name, value) in fields {
        let name = name.as_str();
        if value.is_null() && name != "model" && name != "messages" {
            continue;
        }
        match name {
            "model" => (asked.model, has_model) = (typed(name, value)?, true),
            "messages" => (asked.messages, has_messages) = (list_of_messages(value)?, true),
            "max_completion_tokens" => asked.max_completion_tokens = typed(name, value)?,
            "max_tokens" => asked.max_tokens = typed(name, value)?,
            "temperature" => asked.temperature = typed(name, value)?,
            "top_p" => asked.top_p = typed(name, value)?,
            "top_k" => asked.top_k = typed(name, value)?,
            "min_p" => asked.min_p = typed(name, value)?,
            "seed" => asked.seed = typed(name, value)?,
            "stop" => asked.stop = Some(value),
            "n" => asked.n = typed(name, value)?,
            "response_format" => asked.response_format = Some(value),
            "logprobs" => asked.logprobs = typed(name, value)?,
            "top_logprobs" => asked.top_logprobs = typed(name, value)?,
            "stream" => asked.stream = typed(name, value)?,
            "stream_options" => asked.stream_options = Some(stream_options(value)?),
            "user" => asked.user = typed(name, value)?,
            _ => idle(name, &value)?,
        }
    }
    match (has_model, has_messages) {
        (true, true) => Ok(asked),
        (false, _) => Err(Refusal::of("model", "model is missing")),
        (_, false) => Err(Refusal::of("messages", "messages is missing")),
    }
}

fn typed<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, Refusal> {
    serde_json::from_value(value).map_err(|error| Refusal::of(name, format!("{name}: {error}")))
}

/// Refuses a field that this service does not have, unless it asks for nothing.
fn idle(name: &str, value: &Value) -> Result<(), Refusal> {
    match asks_nothing(name, value) {
        Some(true) => Ok(()),
        Some(false) => Err(Refusal::of(name, format!("'{name}' is not supported"))),
        None => Err(Refusal::of(name, format!("a chat completion has no parameter '{name}'"))),
    }
}

fn list_of_messages(value: Value) -> Result<Vec<RequestMessage>, Refusal> {
    let Value::Array(list) = value else { return Err(Refusal::of("messages", "messages is no list")) };
    if list.is_empty() {
        return Err(Refusal::of("messages", "messages is empty"));
    }
    list.into_iter().enumerate().map(|(at, value)| request_message(at, value)).collect()
}

fn request_message(at: usize, value: Value) -> Result<RequestMessage, Refusal> {
    let place = |field: &str| format!("messages[{at}].{field}");
    let Value::Object(mut fields) = value else {
        return Err(Refusal::of(format!("messages[{at}]"), "a message is a JSON object"));
    };
    let role = match fields.remove("role") {
        Some(Value::String(role)) => role,
        _ => return Err(Refusal::of(place("role"), "a message has a role, a text")),
    };
    let content = fields.remove("content").unwrap_or(Value::Null);
    // what a client sends back of an answer has fields that say nothing
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    // `parsed` is what the Python client puts beside the content it has read
    match fields.iter().find(|(name, value)| *name != "parsed" && says(value)) {
        Some((name, _)) => Err(Refusal::of(place(name), format!("'{name}' of a message is not supported"))),
        None => Ok(RequestMessage { role, content }),
    }
}

fn messages(asked: &[RequestMessage]) -> Result<Vec<Message>, Refusal> {
    let one = |(at, message): (usize, &RequestMessage)| {
        let role = match message.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let message = format!("role '{other}' is not system, developer, user or assistant");
                return Err(Refusal::of(format!("messages[{at}].role"), message));
            }
        };
        Ok(Message { role, content: content(at, &message.content)? })
    };
    asked.iter().enumerate().map(one).collect()
}

/// A text, or texts in parts.
fn content(at: usize, value: &Value) -> Result<String, Refusal> {
    let place = format!("messages[{at}].content");
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut whole = String::new();
            for (part_at, part) in parts.iter().enumerate() {
                match (part["type"].as_str(), part["text"].as_str()) {
                    (Some("text"), Some(text)) => whole.push_str(text),
                    (kind, _) => {
                        let kind = kind.unwrap_or("none");
                        let message = format!("a part of type '{kind}' is not supported, only text");
                        return Err(Refusal::of(format!("{place}[{part_at}]"), message));
                    }
                }
            }
            Ok(whole)
        }
        _ => Err(Refusal::of(place, "content is neither a text nor a list of text parts")),
    }
}

fn format(asked: Option<&Value>, rules: &Rules) -> Result<Format, Refusal> {
    const PARAM: &str = "response_format";
    let Some(asked) = asked else { return Ok(Format::Text) };
    match asked["type"].as_str() {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => {
            let place = format!("{PARAM}.json_schema.schema");
            let schema = &asked["json_schema"]["schema"];
            if !asked["json_schema"]["name"].is_string() {
                let place = format!("{PARAM}.json_schema.name");
                return Err(Refusal::of(place, "a json_schema has a name, a text"));
            }
            if !schema.is_object() {
                return Err(Refusal::of(place, "a json_schema has a schema, a JSON object"));
            }
            let limit = rules.max_schema_bytes;
            if schema.to_string().len() > limit {
                let message = format!("the schema exceeds limits.max_schema_bytes ({limit})");
                return Err(Refusal { code: Code::TooLarge, message, param: Some(place) });
            }
            (rules.check_schema)(schema).map_err(|mut refusal| {
                let inside = refusal.param.take().unwrap_or_default().replace('/', ".");
                refusal.param = Some(format!("{place}{inside}"));
                refusal
            })?;
            Ok(Format::JsonSchema { schema: schema.clone() })
        }
        _ => Err(Refusal::of(
            format!("{PARAM}.type"),
            "response_format is of type text, json_object or json_schema",
        )),
    }
}

fn generation(asked: &ChatCompletionRequest, rules: &Rules) -> Result<Generation, Refusal> {
    let within = |name: &str, ok: bool, range: &str| match ok {
        true => Ok(()),
        false => Err(Refusal::of(name, format!("{name} must be {range}"))),
    };
    within("temperature", asked.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)), "from 0 to 2")?;
    within("top_p", asked.top_p.is_none_or(|p| p > 0.0 && p <= 1.0), "above 0, at most 1")?;
    within("top_k", asked.top_k != Some(0), "at least 1")?;
    within("min_p", asked.min_p.is_none_or(|p| (0.0..1.0).contains(&p)), "from 0 to below 1")?;
    within("max_tokens", asked.max_tokens != Some(0), "at least 1")?;
    within("max_completion_tokens", asked.max_completion_tokens != Some(0), "at least 1")?;
    if let (Some(old), Some(new)) = (asked.max_tokens, asked.max_completion_tokens)
        && old != new
    {
        let message = "max_tokens is the old name of max_completion_tokens, and the two differ";
        return Err(Refusal::of("max_tokens", message));
    }
    let bound = asked.max_completion_tokens.or(asked.max_tokens).unwrap_or(rules.default_completion_tokens);
    Ok(Generation {
        max_tokens: Some(bound),
        max_string_bytes: None,
        temperature: asked.temperature,
        top_p: asked.top_p,
        top_k: asked.top_k,
        min_p: asked.min_p,
        seed: asked.seed.map(i64::cast_unsigned),
    })
}

fn stops(asked: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let refused = || {
        let message = format!("stop is a text or up to {MAX_STOPS} of 1 to {MAX_STOP_BYTES} bytes");
        Refusal::of("stop", message)
    };
    let texts = match asked {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text.clone()],
        Some(list) => serde_json::from_value::<Vec<String>>(list.clone()).map_err(|_| refused())?,
    };
    let fits = |text: &String| (1..=MAX_STOP_BYTES).contains(&text.len());
    if texts.len() > MAX_STOPS || !texts.iter().all(fits) {
        return Err(refused());
    }
    Ok(texts)
}

fn logprobs(asked: &ChatCompletionRequest) -> Result<Option<u8>, Refusal> {
    match (asked.logprobs.unwrap_or(false), asked.top_logprobs) {
        (_, Some(n)) if n > MAX_TOP_LOGPROBS => {
            Err(Refusal::of("top_logprobs", format!("top_logprobs is from 0 to {MAX_TOP_LOGPROBS}")))
        }
        (true, n) => Ok(Some(n.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(Refusal::of("top_logprobs", "top_logprobs needs logprobs: true")),
    }
}

fn stream_options(value: Value) -> Result<StreamOptions, Refusal> {
    let known = ["include_usage", "include_obfuscation"];
    if let Some(name) = value.as_object().and_then(|f| f.keys().find(|name| !known.contains(&name.as_str())))
    {
        let place = format!("stream_options.{name}");
        return Err(Refusal::of(place, format!("stream_options has no '{name}'")));
    }
    typed("stream_options", value)
}

fn delivery(asked: &ChatCompletionRequest) -> Result<Delivery, Refusal> {
    let stream = asked.stream.unwrap_or(false);
    match &asked.stream_options {
        Some(_) if !stream => Err(Refusal::of("stream_options", "stream_options needs stream: true")),
        options => Ok(Delivery { stream, include_usage: options.as_ref().is_some_and(|o| o.include_usage) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_with(change: impl FnOnce(&mut Value)) -> Result<(ChatRequest, Delivery), Refusal> {
        let mut body = json!({"model": "concept", "messages": [{"role": "user", "content": "hi"}]});
        change(&mut body);
        let check_schema = |schema: &Value| match schema.get("not") {
            None => Ok(()),
            Some(_) => Err(Refusal {
                code: Code::InvalidSchema,
                message: "'not' cannot be enforced".into(),
                param: Some("/not".into()),
            }),
        };
        check(
            body,
            &Rules {
                models: &["concept".into()],
                max_schema_bytes: 200,
                max_json_depth: 64,
                default_completion_tokens: 77,
                check_schema: &check_schema,
            },
        )
    }

    fn with(name: &str, value: Value) -> Result<(ChatRequest, Delivery), Refusal> {
        try_with(|body| body[name] = value)
    }

    #[track_caller]
    fn refused(name: &str, value: Value, param: &str) {
        let refusal = with(name, value.clone()).unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some(param), "{name}: {value}: {}", refusal.message);
    }

    #[test]
    fn what_is_understood_is_kept() {
        let (request, delivery) = try_with(|body| {
            body["messages"] = json!([
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "c", "refusal": null, "annotations": [], "tool_calls": null},
            ]);
            body["response_format"] = json!({"type": "json_schema", "json_schema": {
                "name": "n", "strict": true, "schema": {"type": "object"}}});
            body["max_completion_tokens"] = json!(5);
            body["temperature"] = json!(0.5);
            body["seed"] = json!(-1);
            body["stop"] = json!("END");
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(3);
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
            body["tools"] = json!([]);
            body["presence_penalty"] = json!(0.0);
            body["frequency_penalty"] = json!(0);
            body["store"] = json!(false);
            body["user"] = json!("me");
            body["logit_bias"] = Value::Null;
        })
        .unwrap();
        let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant]);
        assert_eq!(request.messages[1].content, "ab");
        assert_eq!(request.format, Format::JsonSchema { schema: json!({"type": "object"}) });
        assert_eq!((request.generation.max_tokens, request.generation.seed), (Some(5), Some(u64::MAX)));
        assert_eq!((request.stop, request.logprobs), (vec!["END".to_string()], Some(3)));
        assert_eq!(delivery, Delivery { stream: true, include_usage: true });
        let (plain, delivery) = try_with(|_| {}).unwrap();
        assert_eq!((plain.generation.max_tokens, plain.logprobs), (Some(77), None));
        assert_eq!(delivery, Delivery::default());
    }

    #[test]
    fn what_is_not_is_refused_by_name() {
        for (name, value, param) in [
            ("tools", json!([{"type": "function"}]), "tools"),
            ("presence_penalty", json!(0.5), "presence_penalty"),
            ("logit_bias", json!({"5": 1}), "logit_bias"),
            ("reasoning_effort", json!("high"), "reasoning_effort"),
            ("modalities", json!(["audio"]), "modalities"),
            ("store", json!(true), "store"),
            ("best_of", json!(2), "best_of"),
            ("n", json!(2), "n"),
            ("temperature", json!(2.1), "temperature"),
            ("temperature", json!("hot"), "temperature"),
            ("top_p", json!(0), "top_p"),
            ("top_k", json!(0), "top_k"),
            ("min_p", json!(1), "min_p"),
            ("max_tokens", json!(0), "max_tokens"),
            ("max_completion_tokens", json!(-1), "max_completion_tokens"),
            ("stop", json!(["a", "b", "c", "d", "e"]), "stop"),
            ("stop", json!(""), "stop"),
            ("top_logprobs", json!(2), "top_logprobs"),
            ("stream_options", json!({"include_usage": true}), "stream_options"),
            ("stream_options", json!({"x": true}), "stream_options.x"),
            ("messages", json!([]), "messages"),
            ("messages", json!("hi"), "messages"),
            ("messages", json!([{"role": "tool", "content": "x"}]), "messages[0].role"),
            ("messages", json!([{"role": "user"}]), "messages[0].content"),
            ("messages", json!([{"role": "user", "content": "x", "name": "y"}]), "messages[0].name"),
            (
                "messages",
                json!([{"role": "user", "content": [{"type": "image_url"}]}]),
                "messages[0].content[0]",
            ),
            ("response_format", json!({"type": "xml"}), "response_format.type"),
            ("response_format", json!({"type": "json_schema"}), "response_format.json_schema.name"),
            (
                "response_format",
                json!({"type": "json_schema", "json_schema": {"name": "n"}}),
                "response_format.json_schema.schema",
            ),
            (
                "response_format",
                json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}),
                "response_format.json_schema.schema.not",
            ),
            ("model", json!("other"), "model"),
        ] {
            refused(name, value, param);
        }
        assert_eq!(with("model", json!("other")).unwrap_err().code, Code::UnknownModel);
        let large = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": "x".repeat(200)}}});
        assert_eq!(with("response_format", large).unwrap_err().code, Code::TooLarge);
        for name in ["model", "messages"] {
            let missing = try_with(|body| drop(body.as_object_mut().unwrap().remove(name))).unwrap_err();
            assert_eq!(missing.param.as_deref(), Some(name));
        }
        let both = try_with(|body| {
            body["max_tokens"] = json!(1);
            body["max_completion_tokens"] = json!(2);
        });
        assert_eq!(both.unwrap_err().param.as_deref(), Some("max_tokens"));
    }
}
