//! The gate: jobs of a model that cannot serve wait untouched, others pass them, and once it is Ready its
//! items run within a second. Seen in the tables, not in what the service says of itself.

use std::path::Path;
use std::time::Duration;

use adit::client::Client;
use adit::domain::job::JobState;
use adit::domain::model::{LoadStage, ModelState};
use adit::store::Store;
use adit::wire::job::WaitReason;
use adit::wire::submit::JobRequest;
use chrono::{DateTime, Utc};
use tempfile::TempDir;
use uuid::Uuid;

use crate::postgres;
use crate::server::{Server, until};
use crate::support::hub::HubStandIn;
use crate::support::tiny::{Arch, tiny_model};

pub const LONG: Duration = Duration::from_secs(120);
/// From Ready to the first claim.
const PROMPTLY: Duration = Duration::from_secs(1);
const ITEMS: i64 = 40;

/// A server on a database that the test reads as well.
pub struct Place {
    pub server: Server,
    pub client: Client,
    pub store: Store,
    _dir: TempDir,
}

pub async fn place(dir: TempDir, models: &[(&str, &str)], more: &str) -> Place {
    let store = postgres::fresh_store(16).await;
    let options = store.pool().connect_options();
    let database = options.get_database().unwrap();
    let socket = options.get_socket().unwrap().display().to_string();
    let url = format!("postgres://adit@localhost/{database}?host={socket}");
    let entry = |(name, path): &(&str, &str)| format!("[[models]]\nname = \"{name}\"\npath = \"{path}\"\n");
    let models: String = models.iter().map(entry).collect();
    let config = format!(
        "[queue]\nchunk_items = 16\n[engine]\nkv_tokens = 4096\nthreads = 1\n[loading]\nretry_first_ms = 600000\n{more}\n{models}"
    );
    let server = Server::start_with(dir.path(), &config, &[("DATABASE_URL", url.as_ref())]);
    Place { client: server.client(), server, store, _dir: dir }
}

fn request(model: &str) -> JobRequest {
    serde_json::from_value(serde_json::json!({
        "task": "custom",
        "model": model,
        "schema": {"type": "object", "properties": {"kind": {"enum": ["letter", "bill", "note"]}},
                   "required": ["kind"], "additionalProperties": false},
        "instructions": "What kind of text is it?",
        "inputs": (0..ITEMS).map(|n| format!("text {n}")).collect::<Vec<_>>(),
    }))
    .unwrap()
}

impl Place {
    async fn submit(&self, model: &str) -> Uuid {
        self.client.submit(&request(model), None).await.unwrap().id
    }

    /// Submits for a model that cannot serve and for one that can; when the latter's job has ended, nothing
    /// of the former's has been touched.
    async fn passes_by(&self, shut: &str, open: &str, reason: WaitReason) -> Uuid {
        let waiting = self.submit(shut).await;
        let passing = self.submit(open).await;
        let ended = until(&self.client, passing, LONG, |job| job.state.is_final()).await;
        assert_eq!((ended.state, ended.counts.succeeded), (JobState::Completed, ITEMS));
        self.is_untouched(waiting).await;
        let shown = self.client.job(waiting).await.unwrap();
        assert_eq!((shown.state, shown.counts.waiting), (JobState::Queued, ITEMS));
        assert_eq!(shown.waiting_for[0].reason, reason);
        let model = self.client.model(shut).await.unwrap();
        assert_eq!((model.items_waiting, model.jobs_waiting), (Some(ITEMS), Some(1)));
        waiting
    }

    /// No claim has ever been made, and none has been given back.
    async fn is_untouched(&self, job: Uuid) {
        let started: Option<DateTime<Utc>> = self.started_at(job).await;
        assert_eq!(started, None);
        let rows: Vec<(String, i32, i16, Option<Uuid>, i32)> = sqlx::query_as(
            "select state::text, attempt, tries, worker, n_items - n_succeeded - n_failed from chunks where job_id = $1",
        )
        .bind(job)
        .fetch_all(self.store.pool())
        .await
        .unwrap();
        assert_eq!(rows.iter().map(|row| i64::from(row.4)).sum::<i64>(), ITEMS);
        for row in rows {
            assert!(row.0 == "ready" && (row.1, row.2) == (0, 0) && row.3.is_none(), "{row:?}");
        }
        let results: i64 = sqlx::query_scalar("select count(*) from results where job_id = $1")
            .bind(job)
            .fetch_one(self.store.pool())
            .await
            .unwrap();
        assert_eq!(results, 0);
        postgres::assert_invariants(&self.store).await;
    }

