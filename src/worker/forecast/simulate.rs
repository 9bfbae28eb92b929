//! When each job will end: the queue and the engines played forward as fluids.
//!
//! What is modelled is what the service does. Work is claimed model by model, a bundle at a time, in the order of
//! class, virtual time and age, with small express bundles for jobs of which nothing is in hand
//! (`queue::backend`, `store::claim`). What is in hand shares the engine: a higher class first, and within it each
//! job the same number of tokens, within the bounds on sequences and KV. With k sequences of which each takes S
//! steps and R rows, a step lasts `step_s + row_s · kR/S` and k/S items end in it. A stage begins when all items
//! of the one before have ended.
//!
//! Not modelled: items that will fail and be tried again, and chat completions, which pass the queue by.

use super::capacity::{budget, usual_item};
use super::world::{Item, Part, World};

/// Turns after which it is given up: nothing is told rather than something false.
const MAX_TURNS: usize = 50_000;
/// How much answers of a kind differ in length, as a share of the mean: the longest ends the job.
const VARIATION: f64 = 0.25;
/// Less than this of an item is none.
const NOTHING: f64 = 1e-6;
/// Virtual time of one item of weight 1 (percent), as the store counts it.
const VTIME_OF_ITEM: f64 = 100_000.0;

/// What a simulation shows, in the order of `world.jobs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Played {
    /// Seconds until the end of each stage of each job; `None` where it has none that could be told.
    pub ends: Vec<Vec<Option<f64>>>,
    /// Items per second, now, of each part of the stage at work.
    pub rates: Vec<Vec<f64>>,
}

pub fn simulate(world: &World) -> Played {
    let mut play = Play::new(world);
    let mut first =
        world.jobs.iter().map(|job| vec![0.0; job.stages.first().map_or(0, Vec::len)]).collect::<Vec<_>>();
    for turn in 0..MAX_TURNS {
        play.claim();
        let rates = play.rates();
        if turn == 0 {
            for (flow, rate) in play.flows.iter().zip(&rates).filter(|(flow, _)| flow.stage == 0) {
                first[flow.job][flow.part] = *rate;
            }
        }
        if play.is_over() || !play.pass(&rates) {
            break;
        }
    }
    Played { ends: play.tell(), rates: first }
}

/// One stage of a job at one model, at work.
struct Flow {
    job: usize,
    stage: usize,
    part: usize,
    lane: usize,
    item: Item,
    waiting: f64,
    vtime: i64,
    /// Left of the chunk that is next in line.
    chunk: f64,
    /// Claimed, by claim, the oldest first.
    hand: Vec<(i64, f64)>,
    /// Most that were in hand since the last claim: as many sequences may run to the end.
    peak: f64,
    /// Seconds that the longest of the last answers takes beyond the mean, once all others have ended.
    tail_s: Option<f64>,
}

impl Flow {
    fn is_over(&self) -> bool {
        self.waiting <= NOTHING && self.hand.is_empty() && self.tail_s.is_some_and(|left| left <= 1e-9)
    }

    fn in_hand(&self) -> f64 {
        self.hand.iter().map(|(_, items)| items).sum()
    }
}

struct Play<'a> {
    world: &'a World,
    now: f64,
    flows: Vec<Flow>,
    claims: i64,
    /// By engine: what its last step took.
    step_s: Vec<f64>,
    /// Jobs that are yet to come, the next one last.
    coming: Vec<usize>,
    /// By job: the stage at work.
    stage: Vec<usize>,
    ends: Vec<Vec<Option<f64>>>,
    /// By lane: items of a bundle.
    budget: Vec<f64>,
    /// By lane: what an item of unknown size is taken for, in this lane's engine.
    usual: Vec<Option<Item>>,
}

impl<'a> Play<'a> {
    fn new(world: &'a World) -> Self {
        let usual: Vec<Option<Item>> =
            world.lanes.iter().map(|lane| usual_item(world, lane.engine)).collect();
        let budget = (0..world.lanes.len()).map(|lane| budget(world, lane, usual[lane])).collect();
        let ends = world.jobs.iter().map(|job| vec![None; job.stages.len()]).collect();
        let mut play = Self {
            world,
            now: 0.0,
            flows: Vec::new(),
            // beyond every time of a claim
            claims: i64::MAX / 2,
            step_s: vec![0.0; world.engines.len()],
            coming: Vec::new(),
            stage: vec![0; world.jobs.len()],
            ends,
            budget,
            usual,
        };
        for (at, job) in world.jobs.iter().enumerate() {
            if job.arrives_s <= 0.0 {
                play.begin_stage(at, true);
            } else {
                play.coming.push(at);
            }
        }
        let at = |job: &usize| world.jobs[*job].arrives_s;
        play.coming.sort_by(|a, b| at(b).total_cmp(&at(a)));
        play
    }

