//! `adit stream`: lines in, answers out, in the order of the lines and as soon as they are there.
//!
//! Lines are gathered into jobs of some hundred, so that a pipe of any length goes through in bounded memory
//! and each job's answers are durable on the server. A submission has a key of its own: sent again after a
//! broken connection it is the same job. A job that the server refuses is halved until the lines are found
//! that are at fault; the others are answered.

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::StreamExt;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::args::{Global, StreamArguments};
use super::ask;
use super::exit::{Exit, Stop, seconds};
use super::output::connect;
use crate::client::{Client, ClientError};
use crate::domain::code::Code;
use crate::domain::item::OutcomeKind;
use crate::wire::job::Usage;
use crate::wire::result::{ItemError, ItemResult, ResultsQuery};
use crate::wire::submit::{Format, JobRequest, Source};

/// Between two tries to reach a server.
const RETRY: Duration = Duration::from_millis(500);

/// One line of the output.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// Of the input, from 1.
    line: u64,
    /// Absent of a line that the server refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Uuid>,
    outcome: OutcomeKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// A line of the input that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    number: u64,
    text: String,
}

/// What became of some lines, in their order.
enum Sent {
    Job { id: Uuid, lines: Vec<u64> },
    Refused { line: u64, error: ItemError },
}

pub async fn run(global: &Global, args: &StreamArguments) -> Result<Exit> {
    if args.task.reads_catalog() {
        let cause = format!("--task {}: a stream is of texts; submit a schema with `adit submit`", args.task);
        return Err(Stop::new(Exit::Usage, cause).into());
    }
    let patience = seconds("--patience", args.patience)?;
    let client = connect(global)?;
    let empty = Source { format: Format::Jsonl, text: String::new(), dialect: None, lenient: false };
    let request = ask::request(args.task, &args.ask, empty)?;
    let (lines, gathered) = mpsc::channel(args.lines as usize);
    let (sender, sent) = mpsc::channel(args.in_flight as usize);
    let reading = read(tokio::io::stdin(), lines);
    let linger = Duration::from_millis(args.linger);
    let submitter = Submitter { client: client.clone(), request, patience };
    let submitting = submitter.run(gathered, args.lines as usize, linger, sender);
    let mut writer = Writer::new(client.clone(), patience);
    let written = tokio::select! {
        // all three: the first error ends the stream
        outcome = async { tokio::try_join!(reading, submitting, writer.run(sent)) } => outcome.map(drop),
        _ = tokio::signal::ctrl_c() => Err(Stop::new(Exit::Failed, "interrupted").into()),
    };
    writer.progress.finish_and_clear();
    if let Err(error) = written {
        if let Some(job) = writer.current {
            eprintln!(
                "answers of job {job} from line {} on were not written; `adit results` has them",
                writer.next_line
            );
        }
        return Err(error);
    }
    eprintln!("{}", writer.summary());
    Ok(if writer.succeeded == writer.written { Exit::Done } else { Exit::NotAllSucceeded })
}

