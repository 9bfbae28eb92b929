//! Where a base runs, what memory is there, and how it gets there. A CPU's memory is the machine's or its control
//! group's, whichever is less.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use super::card;
use super::error::ModelError;
use crate::config::settings;
use crate::engine::executor::Executor;
use crate::engine::executor::cpu::CpuExecutor;
use crate::nn;
use crate::nn::arch::ModelConfig;
use crate::nn::cache::KvType;
use crate::nn::model::{LoadOptions, Model};
use crate::nn::weights::checkpoint::Checkpoint;
use crate::nn::weights::random;

/// A device that this process can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Cpu,
    /// By its number.
    Card(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Card(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// What a checkpoint takes on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub weights_bytes: u64,
    pub activation_bytes: u64,
    pub kv_bytes_per_token: u64,
}

/// A base in a device's memory.
pub struct Loaded {
    pub executor: Box<dyn Executor>,
    pub config: ModelConfig,
    pub memory_bytes: u64,
}

impl Place {
    /// The device that the settings name. A card that cannot be had is an error, but for `auto`, which then means the
    /// CPU and says so once.
    pub fn find(wanted: settings::Device) -> Result<Self, ModelError> {
        static SAID: Once = Once::new();
        match wanted {
            settings::Device::Cpu => Ok(Self::Cpu),
            settings::Device::Cuda(number) => match card::look(number) {
                Ok(_) => Ok(Self::Card(number)),
                Err(cause) => Err(ModelError::NoDevice { device: wanted.to_string(), cause }),
            },
            settings::Device::Auto => Ok(match card::look(0) {
                Ok(name) => {
                    SAID.call_once(|| tracing::info!(%name, "models run on the card"));
                    Self::Card(0)
                }
                Err(why) => {
                    SAID.call_once(|| tracing::info!(%why, "models run on the CPU"));
                    Self::Cpu
                }
            }),
        }
    }

    /// That of a model.
    pub fn of(model: &settings::Model, engine: &settings::Engine) -> Result<Self, ModelError> {
        Self::find(model.device.unwrap_or(engine.device))
    }

    pub fn is_card(self) -> bool {
        matches!(self, Self::Card(_))
    }

    /// Free and total as of now.
    pub fn memory(self) -> Memory {
        match self {
            Self::Cpu => cpu_memory(),
            // one that does not tell has none to give
            Self::Card(number) => {
                card::memory(number).unwrap_or(Memory { total_bytes: 0, available_bytes: 0 })
            }
        }
    }

    /// What a checkpoint will take here, by settings that leave nothing open.
    pub fn sizes(self, checkpoint: &Checkpoint, engine: &settings::Engine, kv_type: KvType) -> Sizes {
        match self {
            Self::Cpu => Sizes {
                weights_bytes: checkpoint.weight_bytes(),
                activation_bytes: checkpoint.activation_bytes(engine.max_step_tokens),
                kv_bytes_per_token: checkpoint.kv_bytes_per_token(kv_type),
            },
            Self::Card(_) => card::sizes(checkpoint, engine.max_step_tokens, engine.max_sequences),
        }
    }

    /// Threads that compute masks while the device runs: on a CPU the forward pass itself keeps every core busy.
    pub fn mask_threads(self) -> usize {
        match self {
            Self::Cpu => 0,
            Self::Card(_) => {
                std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).clamp(1, 16))
            }
        }
    }

    /// A base of random weights, to measure with. `config` is a `config.json`; a card's pool is no larger than there is
    /// room for.
    pub fn random(self, config: &serde_json::Value, options: &LoadOptions) -> Result<Loaded, nn::Error> {
        match self {
            Self::Card(number) => card::random(number, &random::config(config)?, options),
            Self::Cpu => {
                // the CPU's weights come from files alone
                static NUMBER: AtomicU64 = AtomicU64::new(0);
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let dir = std::env::temp_dir().join(format!("adit-random-{}-{number}", std::process::id()));
                let io = |source| nn::Error::Io { file: dir.clone(), source };
                fs::create_dir_all(&dir).map_err(io)?;
                let loaded = random::write(&dir, config, 1)
                    .and_then(|()| Checkpoint::open(&dir))
                    .and_then(|checkpoint| self.load(&checkpoint, options, &mut |_| ()));
                fs::remove_dir_all(&dir).map_err(io)?;
                loaded
            }
        }
    }

    /// Memory and products of a card, measured now; a CPU is not measured.
    pub fn ceilings(self) -> Result<Option<Ceilings>, nn::Error> {
        match self {
            Self::Cpu => Ok(None),
            Self::Card(number) => card::ceilings(number).map(Some),
        }
    }

    /// For people.
    pub fn name(self) -> String {
        match self {
            Self::Cpu => "the CPU".into(),
            Self::Card(number) => card::look(number).unwrap_or_else(|_| self.to_string()),
        }
    }

    pub fn load(
        self,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<Loaded, nn::Error> {
        match self {
            Self::Cpu => {
                let model = Model::load(checkpoint, options, on_bytes)?;
                let (config, memory_bytes) = (model.config().clone(), model.memory_bytes());
                Ok(Loaded { executor: Box::new(CpuExecutor::new(model)), config, memory_bytes })
            }
            Self::Card(number) => card::load(number, checkpoint, options, on_bytes),
        }
    }
}