    /// Nothing is left of the jobs that are there.
    fn is_over(&self) -> bool {
        !self.flows.iter().any(|flow| self.world.jobs[flow.job].arrives_s <= 0.0)
    }

    /// Makes the flows of a job's stage; stages without items end at once.
    fn begin_stage(&mut self, job: usize, is_first: bool) {
        let world = self.world;
        while let Some(parts) = world.jobs[job].stages.get(self.stage[job]) {
            for (at, part) in parts.iter().enumerate().filter(|(_, part)| part.open() > NOTHING) {
                let flow = self.flow(job, at, part, is_first);
                self.flows.push(flow);
            }
            if self.flows.iter().any(|flow| flow.job == job) {
                return;
            }
            self.ends[job][self.stage[job]] = Some(self.now);
            self.stage[job] += 1;
        }
    }

    fn flow(&self, job: usize, at: usize, part: &Part, is_first: bool) -> Flow {
        // a stage joins where the queue of its model and class stands
        let class = self.world.jobs[job].class;
        let joins = || {
            let queue = self.flows.iter().filter(|flow| flow.lane == part.lane && flow.waiting > NOTHING);
            queue.filter(|flow| self.class(flow) == class).map(|flow| flow.vtime).min().unwrap_or(0)
        };
        let vtime = part.vtime.filter(|_| is_first).unwrap_or_else(joins);
        // the simulation goes on with something, but tells nothing of a job whose work is unknown
        let something = Item { rows: 1.0, steps: 1.0, held: 1.0, charge: 1.0 };
        let item = part.item.or(self.usual[part.lane]).unwrap_or(something);
        let chunk = if part.chunk > 0.0 { part.chunk } else { self.world.claims.chunk_items };
        Flow {
            job,
            stage: self.stage[job],
            part: at,
            lane: part.lane,
            item,
            waiting: part.waiting,
            vtime,
            chunk: chunk.min(part.waiting),
            hand: if part.running > NOTHING { hand(part) } else { Vec::new() },
            peak: part.sequences(),
            tail_s: None,
        }
    }

    /// The ends, up to the first stage of each job whose work is not known.
    fn tell(mut self) -> Vec<Vec<Option<f64>>> {
        for (job, ends) in self.world.jobs.iter().zip(&mut self.ends) {
            let is_known = |part: &Part| part.open() <= NOTHING || part.item.is_some();
            let known = job.stages.iter().take_while(|parts| parts.iter().all(is_known)).count();
            ends[known..].fill(None);
        }
        self.ends
    }

    fn class(&self, flow: &Flow) -> u8 {
        self.world.jobs[flow.job].class
    }

    fn is_ready(&self, lane: usize) -> bool {
        self.world.lanes[lane].ready_in_s.is_some_and(|at| at <= self.now + 1e-9)
    }

    /// Claims until every model has in hand what it may have: so many bundles, and one more that is an express.
    fn claim(&mut self) {
        let allowed = self.world.claims.in_hand.max(1.0) as usize;
        for lane in 0..self.world.lanes.len() {
            if !self.is_ready(lane) {
                continue;
            }
            while self.claims_of(lane) < allowed && self.take_bundle(lane) {}
            if self.claims_of(lane) == allowed {
                self.take_express(lane);
            }
        }
    }

    /// Claims in hand of a lane.
    fn claims_of(&self, lane: usize) -> usize {
        let of_lane = self.flows.iter().filter(|flow| flow.lane == lane);
        let mut claims: Vec<i64> =
            of_lane.flat_map(|flow| flow.hand.iter().map(|(claim, _)| *claim)).collect();
        claims.sort_unstable();
        claims.dedup();
        claims.len()
    }

    /// The flow whose chunk is first in line, of those that `may` be.
    fn first(&self, lane: usize, may: impl Fn(&Flow) -> bool) -> Option<usize> {
        let waits = |flow: &Flow| flow.lane == lane && flow.waiting > NOTHING && may(flow);
        let key = |at: &usize| {
            let flow = &self.flows[*at];
            (std::cmp::Reverse(self.class(flow)), flow.vtime, flow.job)
        };
        (0..self.flows.len()).filter(|at| waits(&self.flows[*at])).min_by_key(key)
    }