    async fn started_at(&self, job: Uuid) -> Option<DateTime<Utc>> {
        let started = sqlx::query_scalar("select started_at from jobs where id = $1");
        started.bind(job).fetch_one(self.store.pool()).await.unwrap()
    }

    /// The model is Ready; its waiting job was claimed soon after, not before, and ends.
    async fn runs_promptly(&self, model: &str, job: Uuid) {
        let ready = self.client.wait(model, LONG.as_secs_f64()).await.unwrap();
        let since = ready.since.unwrap();
        let ended = until(&self.client, job, LONG, |job| job.state.is_final()).await;
        assert_eq!((ended.state, ended.counts.succeeded), (JobState::Completed, ITEMS));
        let started = self.started_at(job).await.unwrap();
        let first: DateTime<Utc> =
            sqlx::query_scalar("select min(finished_at) from results where job_id = $1")
                .bind(job)
                .fetch_one(self.store.pool())
                .await
                .unwrap();
        let claimed_after = (started - since).to_std().expect("claimed before it was ready");
        let written_after = (first - since).to_std().unwrap();
        println!("{model}: first claim {claimed_after:?}, first result {written_after:?} after ready");
        assert!(claimed_after < PROMPTLY, "claimed {claimed_after:?} after ready");
        postgres::assert_invariants(&self.store).await;
    }

    pub async fn state(&self, model: &str, state: ModelState) {
        let begun = std::time::Instant::now();
        while self.client.model(model).await.unwrap().state != state {
            assert!(begun.elapsed() < LONG, "{model} is not {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn jobs_of_a_model_that_is_being_downloaded_wait_until_it_is_ready() {
    let dir = TempDir::new().unwrap();
    let quick = tiny_model(dir.path().join("quick"), Arch::Llama, 1);
    let files = tiny_model(dir.path().join("files"), Arch::Llama, 2);
    let hub = HubStandIn::start(&[("tiny/slow", files)], None);
    hub.hold();
    let models = [("slow", "tiny/slow"), ("quick", text(&quick))];
    let mut place = place(dir, &models, &format!("[hub]\nendpoint = \"{}\"", hub.endpoint)).await;
    let job = place.passes_by("slow", "quick", WaitReason::ModelLoading).await;
    let slow = place.client.model("slow").await.unwrap();
    let progress = slow.progress.unwrap();
    assert_eq!((slow.state, progress.stage), (ModelState::Loading, LoadStage::Download));
    assert!(progress.bytes_done < progress.bytes_total, "{progress:?}");
    assert_eq!(place.client.model_status().await.unwrap()["quick"], ModelState::Ready);
    hub.release();
    place.runs_promptly("slow", job).await;
    place.server.kill();
}

#[tokio::test]
async fn jobs_of_a_failed_or_unloaded_model_wait_until_somebody_loads_it() {
    let dir = TempDir::new().unwrap();
    let quick = tiny_model(dir.path().join("quick"), Arch::Llama, 1);
    let broken = tiny_model(dir.path().join("broken"), Arch::Llama, 2);
    let (weights, aside) = (broken.join("model.safetensors"), dir.path().join("aside"));
    std::fs::rename(&weights, &aside).unwrap();
    let models = [("broken", text(&broken)), ("quick", text(&quick))];
    let mut place = place(dir, &models, "").await;
    let job = place.passes_by("broken", "quick", WaitReason::ModelError).await;
    let shown = place.client.model("broken").await.unwrap();
    let error = shown.error.unwrap();
    assert!(
        error.message.contains("model.safetensors") && error.hint.contains("model.safetensors"),
        "{error:?}"
    );
    assert_eq!(shown.last_error.unwrap().failure, error);
    std::fs::rename(&aside, &weights).unwrap();
    place.is_untouched(job).await;
    place.client.load("broken").await.unwrap();
    place.runs_promptly("broken", job).await;
    let mended = place.client.model("broken").await.unwrap();
    assert!(mended.error.is_none() && mended.last_error.is_some(), "{mended:?}");

    // the same model is unloaded, and loaded again
    place.client.unload("broken").await.unwrap();
    place.state("broken", ModelState::NotLoaded).await;
    let job = place.passes_by("broken", "quick", WaitReason::ModelNotLoaded).await;
    place.client.load("broken").await.unwrap();
    place.runs_promptly("broken", job).await;
    place.server.kill();
}
