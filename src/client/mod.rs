//! Typed HTTP client of our own API. The command line reaches the server through nothing else.

pub mod openai;

use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio_stream::wrappers::LinesStream;
use tokio_util::io::{ReaderStream, StreamReader};
use uuid::Uuid;

use crate::domain::code::Code;
use crate::wire::estimate::Estimate;
use crate::wire::health::Health;
use crate::wire::job::{Job, JobPage, JobsQuery, Retried, RetryQuery};
use crate::wire::model::{Model, ModelList, StatusMap, WaitQuery};
use crate::wire::problem::Problem;
use crate::wire::result::{ExportQuery, ItemResult, ResultPage, ResultsQuery, SchemaQuery};
use crate::wire::submit::{JobRequest, StreamQuery};

/// The HTTP library takes at most 65,534.
const MAX_URL_BYTES: usize = 60_000;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered a problem.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    #[error("{url} cannot be reached: {source}")]
    Unreachable { url: String, source: reqwest::Error },
    /// An answer that this client does not understand: another version, or not adit at all.
    #[error("{url} answered {status}: {text}")]
    Unexpected { url: String, status: u16, text: String },
    #[error("'{url}' is not a URL of a server")]
    Url { url: String },
    #[error("the answer broke off: {0}")]
    Broken(String),
}

impl ClientError {
    /// The server's own code, if it answered a problem.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Problem(problem) => Some(problem),
            _ => None,
        }
    }
}

