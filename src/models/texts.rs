//! A checkpoint's texts: its tokenizer, chat template and end tokens, wherever its format keeps them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::chat::{self, ChatTemplate};
use super::error::ModelError;
use super::tokenizer::Tokenizer;
use super::vocabulary;
use crate::clock::Clock;
use crate::nn::weights::checkpoint::Checkpoint;

pub struct Texts {
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
}

/// Reads the texts of the checkpoint at `path`, a directory or a `.gguf` file.
pub fn read(checkpoint: &Checkpoint, path: &Path, clock: Clock) -> Result<Texts, ModelError> {
    let config = checkpoint.config();
    let mut stops = config.eos.clone();
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let (tokenizer, source) = match checkpoint.gguf() {
        Some(content) => {
            for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
                stops.extend(vocabulary::id_of(content, key));
            }
            let built = Tokenizer::from_gguf(content, path, config.vocab, &stops);
            let beside = dir.join("tokenizer.json");
            // a file beside the weights helps out where the metadata cannot be used
            let tokenizer = match built {
                Err(_) if beside.is_file() => Tokenizer::from_file(&beside, config.vocab, &stops)?,
                built => built?,
            };
            let tokens = content.metadata.get("tokenizer.ggml.tokens").and_then(|value| value.to_vec().ok());
            let text = |key: &str| {
                let id = vocabulary::id_of(content, key)? as usize;
                Some(tokens?.get(id)?.to_string().ok()?.clone())
            };
            let source = chat::Source {
                template: vocabulary::text_of(content, "tokenizer.chat_template").map(str::to_string),
                origin: path.display().to_string(),
                bos_token: text("tokenizer.ggml.bos_token_id").unwrap_or_default(),
                eos_token: text("tokenizer.ggml.eos_token_id").unwrap_or_default(),
            };
            (tokenizer, source)
        }
        None => {
            stops.extend(generation_stops(&dir.join("generation_config.json"))?);
            let tokenizer = Tokenizer::from_file(&dir.join("tokenizer.json"), config.vocab, &stops)?;
            (tokenizer, directory_template(dir)?)
        }
    };
    let template = ChatTemplate::new(source.or_fallback(&tokenizer), clock)?;
    Ok(Texts { tokenizer, template })
}

fn generation_stops(file: &Path) -> Result<Vec<u32>, ModelError> {
    let Some(config) = read_json(file)? else { return Ok(Vec::new()) };
    let number = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    Ok(match &config["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(number).collect(),
        id => number(id).into_iter().collect(),
    })
}

/// `chat_template.jinja`, else `chat_template.json`, else the field of `tokenizer_config.json`: newer
/// places first, as the reference reads them.
fn directory_template(dir: &Path) -> Result<chat::Source, ModelError> {
    let config_file = dir.join("tokenizer_config.json");
    let config = read_json(&config_file)?.unwrap_or(Value::Null);
    // a token is a text or an object with its text
    let token = |name: &str| {
        let value = &config[name];
        value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_string()
    };
    let jinja = dir.join("chat_template.jinja");
    let json = dir.join("chat_template.json");
    let (template, origin): (Option<String>, PathBuf) = if jinja.is_file() {
        let text = fs::read_to_string(&jinja).map_err(|source| io(&jinja, source))?;
        (Some(text), jinja)
    } else if let Some(template) =
        read_json(&json)?.as_ref().and_then(|value| value["chat_template"].as_str())
    {
        (Some(template.to_string()), json)
    } else {
        (configured_template(&config["chat_template"]), config_file)
    };
    Ok(chat::Source {
        template,
        origin: origin.display().to_string(),
        bos_token: token("bos_token"),
        eos_token: token("eos_token"),
    })
}

/// One text, or a list of named ones of which `default` is for conversations.
fn configured_template(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_string());
    }
    let entries = value.as_array()?;
    let entry = entries.iter().find(|entry| entry["name"] == "default").or(entries.first())?;
    entry["template"].as_str().map(str::to_string)
}

fn read_json(file: &Path) -> Result<Option<Value>, ModelError> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(file, source)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|cause| ModelError::Tokenizer {
        origin: file.display().to_string(),
        cause: cause.to_string(),
    })
}

fn io(file: &Path, source: std::io::Error) -> ModelError {
    ModelError::Io { path: file.to_path_buf(), source }
}