    fn take_bundle(&mut self, lane: usize) -> bool {
        let budget = self.budget[lane];
        let mut taken = 0.0;
        self.claims += 1;
        while taken < budget {
            let Some(at) = self.first(lane, |_| true) else { break };
            let whole = self.flows[at].chunk;
            // only a first chunk is cut
            let items = if taken == 0.0 && whole > 1.5 * budget { budget } else { whole };
            self.take(at, items);
            taken += items;
        }
        taken > 0.0
    }

    /// Jobs that are level with the head of the queue and have nothing in hand.
    fn take_express(&mut self, lane: usize) {
        let Some(head) = self.first(lane, |_| true) else { return };
        let level = (self.class(&self.flows[head]), self.flows[head].vtime);
        let budget = self.world.claims.min_items;
        let (mut taken, claim) = (0.0, self.claims + 1);
        self.claims = claim;
        while taken < budget {
            let may = |flow: &Flow| {
                flow.hand.iter().all(|(of, _)| *of == claim) && (self.class(flow), flow.vtime) == level
            };
            let Some(at) = self.first(lane, may) else { return };
            let whole = self.flows[at].chunk;
            let items = if taken == 0.0 && whole > 1.5 * budget { budget } else { whole };
            self.take(at, items);
            taken += items;
        }
    }

    fn take(&mut self, at: usize, items: f64) {
        let (weight, chunk_items) =
            (self.world.jobs[self.flows[at].job].weight, self.world.claims.chunk_items);
        let claim = self.claims;
        let flow = &mut self.flows[at];
        let items = items.min(flow.waiting);
        // a flow that drains has fewer sequences than at its last claim
        flow.peak = flow.peak.min(flow.in_hand().ceil()) + items;
        flow.waiting -= items;
        match flow.hand.last_mut() {
            Some((of, held)) if *of == claim => *held += items,
            _ => flow.hand.push((claim, items)),
        }
        flow.vtime += (items * VTIME_OF_ITEM / weight) as i64;
        flow.chunk = if flow.chunk - items > NOTHING { flow.chunk - items } else { chunk_items };
        flow.chunk = flow.chunk.min(flow.waiting);
    }

    /// Items per second of each flow.
    fn rates(&mut self) -> Vec<f64> {
        let mut rates = vec![0.0; self.flows.len()];
        for (number, engine) in self.world.engines.iter().enumerate() {
            let Some(cost) = engine.cost else { continue };
            let runs = |flow: &Flow| {
                self.world.lanes[flow.lane].engine == number
                    && !flow.hand.is_empty()
                    && self.is_ready(flow.lane)
            };
            let mut at_work: Vec<usize> = (0..self.flows.len()).filter(|at| runs(&self.flows[*at])).collect();
            at_work.sort_by_key(|at| std::cmp::Reverse(self.class(&self.flows[*at])));
            let mut room = Room { sequences: engine.max_sequences, kv: engine.kv_tokens };
            let mut sequences = vec![0.0; at_work.len()];
            let mut from = 0;
            while from < at_work.len() {
                let class = self.class(&self.flows[at_work[from]]);
                let same = at_work[from..].iter().take_while(|at| self.class(&self.flows[**at]) == class);
                let until = from + same.count();
                let flows: Vec<&Flow> = at_work[from..until].iter().map(|at| &self.flows[*at]).collect();
                // something of each job that is in hand runs: a lower class ends what it has begun
                fill(&mut room, &flows, &mut sequences[from..until]);
                from = until;
            }
            let per_step =
                |(n, at): (&f64, &usize)| n * self.flows[*at].item.rows / self.flows[*at].item.steps;
            let rows: f64 = sequences.iter().zip(&at_work).map(per_step).sum();
            let slowed = (rows / engine.max_step_rows).max(1.0);
            let step_s = (cost.step_s + cost.row_s * rows / slowed) * slowed;
            if !at_work.is_empty() {
                self.step_s[number] = step_s;
            }
            for (n, at) in sequences.iter().zip(&at_work) {
                rates[*at] = n / (self.flows[*at].item.steps * step_s).max(1e-9);
            }
        }
        rates
    }