/// Passes lines on as they come; waits while there is no room.
async fn read(input: impl AsyncRead + Unpin, lines: mpsc::Sender<Line>) -> Result<()> {
    let mut input = BufReader::new(input).lines();
    let mut number = 0;
    while let Some(text) = input.next_line().await? {
        number += 1;
        if !text.trim().is_empty() && lines.send(Line { number, text }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Up to `max` lines: the first as soon as it comes, then what comes within `linger`. Empty at the end.
async fn gather(lines: &mut mpsc::Receiver<Line>, max: usize, linger: Duration) -> Vec<Line> {
    let Some(first) = lines.recv().await else { return Vec::new() };
    let mut gathered = vec![first];
    let until = tokio::time::Instant::now() + linger;
    while gathered.len() < max {
        match tokio::time::timeout_at(until, lines.recv()).await {
            Ok(Some(line)) => gathered.push(line),
            Ok(None) | Err(_) => break,
        }
    }
    gathered
}

struct Submitter {
    client: Client,
    request: JobRequest,
    patience: Duration,
}

impl Submitter {
    async fn run(
        mut self,
        mut lines: mpsc::Receiver<Line>,
        max: usize,
        linger: Duration,
        sent: mpsc::Sender<Sent>,
    ) -> Result<()> {
        loop {
            let batch = gather(&mut lines, max, linger).await;
            if batch.is_empty() {
                return Ok(());
            }
            // a part that is refused is halved, the first half first
            let mut parts = VecDeque::from([batch]);
            while let Some(mut part) = parts.pop_front() {
                let outcome = match self.submit(&part).await {
                    Ok(id) => Sent::Job { id, lines: part.iter().map(|line| line.number).collect() },
                    Err(error) => {
                        let Some(cause) = refusal(&error) else { return Err(error.into()) };
                        if part.len() > 1 {
                            let rest = part.split_off(part.len() / 2);
                            parts.push_front(rest);
                            parts.push_front(part);
                            continue;
                        }
                        Sent::Refused { line: part[0].number, error: placed(cause, part[0].number) }
                    }
                };
                if sent.send(outcome).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    async fn submit(&mut self, part: &[Line]) -> Result<Uuid, ClientError> {
        let text: Vec<&str> = part.iter().map(|line| line.text.as_str()).collect();
        if let Some(source) = &mut self.request.source {
            source.text = text.join("\n");
        }
        let key = Uuid::new_v4().to_string();
        let begun = Instant::now();
        loop {
            match self.client.submit(&self.request, Some(&key)).await {
                Err(error) if is_passing(&error) && begun.elapsed() < self.patience => {
                    tokio::time::sleep(RETRY).await;
                }
                outcome => return outcome.map(|job| job.id),
            }
        }
    }
}

/// What the server has against the input itself; nothing if another input would fare no better.
fn refusal(error: &ClientError) -> Option<ItemError> {
    let problem = error.problem()?;
    let is_about_inputs = matches!(problem.code, Code::InvalidInput | Code::TooLarge);
    is_about_inputs.then(|| ItemError { code: problem.code, message: problem.detail.clone() })
}

/// The server counts the lines of what it was sent, which was one.
fn placed(mut cause: ItemError, line: u64) -> ItemError {
    if let Some(rest) = cause.message.strip_prefix("line 1") {
        cause.message = format!("line {line}{rest}");
    }
    cause
}

/// Whether trying again can help.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Broken(_) => true,
        ClientError::Problem(problem) => matches!(problem.code.status(), 429 | 503),
        ClientError::Unexpected { status, .. } => matches!(status, 429 | 502 | 503 | 504),
        ClientError::Url { .. } => false,
    }
}

struct Writer {
    client: Client,
    patience: Duration,
    /// The job whose answers are being written, and the line they have come to.
    current: Option<Uuid>,
    next_line: u64,
    written: u64,
    succeeded: u64,
    begun: Instant,
    progress: ProgressBar,
}

impl Writer {
    fn new(client: Client, patience: Duration) -> Self {
        let progress = ProgressBar::new_spinner();
        Self {
            client,
            patience,
            current: None,
            next_line: 1,
            written: 0,
            succeeded: 0,
            begun: Instant::now(),
            progress,
        }
    }

    async fn run(&mut self, mut sent: mpsc::Receiver<Sent>) -> Result<()> {
        while let Some(part) = sent.recv().await {
            match part {
                Sent::Refused { line, error } => {
                    let answer = Answer {
                        line,
                        job: None,
                        outcome: OutcomeKind::Failed,
                        output: None,
                        error: Some(&error),
                        usage: None,
                    };
                    self.write(&answer)?;
                }
                Sent::Job { id, lines } => self.follow(id, &lines).await?,
            }
        }
        Ok(())
    }

    /// Writes a job's answers as they come, in order; takes up a broken stream behind the last one.
    async fn follow(&mut self, id: Uuid, lines: &[u64]) -> Result<()> {
        self.current = Some(id);
        let mut done = 0;
        let mut heard = Instant::now();
        while done < lines.len() {
            let after = done.checked_sub(1).map(|seq| seq as i64);
            let query = ResultsQuery { after, follow: Some(true), ..ResultsQuery::default() };
            let mut failure = None;
            match self.client.results_stream(id, &query).await {
                Ok(results) => {
                    let mut results = std::pin::pin!(results);
                    while let Some(result) = results.next().await {
                        match result {
                            Ok(result) => {
                                self.next_line = lines[done];
                                self.write(&answer(id, lines[done], &result))?;
                                done += 1;
                                heard = Instant::now();
                            }
                            Err(error) => failure = Some(error),
                        }
                        if failure.is_some() || done == lines.len() {
                            break;
                        }
                    }
                }
                Err(error) => failure = Some(error),
            }
            match failure {
                Some(error) if !is_passing(&error) || heard.elapsed() > self.patience => {
                    return Err(error.into());
                }
                _ if done < lines.len() => tokio::time::sleep(RETRY).await,
                _ => {}
            }
        }
        self.current = None;
        Ok(())
    }

    fn write(&mut self, answer: &Answer) -> Result<()> {
        let mut text = serde_json::to_vec(answer)?;
        text.push(b'\n');
        let mut out = std::io::stdout().lock();
        out.write_all(&text)?;
        out.flush()?;
        self.written += 1;
        self.succeeded += u64::from(answer.outcome == OutcomeKind::Succeeded);
        self.progress.set_message(self.summary());
        self.progress.tick();
        Ok(())
    }

    fn summary(&self) -> String {
        let rate = self.written as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
        format!("{} lines, {} succeeded, {rate:.1} lines/s", self.written, self.succeeded)
    }
}

fn answer(id: Uuid, line: u64, result: &ItemResult) -> Answer<'_> {
    Answer {
        line,
        job: Some(id),
        outcome: result.outcome,
        output: result.output.as_ref(),
        error: result.error.as_ref(),
        usage: Some(result.usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_gathered_until_there_are_enough_or_none_come() {
        let (sender, mut lines) = mpsc::channel(16);
        read(&b"a\n\n  \nb\nc\nd\n"[..], sender).await.unwrap();
        let linger = Duration::from_secs(5);
        let first = gather(&mut lines, 3, linger).await;
        let numbers: Vec<u64> = first.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [1, 4, 5], "blank lines are counted and left out");
        assert_eq!(gather(&mut lines, 3, linger).await, [Line { number: 6, text: "d".into() }]);
        assert!(gather(&mut lines, 3, linger).await.is_empty(), "the end");
    }

    #[tokio::test]
    async fn a_line_does_not_wait_for_others_for_long() {
        let (sender, mut lines) = mpsc::channel(16);
        sender.send(Line { number: 1, text: "a".into() }).await.unwrap();
        assert_eq!(gather(&mut lines, 3, Duration::from_millis(5)).await.len(), 1);
        drop(sender);
    }
}
