//! The settings themselves, with their defaults. Every limit of the service has its name here.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Private Postgres cluster, model cache and logs live here.
    pub data_dir: PathBuf,
    pub http: Http,
    pub database: Database,
    pub queue: Queue,
    pub engine: Engine,
    pub limits: Limits,
    pub hub: Hub,
    pub loading: Loading,
    /// In the order in which they are shown.
    pub models: Vec<Model>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    pub listen: SocketAddr,
    /// Time a handler has to begin its answer, and longest silence of a client that sends a body.
    pub request_timeout_ms: u64,
    /// Time a client has to send a whole request head; also how long an idle connection is kept.
    pub request_head_timeout_ms: u64,
    /// Connections that are open at once; further clients wait to be accepted.
    pub max_connections: usize,
    /// Running requests and items get this long after a stop was asked for.
    pub shutdown_grace_ms: u64,
    /// How often an event or result stream looks for something new.
    pub stream_poll_ms: u64,
    /// Silence after which an event stream sends a comment, so that proxies keep it open.
    pub heartbeat_ms: u64,
    /// Event and result streams that are open at once.
    pub max_streams: usize,
    /// Submissions that are being read at once; each holds a database connection.
    pub max_open_submissions: usize,
    /// Whether requests need an API key.
    pub auth: Auth,
    /// How long a key that was looked up is believed without another look: the longest that a revoked one lives.
    pub key_cache_ms: u64,
}

/// Whether requests need an API key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Not on loopback, where only this machine's users come in; everywhere else.
    #[default]
    Auto,
    Required,
    /// Everybody who reaches the port may do everything.
    Off,
}

impl std::str::FromStr for Auth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Auth::Auto),
            "required" => Ok(Auth::Required),
            "off" => Ok(Auth::Off),
            _ => Err("it is auto, required or off"),
        }
    }
}

