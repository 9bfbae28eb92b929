//! Readiness and loading on real, small checkpoints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit::clock::Clock;
use adit::config::settings::{Model, Settings};
use adit::domain::code::Code;
use adit::domain::message::{Message, Role};
use adit::domain::model::{LoadStage, ModelState, ModelStatus};
use adit::engine::request::{Request, Sampling};
use adit::models::error::ModelError;
use adit::models::manager::Manager;
use adit::models::served::Served;
use adit::shutdown::Shutdown;

use crate::support::hub::HubStandIn;
use crate::support::tiny::{self, Arch};

/// Held by tests whose checkpoints are large enough to show in the process's memory.
static HEAVY: ::tokio::sync::Mutex<()> = ::tokio::sync::Mutex::const_new(());

const LONG: Duration = Duration::from_secs(120);

pub fn settings(dir: &Path) -> Settings {
    let mut settings = Settings { data_dir: dir.join("data"), ..Settings::default() };
    settings.engine.threads = 1;
    settings.engine.kv_tokens = 4096;
    settings.engine.max_step_tokens = 64;
    settings.loading.reserve_bytes = 1 << 20;
    settings.loading.retry_first_ms = 50;
    settings.loading.drain_ms = 300;
    settings
}

fn start(models: Vec<Model>, settings: &Settings) -> Manager {
    Manager::start(models, settings, Shutdown::new(), Clock::default()).unwrap()
}

fn model(name: &str, path: &Path) -> Model {
    Model::new(name, &path.to_string_lossy())
}

fn failure(status: &ModelStatus) -> (&str, &str) {
    match status {
        ModelStatus::Error { failure, .. } => (&failure.code, &failure.message),
        other => panic!("{other:?}"),
    }
}

