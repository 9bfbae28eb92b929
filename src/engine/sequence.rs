//! One request from its admission to its answer: its tokens, its KV, its place in the grammar.

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::Span;

use super::executor::Executor;
use super::grammar::{Choice, Walk};
use super::handle::{Reply, SequenceId};
use super::kv::{BlockHash, BlockTable, Pool, PrefixHasher};
use super::lookup::{self, Watched};
use super::request::{Branch, Completion, EngineError, Finish, Logprob, News, Request};
use super::scheduler::plan;
use super::scheduler::queue::Ticket;
use crate::domain::usage::Usage;

/// Fixed properties of the executor that sequences depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub block_tokens: usize,
    /// Longest sequence: the context, or the pool if that is smaller.
    pub max_tokens: usize,
}

impl Shape {
    pub(super) fn of(executor: &dyn Executor) -> Self {
        let block_tokens = executor.block_tokens();
        let max_tokens = executor.context_tokens().min(executor.n_blocks() * block_tokens);
        Self { block_tokens, max_tokens }
    }
}

pub(super) struct Sequence {
    pub id: SequenceId,
    pub request: Request,
    pub reply: Reply<Completion>,
    /// Held until the sequence first runs.
    pub place: Option<OwnedSemaphorePermit>,
    /// On whose behalf it runs.
    pub span: Span,
    /// Prompt and answer so far.
    pub tokens: Vec<u32>,
    /// Positions whose K and V are in the cache; the tokens after them are pending.
    pub computed: usize,
    /// Up to here it reads; from here on it decodes. Moves when it is computed again.
    pub prefill_end: usize,
    pub blocks: BlockTable,
    /// Hashes of full blocks, of the part that may be shared.
    pub hashes: Vec<BlockHash>,
    /// Blocks from the start whose content is known to the pool, or that stay private for good.
    pub n_published: usize,
    pub walk: Option<Walk>,
    /// What the next token may be, once computed for this position.
    pub choice: Option<Result<Choice, EngineError>>,
    /// Tokens that may follow, read in this step to be verified. Empty between steps.
    pub draft: Vec<u32>,
    /// A draft that is only compared with what comes.
    pub watched: Option<Watched>,
    pub usage: Usage,
    /// Of the answer's tokens, if they were asked for.
    pub logprobs: Vec<Logprob>,
    /// Choices that the grammar left, if they were asked for.
    pub branches: Vec<Branch>,
    /// Who wants to know of tokens as they come, and how many of the answer's they know.
    news: Option<mpsc::Sender<News>>,
    n_told: usize,
    pub served_at: u64,
    pub is_prepared: bool,
}

/// How a sequence stands after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    GoesOn,
    Ends(Finish),
}

impl Sequence {
    pub(super) fn new(
        id: SequenceId,
        request: Request,
        reply: Reply<Completion>,
        news: Option<mpsc::Sender<News>>,
        place: OwnedSemaphorePermit,
        span: Span,
    ) -> Self {
        let usage = Usage { prompt_tokens: request.prompt.len() as u64, ..Usage::default() };
        Self {
            id,
            tokens: Vec::new(),
            request,
            reply,
            place: Some(place),
            span,
            computed: 0,
            prefill_end: 0,
            blocks: BlockTable::default(),
            hashes: Vec::new(),
            n_published: 0,
            walk: None,
            choice: None,
            draft: Vec::new(),
            watched: None,
            usage,
            logprobs: Vec::new(),
            branches: Vec::new(),
            news,
            n_told: 0,
            served_at: 0,
            is_prepared: false,
        }
    }

    /// Cost is charged once, at the first admission.
    pub(super) fn ticket(&self) -> Ticket {
        let is_new = self.place.is_some();
        let cost = self.request.prompt.len() as u64 + u64::from(self.request.max_tokens);
        Ticket {
            id: self.id,
            priority: self.request.priority,
            group: self.request.group,
            cost: if is_new { cost } else { 0 },
        }
    }