    /// Lets time pass to the next event; false if none is to come.
    fn pass(&mut self, rates: &[f64]) -> bool {
        let mut dt = f64::INFINITY;
        if let Some(next) = self.coming.last() {
            dt = (self.world.jobs[*next].arrives_s - self.now).max(0.0);
        }
        for lane in &self.world.lanes {
            if let Some(at) = lane.ready_in_s.filter(|at| *at > self.now + 1e-9) {
                dt = dt.min(at - self.now);
            }
        }
        for (flow, speed) in self.flows.iter().zip(rates).filter(|(_, speed)| **speed > 0.0) {
            dt = dt.min(flow.hand.first().map_or(f64::INFINITY, |(_, items)| items / speed));
        }
        for left in self.flows.iter().filter_map(|flow| flow.tail_s) {
            dt = dt.min(left);
        }
        if !dt.is_finite() {
            return false;
        }
        self.now += dt;
        for (flow, speed) in self.flows.iter_mut().zip(rates) {
            flow.tail_s = flow.tail_s.map(|left| left - dt);
            // the oldest claim first: the engine takes a group's requests by age
            if let Some((_, items)) = flow.hand.first_mut() {
                *items -= speed * dt;
                if *items <= NOTHING {
                    flow.hand.remove(0);
                }
            }
            if flow.waiting <= NOTHING && flow.hand.is_empty() && flow.tail_s.is_none() {
                let engine = self.world.lanes[flow.lane].engine;
                // the largest of k normal draws lies about so many deviations above their mean (0.56 of 2, 1.9 of 20)
                let deviations = 0.75 * flow.peak.max(1.0).ln().powf(0.82);
                flow.tail_s = Some(VARIATION * deviations * flow.item.steps * self.step_s[engine]);
            }
        }
        self.end_stages();
        while let Some(next) = self.coming.pop_if(|next| self.world.jobs[*next].arrives_s <= self.now + 1e-9)
        {
            self.begin_stage(next, false);
        }
        true
    }

    fn end_stages(&mut self) {
        let mut ended: Vec<usize> = Vec::new();
        self.flows.retain(|flow| {
            let is_over = flow.is_over();
            if is_over && !ended.contains(&flow.job) {
                ended.push(flow.job);
            }
            !is_over
        });
        for job in ended {
            if !self.flows.iter().any(|flow| flow.job == job) {
                self.ends[job][self.stage[job]] = Some(self.now);
                self.stage[job] += 1;
                self.begin_stage(job, false);
            }
        }
    }
}

/// A part's claims, with as much in them as is left to do.
fn hand(part: &Part) -> Vec<(i64, f64)> {
    let sequences = part.sequences();
    if sequences <= 0.0 {
        return vec![(0, part.running)];
    }
    let left = |(claim, items): &(i64, f64)| (*claim, items * part.running / sequences);
    part.claims.iter().map(left).filter(|(_, items)| *items > NOTHING).collect()
}

/// What an engine has left for further sequences.
struct Room {
    sequences: f64,
    kv: f64,
}

/// Gives each flow its sequences: as many as let all of them be served the same number of tokens, or as it has items.
fn fill(room: &mut Room, flows: &[&Flow], sequences: &mut [f64]) {
    let share = |level: f64, flow: &Flow| {
        (level * flow.item.steps / flow.item.charge.max(1.0)).min(flow.peak.max(1.0))
    };
    let fits = |level: f64| {
        let n: f64 = flows.iter().map(|flow| share(level, flow)).sum();
        let kv: f64 = flows.iter().map(|flow| share(level, flow) * flow.item.held).sum();
        n <= room.sequences && kv <= room.kv
    };
    let (mut low, mut high) = (0.0, 1e9);
    if fits(high) {
        low = high;
    }
    for _ in 0..60 {
        if high - low < low * 1e-4 {
            break;
        }
        let middle = if low > 0.0 { (low * high).sqrt() } else { high / 1e3 };
        if fits(middle) {
            low = middle
        } else {
            high = middle
        }
        if high < 1e-6 {
            break;
        }
    }
    for (flow, n) in flows.iter().zip(sequences) {
        // one runs in any case: the pool takes the longest prompt that is let in
        *n = share(low, flow).max(if room.sequences > 0.5 { 1e-3 } else { 1e-6 });
        room.sequences = (room.sequences - *n).max(0.0);
        room.kv = (room.kv - *n * flow.item.held).max(0.0);
    }
}