impl Http {
    /// Whether requests at this address need a key.
    pub fn needs_keys(&self) -> bool {
        match self.auth {
            Auth::Auto => !self.listen.ip().to_canonical().is_loopback(),
            Auth::Required => true,
            Auth::Off => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `postgres://…`; absent: a private cluster in `data_dir`.
    pub url: Option<String>,
    /// Folder of `postgres` and `initdb` for the private cluster; absent: searched.
    pub postgres_bin_dir: Option<PathBuf>,
    /// User to run the private cluster as when adit runs as root.
    pub postgres_user: Option<String>,
    pub max_connections: u32,
    pub acquire_timeout_ms: u64,
    /// The server ends a transaction of a process that says nothing for so long: it is frozen or cut off, and
    /// others wait for its locks. Submissions, which wait for their client, are excepted.
    pub idle_in_transaction_ms: u64,
    /// Durability of the private cluster; off only in tests.
    pub fsync: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Items of one chunk, the unit that is claimed and counted.
    pub chunk_items: u32,
    /// Bounds of one claim; between them it follows the measured rate.
    pub min_bundle_items: u32,
    pub max_bundle_items: u32,
    /// Work that one claim should hold, in seconds at the measured rate.
    pub bundle_target_s: f64,
    /// Bundles in hand per model: one in the engine, one waiting.
    pub bundles_in_hand: u32,
    pub lease_ms: u64,
    pub renew_ms: u64,
    /// How often expired leases are looked for.
    pub rescue_ms: u64,
    /// Longest sleep between looks at an empty queue; notifications shorten it.
    pub poll_ms: u64,
    /// How often finished items of a running bundle are committed.
    pub flush_ms: u64,
    /// Items of one process that are in an engine, or have ended and are not committed yet. While the
    /// database is away, results are kept up to here; then no further item begins and nothing is claimed.
    pub max_buffered_results: u32,
    /// Claims a chunk may lose with its worker before it is split, and a single item before it is poison.
    pub max_worker_deaths: u16,
    /// Tries of an item that failed in a way that may pass.
    pub max_attempts: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Where bases run, unless a model says otherwise.
    pub device: Device,
    /// Threads of the numerics; 0: the cores this process may use.
    pub threads: usize,
    /// Rows (tokens) of one step; 0: what suits the device.
    pub max_step_tokens: usize,
    /// Sequences that run at once; 0: what suits the device.
    pub max_sequences: usize,
    /// Requests that wait for a place.
    pub max_queued: usize,
    /// Token positions of one KV block.
    pub block_tokens: usize,
    /// Token positions of a base's KV pool; 0: what `gpu_memory_utilization` leaves, on a CPU at most 6,144.
    pub kv_tokens: usize,
    /// How keys and values are held.
    pub kv_type: KvType,
    pub prefix_cache: bool,
    /// Append forced tokens without sampling.
    pub jump_forward: bool,
    /// Read tokens along that followed the same words in the prompt, and keep those that come true.
    pub prompt_lookup: PromptLookup,
    /// Merge an adapter that runs alone for long into a copy of the base, which the memory plan then counts.
    pub merge_adapters: bool,
    /// Bytes of one compiled grammar, and compile time.
    pub max_grammar_bytes: usize,
    pub max_grammar_ms: u64,
}

impl Engine {
    /// With what suits the device in place of what was left open.
    pub fn resolved(&self, is_card: bool) -> Self {
        let (step_tokens, sequences) = if is_card { (8_192, 1_024) } else { (512, 64) };
        let or = |value: usize, suits: usize| if value == 0 { suits } else { value };
        Self {
            max_step_tokens: or(self.max_step_tokens, step_tokens),
            max_sequences: or(self.max_sequences, sequences),
            // products beside the base are cheap there, and there is no second copy
            merge_adapters: self.merge_adapters && !is_card,
            ..self.clone()
        }
    }
}

/// Where a base runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The first card that can be used, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// The card of this number, or an error.
    Cuda(usize),
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("'{other}' is not auto, cpu or cuda:N")),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Numbers that keys and values are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// 11 bits; half the memory.
    #[default]
    F16,
    /// As computed.
    F32,
}

/// Whether drafts from the prompt are read along with the next token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptLookup {
    Off,
    /// While measured steps say that it saves time.
    #[default]
    Auto,
    On,
}

impl PromptLookup {
    pub fn as_str(self) -> &'static str {
        match self {
            PromptLookup::Off => "off",
            PromptLookup::Auto => "auto",
            PromptLookup::On => "on",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub max_inputs: u64,
    /// Body of a JSON request.
    pub max_body_bytes: usize,
    /// One line of an NDJSON body, and one input.
    pub max_line_bytes: usize,
    /// Whole NDJSON body.
    pub max_stream_bytes: u64,
    pub max_schema_bytes: usize,
    pub max_json_depth: usize,
    /// Items of a job of class `interactive`.
    pub max_interactive_items: u64,
    /// A file that is uploaded for a batch.
    pub max_file_bytes: u64,
    /// Answer tokens of a chat completion whose client names no bound.
    pub default_completion_tokens: u32,
    pub max_page: u32,
}

/// Where checkpoints are downloaded from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hub {
    /// A mirror; absent: the hub client's own default.
    pub endpoint: Option<String>,
    pub token: Option<String>,
    /// Absent: `models` in `data_dir`.
    pub cache_dir: Option<PathBuf>,
    /// Only what is cached already.
    pub offline: bool,
}

/// How models are loaded and given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loading {
    /// Checkpoints that are read side by side; further ones wait for their turn.
    pub max_parallel: usize,
    /// Device memory that no plan touches.
    pub reserve_bytes: u64,
    /// Wait before a failed load is tried again; doubles with every attempt up to the second value.
    pub retry_first_ms: u64,
    pub retry_max_ms: u64,
    /// Loads tried before a person has to ask again.
    pub max_attempts: u32,
    /// Requests in flight get this long when their model is unloaded.
    pub drain_ms: u64,
    /// The self-test has to end within this.
    pub self_test_ms: u64,
}