pub async fn answer(served: &Served, text: &str) -> String {
    let prompt = served.render(&[Message { role: Role::User, content: text.into() }]).unwrap();
    let request = Request {
        prompt: prompt.into(),
        adapter: served.adapter(),
        grammar: None,
        sampling: Sampling::default(),
        max_tokens: 8,
        stop: served.stop(),
        priority: 0,
        group: 1,
        logprobs: None,
        branches: false,
    };
    served.decode(&served.engine().generate(request).await.unwrap().tokens)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_models_on_one_base_load_it_once_and_answer_each_with_their_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let base = tiny::tiny_model(dir.path().join("base"), Arch::Qwen2, 1);
    let mut models = Vec::new();
    for (seed, name) in [(1, "concept"), (2, "relationship"), (3, "attribute")] {
        let adapter = tiny::tiny_adapter(dir.path().join(name), seed, tiny::ALL_TARGETS);
        models.push(Model { adapter: Some(adapter.to_string_lossy().into()), ..model(name, &base) });
    }
    models.push(model("plain", &dir.path().join("base/../base")));
    let manager = start(models, &settings(dir.path()));
    manager.wait_for_all_models(LONG).await.unwrap();
    assert!(manager.are_all_ready());
    assert_eq!(manager.base_loads(), 1);
    let mut answers = std::collections::HashSet::new();
    for name in manager.names() {
        answers.insert(answer(&manager.get_model(&name).unwrap(), "Name the tables.").await);
    }
    assert_eq!(answers.len(), 4, "each adapter answers in its own way: {answers:?}");
    let info = manager.info("plain").unwrap();
    assert_eq!(info.shares_base_with, ["concept", "relationship", "attribute"]);
    let plans: Vec<_> = manager.names().iter().map(|name| manager.plan(name).unwrap()).collect();
    assert_eq!(plans.iter().filter(|plan| plan.weights_bytes > 0).count(), 1, "counted once");
    // the base outlives one of its models and ends with the last
    manager.unload("concept").await.unwrap();
    answer(&manager.get_model("plain").unwrap(), "Still there?").await;
    manager.reload("relationship").await.unwrap();
    manager.wait_for_model("relationship", LONG).await.unwrap();
    assert_eq!(manager.base_loads(), 1);
    manager.unload_all_models().await;
    assert!(manager.get_all_statuses().iter().all(|(_, status)| *status == ModelStatus::NotLoaded));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_bases_load_side_by_side_and_the_states_come_in_order() {
    let _alone = HEAVY.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let mut models = Vec::new();
    for (seed, arch) in [(1, Arch::Qwen2), (2, Arch::Llama), (3, Arch::Llama)] {
        let checkpoint = tiny::Tiny::new(arch, seed).width(512, 2048).layers(6);
        let path = checkpoint.shards(if seed == 3 { 3 } else { 1 }).write(dir.path().join(seed.to_string()));
        models.push(Model { load_at_start: false, ..model(&format!("m{seed}"), &path) });
    }
    let manager = start(models, &settings(dir.path()));
    let mut seen = Vec::new();
    for name in manager.names() {
        let mut watch = manager.watch(&name).unwrap();
        assert_eq!(watch.borrow_and_update().state(), ModelState::NotLoaded);
        seen.push(tokio::spawn_states(watch));
    }
    for name in manager.names() {
        manager.load(&name).await.unwrap();
    }
    let all_loading = |manager: &Manager| {
        manager.get_all_statuses().iter().all(|(_, status)| status.state() == ModelState::Loading)
    };
    let overlap = tokio::time::timeout(LONG, async {
        while !all_loading(&manager) {
            assert!(!manager.is_ready("m1"), "one was ready before the others had begun");
            tokio::task::yield_now().await;
        }
    });
    overlap.await.unwrap();
    manager.wait_for_all_models(LONG).await.unwrap();
    assert_eq!(manager.base_loads(), 3);
    for states in seen {
        assert_eq!(states.await.unwrap(), [ModelState::NotLoaded, ModelState::Loading, ModelState::Ready]);
    }
    manager.unload_all_models().await;
}

mod tokio {
    //! The runtime, with one more way to start a task in a test.
    pub use ::tokio::*;
    use adit::domain::model::{ModelState, ModelStatus};

    /// Collects the states that a watch goes through, up to Ready.
    pub fn spawn_states(mut watch: sync::watch::Receiver<ModelStatus>) -> task::JoinHandle<Vec<ModelState>> {
        let tasks = adit::shutdown::Shutdown::new();
        tasks.spawn(async move {
            let mut states = vec![watch.borrow_and_update().state()];
            while states.last() != Some(&ModelState::Ready) && watch.changed().await.is_ok() {
                let state = watch.borrow_and_update().state();
                if states.last() != Some(&state) {
                    states.push(state);
                }
            }
            states
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_end_with_distinct_errors() {
    let dir = tempfile::tempdir().unwrap();
    let good = tiny::tiny_model(dir.path().join("good"), Arch::Llama, 1);
    let broken = tiny::tiny_model(dir.path().join("broken"), Arch::Llama, 1);
    tiny::corrupt(broken.join("model.safetensors"));
    let idle = Model { load_at_start: false, ..model("idle", &good) };
    let manager = start(vec![model("good", &good), model("broken", &broken), idle], &settings(dir.path()));
    let unknown = manager.wait_for_model("nobody", LONG).await.unwrap_err();
    assert_eq!(unknown.code(), Code::UnknownModel);
    assert!(unknown.to_string().contains("good, broken, idle"), "{unknown}");
    let began = std::time::Instant::now();
    let failed = manager.wait_for_model("broken", LONG).await.unwrap_err();
    assert!(began.elapsed() < LONG / 4, "a failed load ends the wait at once");
    assert_eq!(failed.code(), Code::ModelFailed);
    let late = manager.wait_for_model("idle", Duration::from_millis(30)).await.unwrap_err();
    assert_eq!(late.code(), Code::RequestTimeout);
    assert!(late.to_string().contains("not_loaded"), "{late}");
    let refused = manager.get_model("idle").err().unwrap();
    assert!(matches!(refused, ModelError::NotReady { .. }) && refused.to_string().contains("not_loaded"));
    manager.wait_for_model("good", LONG).await.unwrap();
    assert!(manager.wait_for_all_models(LONG).await.is_err());
    assert!(!manager.are_all_ready());
    manager.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_by_file_and_tensor_while_others_serve() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let good = tiny::tiny_model(place("good"), Arch::Qwen2, 1);
    let corrupt = tiny::tiny_model(place("corrupt"), Arch::Qwen2, 1);
    tiny::corrupt(corrupt.join("model.safetensors"));
    let cut = tiny::sharded_model(place("cut"), Arch::Qwen2, 1);
    tiny::truncate(cut.join("model-00002-of-00003.safetensors"), 100);
    let absent = tiny::sharded_model(place("absent"), Arch::Qwen2, 1);
    std::fs::remove_file(absent.join("model-00003-of-00003.safetensors")).unwrap();
    let lacking = tiny::tiny_model(place("lacking"), Arch::Qwen2, 1);
    tiny::remove_tensor(lacking.join("model.safetensors"), "model.layers.1.self_attn.k_proj.weight");
    let wide = tiny::tiny_model(place("wide"), Arch::Qwen2, 1);
    tiny::widen_tensor(wide.join("model.safetensors"), "model.layers.0.mlp.up_proj.weight");
    let poisoned = tiny::tiny_model(place("poisoned"), Arch::Qwen2, 1);
    tiny::poison_tensor(poisoned.join("model.safetensors"), "model.norm.weight");
    let wrong = tiny::wrong_shape_adapter(place("wrong"), 1);
    // an adapter for a layer that the base does not have
    let foreign = tiny::tiny_adapter(place("foreign"), 1, &["q_proj"]);
    let config = foreign.join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"q_proj\"", "\"q_proj\", \"router_proj\"")).unwrap();
    // a format that can hold code is not even looked at
    let pickled = tiny::tiny_model(place("pickled"), Arch::Qwen2, 1);
    std::fs::rename(pickled.join("model.safetensors"), pickled.join("pytorch_model.bin")).unwrap();
    let with = |name: &str, adapter: PathBuf| Model {
        adapter: Some(adapter.to_string_lossy().into()),
        ..model(name, &good)
    };
    let models = vec![
        model("good", &good),
        model("corrupt", &corrupt),
        model("cut", &cut),
        model("absent", &absent),
        model("lacking", &lacking),
        model("wide", &wide),
        model("poisoned", &poisoned),
        with("no_adapter", place("nowhere")),
        with("wrong_adapter", wrong),
        model("no_path", &place("nothing")),
        with("foreign", foreign),
        model("pickled", &pickled),
        Model { tensor_parallel_size: 2, ..model("parallel", &good) },
    ];
    let manager = start(models, &settings(dir.path()));
    let check = async |name: &str, parts: &[&str]| {
        manager.wait_for_model(name, LONG).await.unwrap_err();
        let status = manager.get_status(name).unwrap();
        let (code, message) = failure(&status);
        assert!(!code.is_empty());
        for part in parts {
            assert!(message.contains(part), "{name}: `{part}` is not in `{code}: {message}`");
        }
    };
    check("corrupt", &["corrupt/model.safetensors"]).await;
    check("cut", &["model-00002-of-00003.safetensors"]).await;
    check("absent", &["model-00003-of-00003.safetensors"]).await;
    check("lacking", &["lacking", "model.layers.1.self_attn.k_proj.weight"]).await;
    check("wide", &["wide/model.safetensors", "model.layers.0.mlp.up_proj.weight", "129", "128"]).await;
    check("poisoned", &["self-test", "not finite"]).await;
    check("no_adapter", &["nowhere", "adapter_config.json"]).await;
    check("wrong_adapter", &["wrong", "q_proj", "128", "64"]).await;
    check("no_path", &["nothing"]).await;
    check("foreign", &["foreign", "router_proj"]).await;
    check("pickled", &["pickled/model.safetensors"]).await;
    check("parallel", &["tensor_parallel_size 2"]).await;
    manager.wait_for_model("good", LONG).await.unwrap();
    answer(&manager.get_model("good").unwrap(), "Are you well?").await;
    // mended files load on request
    tiny::tiny_model(place("corrupt"), Arch::Qwen2, 1);
    manager.load("corrupt").await.unwrap();
    manager.wait_for_ready("corrupt").await;
    manager.unload_all_models().await;
}

/// Waits past an old failure: a load was just accepted.
trait WaitForReady {
    async fn wait_for_ready(&self, name: &str);
}

impl WaitForReady for Manager {
    async fn wait_for_ready(&self, name: &str) {
        let mut watch = self.watch(name).unwrap();
        let ready = watch.wait_for(ModelStatus::admits_work);
        tokio::time::timeout(LONG, ready).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_does_not_fit_is_refused_with_its_plan() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::tiny_model(dir.path().join("base"), Arch::Qwen2, 1);
    let mut settings = settings(dir.path());
    settings.engine.kv_tokens = 1 << 40;
    let idle = Model { load_at_start: false, ..model("idle", &path) };
    let manager = start(vec![idle, model("eager", &path)], &settings);
    let refused = manager.load("idle").await.unwrap_err();
    let ModelError::InsufficientMemory { plan } = &refused else { panic!("{refused}") };
    assert!(plan.kv_bytes > 1 << 40 && !plan.fits());
    assert_eq!(refused.code(), Code::InsufficientMemory);
    assert_eq!(manager.get_status("idle").unwrap(), ModelStatus::NotLoaded);
    // one that is wanted at the start says so in its state, with the time of the next try
    let failed = manager.wait_for_model("eager", LONG).await.unwrap_err();
    let ModelError::LoadFailed { failure, .. } = &failed else { panic!("{failed}") };
    assert_eq!(failure.code, "insufficient_memory");
    assert!(failure.next_retry_at.is_some() && failure.message.contains("bytes needed"));
    let mut watch = manager.watch("eager").unwrap();
    let third =
        |status: &ModelStatus| matches!(status, ModelStatus::Error { failure, .. } if failure.attempt >= 3);
    tokio::time::timeout(LONG, watch.wait_for(third)).await.unwrap().unwrap();
    manager.unload_all_models().await;
}

/// A base fits, its own adapter and a second one do not fit together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_that_does_not_fit_beside_a_loaded_base_is_refused_with_its_plan() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::tiny_model(dir.path().join("base"), Arch::Qwen2, 1);
    let adapter = tiny::tiny_adapter(dir.path().join("adapter"), 1, tiny::ALL_TARGETS);
    let adapter = Some(adapter.to_string_lossy().into_owned());
    let settings = settings(dir.path());
    let needed = |adapter: Option<String>| {
        let wide = Model { adapter, load_at_start: false, ..model("wide", &path) };
        start(vec![wide], &settings).plan("wide").unwrap().needed_bytes()
    };
    let (plain_bytes, adapter_bytes) = (needed(None), needed(adapter.clone()) - needed(None));
    assert!(adapter_bytes > 50_000);
    let total_bytes = adit::models::device::cpu_memory().total_bytes as f64;
    let gpu_memory_utilization = (plain_bytes + adapter_bytes * 3 / 2) as f64 / total_bytes;
    let tight = |name: &str, adapter: Option<String>, load_at_start: bool| Model {
        adapter,
        load_at_start,
        gpu_memory_utilization,
        ..model(name, &path)
    };
    let models = vec![
        tight("plain", None, true),
        tight("first", adapter.clone(), false),
        tight("second", adapter.clone(), false),
    ];
    let manager = start(models, &settings);
    manager.wait_for_model("plain", LONG).await.unwrap();
    manager.load("first").await.unwrap();
    manager.wait_for_model("first", LONG).await.unwrap();
    let booked = manager.booked_bytes();
    let refused = manager.load("second").await.unwrap_err();
    let ModelError::InsufficientMemory { plan } = &refused else { panic!("{refused}") };
    assert_eq!((plan.adapter_bytes, plan.weights_bytes, plan.kv_bytes), (adapter_bytes, 0, 0));
    assert!(!plan.fits() && plan.shares_base_with.as_deref() == Some("plain"), "{plan:?}");
    assert_eq!(refused.code(), Code::InsufficientMemory);
    assert_eq!(manager.get_status("second").unwrap(), ModelStatus::NotLoaded);
    assert_eq!(manager.booked_bytes(), booked);
    for name in ["plain", "first"] {
        answer(&manager.get_model(name).unwrap(), "Still well?").await;
    }
    let memory = |name: &str| manager.info(name).unwrap().memory;
    assert_eq!(memory("second"), None);
    assert_eq!(memory("first").unwrap().adapter_bytes, adapter_bytes);
    assert_eq!(memory("first").unwrap().charged_to.as_deref(), Some("plain"));
    assert!(memory("plain").unwrap().base_bytes > 0 && memory("first").unwrap().base_bytes == 0);
    // room is made, and it loads
    manager.unload("first").await.unwrap();
    manager.load("second").await.unwrap();
    manager.wait_for_model("second", LONG).await.unwrap();
    assert_eq!(manager.booked_bytes(), booked);
    manager.unload_all_models().await;

    // side by side at the start, whoever comes last is refused in its state, with the time of the next try
    let models = vec![
        tight("one", adapter.clone(), true),
        tight("two", adapter.clone(), true),
        tight("three", None, true),
    ];
    let manager = start(models, &settings);
    manager.wait_for_model("three", LONG).await.unwrap();
    let (one, two) = (manager.watch("one").unwrap(), manager.watch("two").unwrap());
    let settled = async |mut watch: ::tokio::sync::watch::Receiver<ModelStatus>| {
        let ended = |status: &ModelStatus| status.admits_work() || status.state() == ModelState::Error;
        ::tokio::time::timeout(LONG, watch.wait_for(ended)).await.unwrap().unwrap().clone()
    };
    let ends = [settled(one).await, settled(two).await];
    assert_eq!(ends.iter().filter(|status| status.admits_work()).count(), 1, "{ends:?}");
    let refused = ends.iter().find(|status| !status.admits_work()).unwrap();
    let ModelStatus::Error { failure: seen, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(seen.code, "insufficient_memory");
    assert!(seen.next_retry_at.is_some() && seen.message.contains("bytes needed"), "{seen:?}");
    manager.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_from_the_hub_shows_its_bytes_and_can_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::tiny_model(dir.path().join("base"), Arch::Qwen2, 1);
    let files = tiny::tiny_adapter(dir.path().join("files"), 1, tiny::ALL_TARGETS);
    let hub = HubStandIn::start(&[("tiny/adapter", files.clone())], None);
    hub.hold();
    let mut settings = settings(dir.path());
    settings.hub.endpoint = Some(hub.endpoint.clone());
    let adapted =
        Model { adapter: Some("tiny/adapter".into()), load_at_start: false, ..model("adapted", &path) };
    let manager = start(vec![model("plain", &path), adapted], &settings);
    manager.wait_for_model("plain", LONG).await.unwrap();
    manager.load("adapted").await.unwrap();
    let mut watch = manager.watch("adapted").unwrap();
    let weights = std::fs::metadata(files.join("adapter_model.safetensors")).unwrap().len();
    let downloads = |status: &ModelStatus| {
        matches!(status, ModelStatus::Loading { progress, .. }
            if progress.stage == LoadStage::Download && progress.bytes_total > weights)
    };
    let seen = ::tokio::time::timeout(LONG, watch.wait_for(downloads)).await.unwrap().unwrap().clone();
    let ModelStatus::Loading { progress, .. } = seen else { panic!("{seen:?}") };
    assert!(progress.bytes_done < progress.bytes_total, "{progress:?}");
    // held by the hub, it still obeys
    ::tokio::time::timeout(LONG, manager.unload("adapted")).await.unwrap().unwrap();
    assert_eq!(manager.get_status("adapted").unwrap(), ModelStatus::NotLoaded);
    hub.release();
    manager.load("adapted").await.unwrap();
    manager.wait_for_ready("adapted").await;
    let text = "Name the tables.";
    let adapted = answer(&manager.get_model("adapted").unwrap(), text).await;
    assert_ne!(adapted, answer(&manager.get_model("plain").unwrap(), text).await);
    assert_eq!(manager.base_loads(), 1);
    manager.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_stalls_holds_up_nobody_and_can_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let files = tiny::tiny_model(dir.path().join("files"), Arch::Llama, 2);
    let hub = HubStandIn::start(&[("tiny/model", files)], None);
    hub.hold();
    let mut settings = settings(dir.path());
    settings.hub.endpoint = Some(hub.endpoint.clone());
    settings.loading.max_parallel = 1;
    let local = Model { load_at_start: false, ..model("local", &path) };
    let manager = start(vec![Model::new("remote", "tiny/model"), local], &settings);
    let mut watch = manager.watch("remote").unwrap();
    let downloads = |status: &ModelStatus| {
        matches!(status, ModelStatus::Loading { progress, .. }
            if progress.stage == LoadStage::Download && progress.bytes_total > 0)
    };
    ::tokio::time::timeout(LONG, watch.wait_for(downloads)).await.unwrap().unwrap();
    assert_eq!(manager.booked_bytes(), 0, "nothing is booked before the files are here");
    manager.load("local").await.unwrap();
    manager.wait_for_model("local", LONG).await.unwrap();
    ::tokio::time::timeout(LONG, manager.unload("remote")).await.unwrap().unwrap();
    assert_eq!(manager.get_status("remote").unwrap(), ModelStatus::NotLoaded);
    hub.release();
    manager.load("remote").await.unwrap();
    manager.wait_for_ready("remote").await;
    answer(&manager.get_model("remote").unwrap(), "Here at last?").await;
    manager.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unload_waits_for_users_within_its_grace() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let mut settings = settings(dir.path());
    settings.loading.drain_ms = 60_000;
    let manager = start(vec![model("one", &path)], &settings);
    manager.wait_for_model("one", LONG).await.unwrap();
    let served = manager.get_model("one").unwrap();
    let mut watch = manager.watch("one").unwrap();
    let unload = manager.unload("one");
    ::tokio::pin!(unload);
    ::tokio::select! {
        done = &mut unload => panic!("unloaded under a user: {done:?}"),
        seen = watch.wait_for(|status| matches!(status, ModelStatus::Ready { draining: true, .. })) => {
            seen.unwrap();
        }
    }
    assert!(!manager.is_ready("one"));
    assert!(manager.get_model("one").is_err());
    answer(&served, "Finish this.").await;
    drop(served);
    unload.await.unwrap();
    assert_eq!(manager.get_status("one").unwrap(), ModelStatus::NotLoaded);
    // and back again
    manager.load("one").await.unwrap();
    manager.wait_for_model("one", LONG).await.unwrap();
    manager.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_reads_the_files_as_they_are_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let manager = start(vec![model("one", &path)], &settings(dir.path()));
    manager.wait_for_model("one", LONG).await.unwrap();
    let before = answer(&manager.get_model("one").unwrap(), "Who are you?").await;
    tiny::tiny_model(&path, Arch::Llama, 2);
    manager.reload("one").await.unwrap();
    manager.wait_for_model("one", LONG).await.unwrap();
    assert_ne!(answer(&manager.get_model("one").unwrap(), "Who are you?").await, before);
    assert_eq!(manager.base_loads(), 2);
    manager.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_engine_is_noticed_and_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let manager = start(vec![model("a", &path), model("b", &path)], &settings(dir.path()));
    manager.wait_for_all_models(LONG).await.unwrap();
    let mut watch = manager.watch("a").unwrap();
    manager.get_model("a").unwrap().engine().close().await;
    let noticed = watch.wait_for(|status| status.state() == ModelState::Error);
    let status = ::tokio::time::timeout(LONG, noticed).await.unwrap().unwrap().clone();
    assert_eq!(failure(&status).0, "engine_failed");
    for name in ["a", "b"] {
        manager.wait_for_ready(name).await;
    }
    assert_eq!(manager.base_loads(), 2);
    answer(&manager.get_model("b").unwrap(), "Back?").await;
    manager.unload_all_models().await;
}

/// Resident bytes of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_returned_by_an_unload() {
    let _alone = HEAVY.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = tiny::Tiny::new(Arch::Llama, 9).width(1024, 4096).layers(10);
    let path = checkpoint.write(dir.path().join("large"));
    let idle = |name: &str| Model { load_at_start: false, ..model(name, &path) };
    let manager = start(vec![idle("large"), idle("twin")], &settings(dir.path()));
    let before = resident_bytes();
    let mut after = Vec::new();
    for _ in 0..3 {
        for name in ["large", "twin"] {
            manager.load(name).await.unwrap();
            manager.wait_for_model(name, LONG).await.unwrap();
        }
        let plan = manager.plan("large").unwrap();
        let loaded = resident_bytes() - before;
        assert!(plan.weights_bytes > 200 << 20, "{plan:?}");
        assert!(loaded > plan.weights_bytes / 2, "{loaded} bytes for {plan:?}");
        assert!(loaded < plan.weights_bytes * 3 / 2, "the twin shares: {loaded} bytes for {plan:?}");
        manager.unload("large").await.unwrap();
        assert!(resident_bytes() - before > plan.weights_bytes / 2, "the twin still needs it");
        manager.unload("twin").await.unwrap();
        after.push(resident_bytes().saturating_sub(before));
        assert!(after.iter().all(|kept| *kept < plan.weights_bytes / 4), "kept after unloads: {after:?}");
    }
    assert_eq!(manager.base_loads(), 3);
    manager.unload_all_models().await;
}