    /// `answer_tokens`: how long its answer is expected to be.
    pub(super) fn as_running(&self, answer_tokens: usize) -> plan::Running {
        plan::Running {
            id: self.id,
            priority: self.request.priority,
            group: self.request.group,
            computed: self.computed,
            pending: self.pending(),
            expected: self.still_expected(answer_tokens),
            blocks: self.blocks.len(),
            unshared_blocks: self.blocks.n_unshared(),
            is_decoding: self.computed >= self.prefill_end,
            served_at: self.served_at,
        }
    }

    /// Without anything from the cache.
    pub(super) fn as_waiting(&self, answer_tokens: usize) -> plan::Waiting {
        plan::Waiting {
            id: self.id,
            priority: self.request.priority,
            group: self.request.group,
            tokens: self.tokens.len(),
            hit_tokens: 0,
            revived_blocks: 0,
            expected: self.still_expected(answer_tokens),
        }
    }

    fn still_expected(&self, answer_tokens: usize) -> usize {
        answer_tokens.min(self.request.max_tokens as usize).saturating_sub(self.n_output())
    }

    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub(super) fn n_output(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }

    /// First look at a request that may start soon: copies the prompt, starts the grammar and takes what the
    /// grammar forces from the outset, which is then read together with the prompt.
    pub(super) fn prepare(
        &mut self,
        shape: &Shape,
        hasher: &PrefixHasher,
        jump_forward: bool,
    ) -> Result<Progress, EngineError> {
        self.is_prepared = true;
        self.tokens = self.request.prompt.to_vec();
        self.walk = self.request.grammar.as_ref().map(super::grammar::Grammar::start);
        let progress = self.settle(shape, jump_forward)?;
        hasher.extend(&mut self.hashes, self.request.adapter, &self.tokens, shape.block_tokens);
        Ok(progress)
    }

    /// Full blocks that may come from the cache: at least one token is left to compute.
    pub(super) fn shareable_hashes(&self, shape: &Shape) -> &[BlockHash] {
        let n = self.hashes.len().min(self.tokens.len().saturating_sub(1) / shape.block_tokens);
        &self.hashes[..n]
    }

    /// Appends a chosen token and what the grammar forces after it.
    pub(super) fn push(
        &mut self,
        token: u32,
        shape: &Shape,
        jump_forward: bool,
    ) -> Result<Progress, EngineError> {
        let is_end = self.walk.as_ref().is_some_and(|walk| walk.is_end(token));
        if is_end || self.request.stop.contains(&token) {
            return Ok(Progress::Ends(Finish::Stop));
        }
        self.tokens.push(token);
        self.usage.output_tokens += 1;
        if let Some(walk) = &mut self.walk {
            walk.accept(token)?;
        }
        self.settle(shape, jump_forward)
    }

    /// Tokens that the answer may still have.
    fn room(&self, shape: &Shape) -> usize {
        (self.request.max_tokens as usize)
            .saturating_sub(self.n_output())
            .min(shape.max_tokens.saturating_sub(self.tokens.len()))
    }

    fn settle(&mut self, shape: &Shape, jump_forward: bool) -> Result<Progress, EngineError> {
        let room = self.room(shape);
        // a forced token has no row of logits
        let jump_forward = jump_forward && self.request.logprobs.is_none();
        if let Some(walk) = &mut self.walk {
            if walk.is_complete() {
                return Ok(Progress::Ends(Finish::Stop));
            }
            if jump_forward && room > 0 {
                let forced = walk.take_forced()?;
                let is_complete = walk.is_complete();
                let n_taken = forced.len().min(room);
                self.tokens.extend_from_slice(&forced[..n_taken]);
                self.usage.output_tokens += n_taken as u64;
                self.usage.forced_tokens += n_taken as u64;
                if n_taken == forced.len() && is_complete {
                    return Ok(Progress::Ends(Finish::Stop));
                }
                return Ok(if n_taken == room { Progress::Ends(Finish::Length) } else { Progress::GoesOn });
            }
        }
        Ok(if room == 0 { Progress::Ends(Finish::Length) } else { Progress::GoesOn })
    }

