//! Our side: the whole workload as one job, through the same door as any client.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt;
use serde_json::{Value, json};

use super::figures::{self, Ended, Run};
use super::workload::Workload;
use crate::client::Client;
use crate::domain::item::OutcomeKind;
use crate::domain::job::{Class, JobState};
use crate::domain::task::Task;
use crate::wire::result::{ItemResult, ResultsQuery};
use crate::wire::submit::{Generation, JobRequest};

/// How often a job is looked at: often enough not to blur a run of seconds.
const LOOK: Duration = Duration::from_millis(25);

/// The workload as a `chat` job: these messages are what the model reads, with nothing added to them.
pub fn request(workload: &Workload, model: Option<&str>) -> JobRequest {
    let of_all = match &workload.schemas[..] {
        [one] => Some(one.clone()),
        _ => None,
    };
    let input = |item: &super::workload::Item| {
        let mut input = json!({"messages": item.messages, "max_tokens": item.max_tokens});
        if of_all.is_none() {
            input["schema"] = workload.schemas[item.schema].clone();
        }
        input
    };
    let inputs = workload.items.iter().map(input).collect();
    JobRequest {
        task: Task::Chat,
        model: model.map(Into::into),
        schema: of_all,
        instructions: None,
        generation: Generation::default(),
        class: Class::Normal,
        weight: None,
        expires_in_s: None,
        review_below: None,
        inputs: Some(inputs),
        source: None,
    }
}

/// One run. The clock runs from the submission's first byte to the last result that was read back.
pub async fn measure(client: &Client, workload: &Workload, model: Option<&str>) -> Result<Run> {
    let (ended, wall_s) = job(client, &request(workload, model)).await?;
    figures::judge(workload, &ended, wall_s)
}

/// One run of any job. Its answers were checked against their schemas by the server.
pub async fn measure_job(client: &Client, request: &JobRequest) -> Result<Run> {
    let (ended, wall_s) = job(client, request).await?;
    Ok(figures::sum(&ended, wall_s, |_, _| true))
}

async fn job(client: &Client, request: &JobRequest) -> Result<(Vec<Ended>, f64)> {
    let begun = Instant::now();
    let submitted = client.submit(request, None).await?;
    let job = loop {
        let job = client.job(submitted.id).await?;
        if job.state.is_final() {
            break job;
        }
        tokio::time::sleep(LOOK).await;
    };
    if job.state != JobState::Completed {
        bail!("job {} ended {}", job.id, job.state.as_str());
    }
    let mut results = Vec::new();
    let mut lines = std::pin::pin!(client.results_stream(job.id, &ResultsQuery::default()).await?);
    while let Some(line) = lines.next().await {
        results.push(line?);
    }
    let wall_s = begun.elapsed().as_secs_f64();
    if results.len() as i64 != job.counts.total {
        bail!("job {} has {} items and {} results", job.id, job.counts.total, results.len());
    }
    results.sort_by_key(|result| result.seq);
    Ok((results.iter().map(ended).collect(), wall_s))
}

fn ended(result: &ItemResult) -> Ended {
    let text = |output: &Value| match output.get("content").and_then(Value::as_str) {
        Some(content) => content.to_string(),
        None => output.to_string(),
    };
    let word = || match (&result.error, result.outcome) {
        (Some(error), _) => error.code.to_string(),
        (None, outcome) => outcome.as_str().to_string(),
    };
    let answer = match (&result.output, result.outcome) {
        (Some(output), OutcomeKind::Succeeded) => Ok(text(output)),
        _ => Err(word()),
    };
    Ended {
        answer,
        prompt_tokens: result.usage.prompt_tokens,
        cached_tokens: result.usage.prefix_hit_tokens,
        output_tokens: result.usage.output_tokens,
        forced_tokens: result.usage.forced_tokens,
        latency_ms: result.latency_ms as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::workload::{Shape, workload};
    use crate::domain::job::JobSpec;
    use crate::domain::message::Message;
    use crate::extract::{pipeline, prompt};

    /// What a worker renders for the model is, message by message and schema by schema, what the peer is sent.
    #[test]
    fn our_model_reads_the_workloads_messages_and_nothing_else() {
        for shape in [Shape::Head, Shape::Mixed] {
            let workload = workload(shape, 32, 3);
            let request = request(&workload, None);
            let spec = JobSpec {
                task: request.task,
                model: None,
                schema: request.schema.clone(),
                instructions: None,
                generation: request.generation.into(),
                review_below: None,
            };
            for (item, input) in workload.items.iter().zip(request.inputs.unwrap()) {
                let draft = pipeline::input_item(&spec, input).unwrap();
                let prompt = prompt::prompt(&spec, None, &draft).unwrap();
                let sent: Vec<Message> = item.messages.clone();
                assert_eq!(prompt.messages, sent);
                assert_eq!(prompt.schema.as_ref(), Some(&workload.schemas[item.schema]));
                assert_eq!(prompt.max_tokens, item.max_tokens);
            }
        }
    }
}