/// What a card was measured to do.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Ceilings {
    /// Of memory, read and written.
    pub gb_s: f64,
    /// Of a large product of matrices in bf16.
    pub product_tflop_s: f64,
}

/// One line on the first card, for people.
pub fn card_line() -> String {
    match (card::look(0), card::memory(0)) {
        (Ok(name), Some(memory)) => {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            format!(
                "cuda:0 is {name}, {:.1} of {:.1} GiB free; models run there unless the settings say otherwise",
                gib(memory.available_bytes),
                gib(memory.total_bytes)
            )
        }
        (Ok(name), None) => format!("cuda:0 is {name}, and does not tell its memory"),
        (Err(why), _) => format!("{why}; models run on the CPU"),
    }
}

/// Total and available bytes as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

/// Reads `/proc/meminfo` and the control group of this process. A machine that tells nothing is taken to
/// have unlimited memory: the plan then still says what is needed.
pub fn cpu_memory() -> Memory {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| parse_meminfo(&text))
        .unwrap_or(Memory { total_bytes: u64::MAX, available_bytes: u64::MAX });
    match cgroup_memory() {
        Some(group) => Memory {
            total_bytes: machine.total_bytes.min(group.total_bytes),
            available_bytes: machine.available_bytes.min(group.available_bytes),
        },
        None => machine,
    }
}

fn parse_meminfo(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    Some(Memory { total_bytes: field("MemTotal:")?, available_bytes: field("MemAvailable:")? })
}

/// The tightest limit between this process's group and the root of the hierarchy (version 2, else 1).
fn cgroup_memory() -> Option<Memory> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let v2 = tightest(Path::new("/sys/fs/cgroup"), unified, "memory.max", "memory.current", "inactive_file ");
    v2.or_else(|| {
        let legacy = groups.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path))?;
        tightest(
            Path::new("/sys/fs/cgroup/memory"),
            legacy,
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        )
    })
}

fn tightest(root: &Path, group: &str, limit: &str, usage: &str, cache: &str) -> Option<Memory> {
    let leaf: PathBuf = root.join(group.trim_start_matches('/'));
    leaf.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| {
            let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
            let total_bytes = number(limit)?;
            let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            let cached =
                stat.lines().find_map(|line| line.strip_prefix(cache)?.parse::<u64>().ok()).unwrap_or(0);
            let used = number(usage)?.saturating_sub(cached);
            Some(Memory { total_bytes, available_bytes: total_bytes.saturating_sub(used) })
        })
        .min_by_key(|memory| memory.available_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    600 kB\n";
        let memory = parse_meminfo(text).unwrap();
        assert_eq!(memory, Memory { total_bytes: 1_024_000, available_bytes: 614_400 });
        assert_eq!(parse_meminfo("MemTotal: x kB"), None);
    }

    #[test]
    fn the_tightest_group_counts_without_its_cache() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("a/b");
        fs::create_dir_all(&leaf).unwrap();
        let write = |dir: &Path, file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
        write(&leaf, "memory.max", "max\n");
        write(&leaf, "memory.current", "5\n");
        write(&root.path().join("a"), "memory.max", "1000\n");
        write(&root.path().join("a"), "memory.current", "700\n");
        write(&root.path().join("a"), "memory.stat", "anon 1\ninactive_file 200\n");
        let found = tightest(root.path(), "/a/b", "memory.max", "memory.current", "inactive_file ");
        assert_eq!(found, Some(Memory { total_bytes: 1000, available_bytes: 500 }));
        assert_eq!(tightest(root.path(), "/none", "memory.max", "memory.current", "x "), None);
    }
}