/// One model that clients can name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub name: String,
    /// A directory, a `.gguf` file, or a hub id (`owner/name`, optional `@revision`).
    pub path: String,
    /// A PEFT adapter: directory or hub id.
    #[serde(default)]
    pub adapter: Option<String>,
    /// Where its base runs; absent: as `engine.device` says.
    #[serde(default)]
    pub device: Option<Device>,
    /// Share of the device's memory that this model's base, with all adapters on it, may use. Of models on
    /// one base the largest counts.
    #[serde(default = "default_memory_utilization")]
    pub gpu_memory_utilization: f64,
    #[serde(default = "default_tensor_parallel_size")]
    pub tensor_parallel_size: u32,
    /// Shortens the checkpoint's own context.
    #[serde(default)]
    pub context_tokens: Option<usize>,
    /// Load when the process starts; otherwise on request.
    #[serde(default = "yes")]
    pub load_at_start: bool,
}

impl Model {
    /// A model with everything but name and path at its default.
    pub fn new(name: &str, path: &str) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            adapter: None,
            device: None,
            gpu_memory_utilization: default_memory_utilization(),
            tensor_parallel_size: default_tensor_parallel_size(),
            context_tokens: None,
            load_at_start: true,
        }
    }
}

fn default_memory_utilization() -> f64 {
    0.9
}

fn default_tensor_parallel_size() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from(".adit"),
            http: Http::default(),
            database: Database::default(),
            queue: Queue::default(),
            engine: Engine::default(),
            limits: Limits::default(),
            hub: Hub::default(),
            loading: Loading::default(),
            models: Vec::new(),
        }
    }
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            max_parallel: 3,
            reserve_bytes: 256 << 20,
            retry_first_ms: 2_000,
            retry_max_ms: 300_000,
            max_attempts: 20,
            drain_ms: 30_000,
            self_test_ms: 120_000,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            request_timeout_ms: 30_000,
            request_head_timeout_ms: 30_000,
            max_connections: 1_024,
            shutdown_grace_ms: 30_000,
            stream_poll_ms: 500,
            heartbeat_ms: 15_000,
            max_streams: 256,
            max_open_submissions: 4,
            auth: Auth::Auto,
            key_cache_ms: 5_000,
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            postgres_bin_dir: None,
            postgres_user: None,
            max_connections: 16,
            acquire_timeout_ms: 10_000,
            idle_in_transaction_ms: 10_000,
            fsync: true,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            chunk_items: 256,
            min_bundle_items: 16,
            max_bundle_items: 4096,
            bundle_target_s: 15.0,
            bundles_in_hand: 2,
            lease_ms: 15_000,
            renew_ms: 3_000,
            rescue_ms: 2_000,
            poll_ms: 500,
            flush_ms: 1_000,
            max_buffered_results: 10_000,
            max_worker_deaths: 3,
            max_attempts: 5,
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            threads: 0,
            max_step_tokens: 0,
            max_sequences: 0,
            max_queued: 16_384,
            block_tokens: 16,
            kv_tokens: 0,
            kv_type: KvType::F16,
            prefix_cache: true,
            jump_forward: true,
            prompt_lookup: PromptLookup::Auto,
            merge_adapters: false,
            max_grammar_bytes: 64 << 20,
            max_grammar_ms: 2_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_inputs: 1_000_000,
            max_body_bytes: 32 << 20,
            max_line_bytes: 1 << 20,
            max_stream_bytes: 16 << 30,
            max_schema_bytes: 256 << 10,
            max_json_depth: 64,
            max_interactive_items: 1_000,
            max_file_bytes: 1 << 30,
            default_completion_tokens: 4_096,
            max_page: 1_000,
        }
    }
}