/// A server's address. Cloning shares connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// `base` is `http://host:port`, with or without a path in front of the API.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_string();
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(ClientError::Url { url: base });
        }
        // reqwest is built without a provider of its own; a second installation is refused and harmless
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("adit/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| ClientError::Unreachable { url: base.clone(), source })?;
        Ok(Self { http, base })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// Submits a job. The same key with the same request answers the same job.
    pub async fn submit(
        &self,
        request: &JobRequest,
        idempotency_key: Option<&str>,
    ) -> Result<Job, ClientError> {
        let call = self.call(Method::POST, "/v1/jobs").json(request);
        self.json(with_key(call, idempotency_key)).await
    }

    /// What a job would take; nothing is kept.
    pub async fn estimate(&self, request: &JobRequest) -> Result<Estimate, ClientError> {
        self.json(self.call(Method::POST, "/v1/jobs/estimate").json(request)).await
    }

    /// Whether the options of a stream can stand in a request line.
    pub fn fits_query(&self, query: &StreamQuery) -> bool {
        let built = self.call(Method::POST, "/v1/jobs").query(query).build();
        built.is_ok_and(|request| request.url().as_str().len() <= MAX_URL_BYTES)
    }

    /// Streams inputs, one JSON value per line, without holding them in memory.
    pub async fn submit_stream(
        &self,
        query: &StreamQuery,
        lines: impl AsyncRead + Send + Sync + 'static,
        idempotency_key: Option<&str>,
    ) -> Result<Job, ClientError> {
        let call = self
            .call(Method::POST, "/v1/jobs")
            .query(query)
            .header("content-type", "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(ReaderStream::with_capacity(lines, 64 << 10)));
        self.json(with_key(call, idempotency_key)).await
    }

    pub async fn job(&self, id: Uuid) -> Result<Job, ClientError> {
        self.json(self.call(Method::GET, &format!("/v1/jobs/{id}"))).await
    }

    pub async fn jobs(&self, query: &JobsQuery) -> Result<JobPage, ClientError> {
        self.json(self.call(Method::GET, "/v1/jobs").query(query)).await
    }

    pub async fn results(&self, id: Uuid, query: &ResultsQuery) -> Result<ResultPage, ClientError> {
        self.json(self.call(Method::GET, &format!("/v1/jobs/{id}/results")).query(query)).await
    }

    /// All results from `query.after` on, one by one as the server sends them.
    pub async fn results_stream(
        &self,
        id: Uuid,
        query: &ResultsQuery,
    ) -> Result<impl Stream<Item = Result<ItemResult, ClientError>> + use<>, ClientError> {
        let call = self
            .call(Method::GET, &format!("/v1/jobs/{id}/results"))
            .query(query)
            .header("accept", "application/x-ndjson");
        let body = self.send(call).await?.bytes_stream().map_err(std::io::Error::other);
        let lines = LinesStream::new(BufReader::new(StreamReader::new(body)).lines());
        Ok(lines.map(|line| {
            let line = line.map_err(|e| ClientError::Broken(e.to_string()))?;
            serde_json::from_str(&line).map_err(|e| ClientError::Broken(format!("{e} in: {line}")))
        }))
    }

    /// The schema that the output of result `seq` satisfies.
    pub async fn result_schema(&self, id: Uuid, seq: i64) -> Result<Value, ClientError> {
        self.json(self.call(Method::GET, &format!("/v1/jobs/{id}/schema")).query(&SchemaQuery { seq })).await
    }

    /// The whole result of a schema job, as text in the format asked for.
    pub async fn export(&self, id: Uuid, query: impl Into<ExportQuery>) -> Result<String, ClientError> {
        let call = self.call(Method::GET, &format!("/v1/jobs/{id}/export")).query(&query.into());
        self.send(call).await?.text().await.map_err(|e| ClientError::Broken(e.to_string()))
    }

    /// The job whenever it changed, as the server tells; ends when the job does, or with the server.
    pub async fn events(
        &self,
        id: Uuid,
    ) -> Result<impl Stream<Item = Result<Job, ClientError>> + use<>, ClientError> {
        let call =
            self.call(Method::GET, &format!("/v1/jobs/{id}/events")).header("accept", "text/event-stream");
        let body = self.send(call).await?.bytes_stream().map_err(std::io::Error::other);
        let lines = LinesStream::new(BufReader::new(StreamReader::new(body)).lines());
        // one line of data per event; names, comments and blank lines carry nothing that a job does not say
        Ok(lines.filter_map(async |line| match line {
            Ok(line) => {
                let data = line.strip_prefix("data:")?.trim_start();
                // of a job that was deleted
                if data == "{}" {
                    return None;
                }
                Some(serde_json::from_str(data).map_err(|e| ClientError::Broken(format!("{e} in: {data}"))))
            }
            Err(e) => Some(Err(ClientError::Broken(e.to_string()))),
        }))
    }

    pub async fn cancel(&self, id: Uuid) -> Result<Job, ClientError> {
        self.json(self.call(Method::POST, &format!("/v1/jobs/{id}/cancel"))).await
    }

    /// Runs failed items again: all, or those that failed with `code`.
    pub async fn retry(&self, id: Uuid, code: Option<Code>) -> Result<Retried, ClientError> {
        self.json(self.call(Method::POST, &format!("/v1/jobs/{id}/retry")).query(&RetryQuery { code })).await
    }

    pub async fn delete(&self, id: Uuid) -> Result<(), ClientError> {
        self.send(self.call(Method::DELETE, &format!("/v1/jobs/{id}"))).await.map(drop)
    }

    pub async fn model_status(&self) -> Result<StatusMap, ClientError> {
        self.json(self.call(Method::GET, "/api/models/status")).await
    }

    pub async fn models(&self) -> Result<ModelList, ClientError> {
        self.json(self.call(Method::GET, "/v1/models")).await
    }

    pub async fn model(&self, name: &str) -> Result<Model, ClientError> {
        self.json(self.call(Method::GET, &format!("/v1/models/{name}"))).await
    }

    pub async fn load(&self, name: &str) -> Result<Model, ClientError> {
        self.json(self.call(Method::POST, &format!("/v1/models/{name}/load"))).await
    }

    pub async fn unload(&self, name: &str) -> Result<Model, ClientError> {
        self.json(self.call(Method::POST, &format!("/v1/models/{name}/unload"))).await
    }

    /// Waits until a model is ready, at most `timeout_s`; a failed load answers at once.
    pub async fn wait(&self, name: &str, timeout_s: f64) -> Result<Model, ClientError> {
        let query = WaitQuery { timeout: Some(timeout_s) };
        self.json(self.call(Method::GET, &format!("/v1/models/{name}/wait")).query(&query)).await
    }

    /// Whether the server can durably accept a job now.
    pub async fn ready(&self) -> Result<Health, ClientError> {
        self.json(self.call(Method::GET, "/readyz")).await
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn json<T: DeserializeOwned>(&self, call: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(call).await?;
        let (url, status) = (response.url().to_string(), response.status().as_u16());
        let text = response.text().await.map_err(|e| ClientError::Broken(e.to_string()))?;
        serde_json::from_str(&text).map_err(|_| ClientError::Unexpected { url, status, text })
    }

    /// Sends; any status but a success becomes an error.
    async fn send(&self, call: RequestBuilder) -> Result<Response, ClientError> {
        let response = call
            .send()
            .await
            .map_err(|source| ClientError::Unreachable { url: self.base.clone(), source })?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(problem(response).await)
    }
}

fn with_key(call: RequestBuilder, key: Option<&str>) -> RequestBuilder {
    match key {
        Some(key) => call.header("idempotency-key", key),
        None => call,
    }
}

async fn problem(response: Response) -> ClientError {
    let (url, status): (String, StatusCode) = (response.url().to_string(), response.status());
    let text = response.text().await.unwrap_or_default();
    match serde_json::from_str(&text) {
        Ok(problem) => ClientError::Problem(Box::new(problem)),
        Err(_) => ClientError::Unexpected { url, status: status.as_u16(), text },
    }
}