    /// Looks up a draft of up to `max` tokens that the grammar allows and that needs no more than
    /// `spare_blocks` new blocks. The token after the draft is sampled, so it leaves room for that.
    pub(super) fn take_draft(&mut self, max: usize, spare_blocks: usize, shape: &Shape) {
        let held = (self.blocks.len() + spare_blocks) * shape.block_tokens;
        let max = max.min(held.saturating_sub(self.tokens.len())).min(self.room(shape).saturating_sub(1));
        self.draft = lookup::propose(&self.tokens, max);
        if let Some(walk) = &mut self.walk {
            let n_allowed = walk.n_allowed(&self.draft);
            self.draft.truncate(n_allowed);
        }
    }

    /// Looks up a draft to compare with what comes, unless one is being watched.
    pub(super) fn watch_draft(&mut self, shape: &Shape) {
        if self.watched.is_none() {
            self.take_draft(lookup::MAX_DRAFT, usize::MAX / shape.block_tokens / 2, shape);
            if !self.draft.is_empty() {
                self.watched = Some(Watched::new(self.tokens.len(), &self.draft));
            }
            self.draft.clear();
        }
    }

    /// Of a watched draft about which all is known: how many of its tokens came true, and how many it had.
    pub(super) fn judge_watched(&mut self) -> Option<(usize, usize)> {
        let verdict = self.watched.as_ref()?.verdict(&self.tokens)?;
        self.watched = None;
        Some(verdict)
    }

    /// Takes what the cache has and blocks of its own for the rest. The plan has counted both.
    pub(super) fn take_cached(&mut self, pool: &Pool, shape: &Shape) {
        let n_shareable = self.shareable_hashes(shape).len();
        for index in 0..n_shareable {
            let tokens = &self.tokens[index * shape.block_tokens..(index + 1) * shape.block_tokens];
            let Some(block) = pool.share(self.hashes[index], tokens) else { break };
            self.blocks.push(block);
        }
        self.computed = self.blocks.len() * shape.block_tokens;
        self.n_published = self.blocks.len();
        self.prefill_end = self.tokens.len();
    }

    /// Makes room for the positions up to `end`.
    pub(super) fn grow(&mut self, pool: &Pool, end: usize, shape: &Shape) {
        while self.blocks.len() < end.div_ceil(shape.block_tokens) {
            self.blocks.push(pool.allocate().expect("the plan gives out only blocks that are there"));
        }
    }

    /// Makes full, computed blocks known to others.
    pub(super) fn publish(&mut self, pool: &Pool, shape: &Shape) -> std::ops::Range<usize> {
        let first = self.n_published;
        let end = (self.computed / shape.block_tokens).min(self.hashes.len()).max(first);
        for index in first..end {
            let tokens = &self.tokens[index * shape.block_tokens..(index + 1) * shape.block_tokens];
            pool.publish(self.blocks.get(index), self.hashes[index], tokens);
        }
        self.n_published = end;
        first..end
    }

    /// Lets go of the KV. Tokens and grammar stay, so it can be computed again.
    pub(super) fn release(&mut self) {
        self.blocks.clear();
        self.computed = 0;
        self.n_published = 0;
    }

    /// Tells of the tokens that have come since the last time. A listener that is gone is no matter: its
    /// going has cancelled the sequence.
    pub(super) fn tell(&mut self) {
        let Some(news) = &self.news else { return };
        let tokens = self.tokens.get(self.request.prompt.len() + self.n_told..).unwrap_or_default();
        if tokens.is_empty() {
            return;
        }
        let tokens = tokens.to_vec();
        let logprobs = self.logprobs.get(self.n_told..).unwrap_or_default().to_vec();
        self.n_told += tokens.len();
        let _ = news.try_send(News { tokens, logprobs, usage: self.usage });
    }

    pub(super) fn into_completion(self, finish: Finish) -> (Reply<Completion>, Completion) {
        let tokens = self.tokens[self.request.prompt.len()..].to_vec();
        let Self { reply, usage, logprobs, branches, .. } = self;
        (reply, Completion { tokens, finish, usage, logprobs, branches })
    }
}
