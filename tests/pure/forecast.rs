//! When jobs end: queue and engine played forward.

use adit::domain::id::JobId;
use adit::worker::forecast::capacity::full_rate;
use adit::worker::forecast::simulate::simulate;
use adit::worker::forecast::world::{Claims, Cost, Engine, Item, Job, Lane, Part, World};
use proptest::prelude::*;

const COST: Cost = Cost { step_s: 0.02, row_s: 0.001 };
const ITEM: Item = Item { rows: 150.0, steps: 50.0, held: 150.0, charge: 500.0 };

fn world(jobs: Vec<Job>) -> World {
    World {
        engines: vec![Engine {
            cost: Some(COST),
            max_sequences: 64.0,
            kv_tokens: 2_400.0,
            max_step_rows: 512.0,
        }],
        lanes: vec![Lane { engine: 0, ready_in_s: Some(0.0) }, Lane { engine: 0, ready_in_s: Some(0.0) }],
        jobs,
        claims: Claims {
            chunk_items: 256.0,
            min_items: 16.0,
            max_items: 4096.0,
            target_s: 15.0,
            in_hand: 2.0,
        },
    }
}

fn part(items: f64) -> Part {
    Part {
        lane: 0,
        waiting: items,
        running: 0.0,
        claims: Vec::new(),
        item: Some(ITEM),
        vtime: None,
        chunk: items.min(256.0),
    }
}

fn job(items: f64) -> Job {
    Job { id: JobId::new(), class: 1, weight: 100.0, arrives_s: 0.0, stages: vec![vec![part(items)]] }
}

fn ends(world: &World) -> Vec<f64> {
    simulate(world).ends.into_iter().map(|ends| ends.last().copied().flatten().unwrap()).collect()
}

/// Seconds in which an engine full of such items serves them.
fn alone(items: f64) -> f64 {
    items / full_rate(&world(Vec::new()).engines[0], &ITEM).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64, within: f64) {
    assert!((found / expected - 1.0).abs() <= within, "{found} instead of {expected}");
}

#[test]
fn a_job_alone_takes_its_work_over_the_rate() {
    // 16 sequences fit, 3 rows each in a step of 20 + 48 ms: an item every 50 / 16 steps
    close(alone(1.0), 50.0 / 16.0 * 0.068, 1e-9);
    close(ends(&world(vec![job(1_000.0)]))[0], alone(1_000.0), 0.03);
    // one item cannot be spread: it takes all its steps, each with its own rows alone
    close(ends(&world(vec![job(1.0)]))[0], 50.0 * 0.023, 0.01);
}

#[test]
fn what_runs_already_counts() {
    let mut half = job(100.0);
    half.stages[0][0] =
        Part { running: 50.0, claims: vec![(1, 50.0)], waiting: 50.0, chunk: 50.0, ..part(0.0) };
    close(ends(&world(vec![half]))[0], alone(100.0), 0.25);
}

#[test]
fn items_that_are_half_done_take_half_the_time() {
    let mut half = job(0.0);
    half.stages[0][0] = Part { running: 5.0, claims: vec![(1, 10.0)], waiting: 0.0, ..part(0.0) };
    let full = Part { running: 10.0, ..half.stages[0][0].clone() };
    let whole = Job { stages: vec![vec![full]], ..half.clone() };
    let (half, whole) = (ends(&world(vec![half]))[0], ends(&world(vec![whole]))[0]);
    assert!(half < 0.75 * whole && half > 0.5 * whole, "the longest answer is not half done: {half} {whole}");
}

#[test]
fn jobs_that_are_expected_take_their_share_from_when_they_come() {
    let quiet = ends(&world(vec![job(200.0)]))[0];
    let coming = |arrives_s: f64| Job { arrives_s, ..job(200.0) };
    let busy = simulate(&world(vec![job(200.0), coming(quiet / 2.0)]));
    let end = busy.ends[0][0].unwrap();
    assert!(end > 1.1 * quiet && end < 2.0 * quiet, "{end} {quiet}");
    close(
        ends(&world(vec![job(200.0)]))[0],
        simulate(&world(vec![job(200.0), coming(1e4)])).ends[0][0].unwrap(),
        1e-9,
    );
    assert!(busy.rates[0][0] > 0.0);
}

#[test]
fn two_equal_jobs_share() {
    let both = ends(&world(vec![job(2_000.0), job(2_000.0)]));
    close(both[0], alone(4_000.0), 0.06);
    close(both[1], alone(4_000.0), 0.01);
}

#[test]
fn a_small_job_does_not_wait_for_a_huge_one() {
    let mut huge = job(100_000.0);
    // well under way: it has two bundles in hand
    huge.stages[0][0] = Part {
        waiting: 100_000.0,
        running: 140.0,
        claims: vec![(1, 70.0), (2, 70.0)],
        vtime: Some(5_000_000),
        ..part(256.0)
    };
    let mut small = job(10.0);
    small.stages[0][0].vtime = Some(5_000_000);
    let world = world(vec![huge, small]);
    let both = ends(&world);
    close(both[0], alone(100_150.0), 0.02);
    // it is served beside it, with the same number of tokens
    assert!(both[1] < 3.0 * alone(20.0), "{} of {}", both[1], alone(20.0));
    assert!(both[1] > alone(10.0));
}

#[test]
fn an_express_that_is_out_delays_the_next_one() {
    let huge = |claims: Vec<(i64, f64)>| {
        let running = claims.iter().map(|(_, items)| items).sum();
        let mut huge = job(10_000.0);
        huge.stages[0][0] = Part { waiting: 10_000.0, running, claims, vtime: Some(0), ..part(256.0) };
        huge
    };
    let small = || {
        let mut small = job(1.0);
        small.stages[0][0].vtime = Some(0);
        small
    };
    let free = ends(&world(vec![huge(vec![(1, 70.0), (2, 70.0)]), small()]))[1];
    let taken = ends(&world(vec![huge(vec![(1, 70.0), (2, 70.0), (3, 16.0)]), small()]))[1];
    assert!(taken > 2.0 * free, "{taken} {free}");
}

#[test]
fn weights_and_classes_come_first() {
    let mut heavy = job(3_000.0);
    heavy.weight = 300.0;
    let both = ends(&world(vec![job(3_000.0), heavy]));
    // three of four claims until it has ended
    assert!(both[1] < 0.8 * both[0], "{both:?}");
    close(both[0], alone(6_000.0), 0.02);

    let mut urgent = job(500.0);
    urgent.class = 2;
    let mut bulk = job(500.0);
    bulk.class = 0;
    let all = ends(&world(vec![bulk, job(500.0), urgent]));
    assert!(all[2] < all[1] && all[1] < all[0], "{all:?}");
    close(all[2], alone(500.0), 0.3);
    close(all[0], alone(1_500.0), 0.02);
}

#[test]
fn later_stages_follow_and_join_the_queue_where_it_stands() {
    let mut chained = job(200.0);
    chained.stages.push(vec![Part { lane: 1, ..part(100.0) }]);
    chained.stages.push(vec![part(300.0)]);
    let ends = simulate(&world(vec![chained])).ends;
    let ends: Vec<f64> = ends[0].iter().map(|end| end.unwrap()).collect();
    close(ends[0], alone(200.0), 0.15);
    close(ends[1] - ends[0], alone(100.0), 0.25);
    close(ends[2] - ends[1], alone(300.0), 0.1);

    // a stage that begins beside a long queue is not served after it
    let mut late = job(10.0);
    late.stages.push(vec![part(10.0)]);
    let mut long = job(50_000.0);
    long.stages[0][0].vtime = Some(0);
    let both = simulate(&world(vec![long, late])).ends;
    assert!(both[1][1].unwrap() < 0.05 * both[0][0].unwrap(), "{both:?}");
}

#[test]
fn a_load_delays_and_a_model_that_is_away_has_no_end() {
    let mut loading = world(vec![job(100.0)]);
    loading.lanes[0].ready_in_s = Some(30.0);
    close(ends(&loading)[0], 30.0 + alone(100.0), 0.25);
    let mut away = world(vec![job(100.0), job(100.0)]);
    away.jobs[1].stages[0][0].lane = 1;
    away.lanes[0].ready_in_s = None;
    let found = simulate(&away).ends;
    assert_eq!(found[0], [None]);
    close(found[1][0].unwrap(), alone(100.0), 0.25);
}

#[test]
fn what_is_not_known_is_not_told() {
    let mut unmeasured = world(vec![job(10.0)]);
    unmeasured.engines[0].cost = None;
    assert_eq!(simulate(&unmeasured).ends, [[None]]);
    // a neighbour of unknown size is taken for a usual one, and its own end is not told
    let mut strange = job(100.0);
    strange.stages[0][0].item = None;
    let found = simulate(&world(vec![strange, job(100.0)])).ends;
    assert_eq!(found[0], [None]);
    assert!(found[1][0].unwrap() > alone(110.0));
    // of a job whose later stage is unknown, the first one's end is
    let mut partly = job(100.0);
    partly.stages.push(vec![Part { item: None, ..part(5.0) }]);
    let found = simulate(&world(vec![partly])).ends;
    assert!(found[0][0].is_some() && found[0][1].is_none(), "{found:?}");
}

#[test]
fn a_long_queue_is_played_in_bounded_time() {
    let jobs: Vec<Job> = (0..200).map(|at| job(if at == 0 { 1e6 } else { 300.0 + f64::from(at) })).collect();
    let began = std::time::Instant::now();
    let all = ends(&world(jobs));
    println!("200 jobs, one of a million items: {:.0?}", began.elapsed());
    close(all.iter().copied().fold(0.0, f64::max), alone(1e6 + 199.0 * 400.0), 0.1);
}

fn some_jobs() -> impl Strategy<Value = Vec<Job>> {
    let one = (1.0..800.0_f64, 0_u8..3, 1_u32..10, 0..2_usize, proptest::option::of(1.0..200.0_f64));
    let make = |(items, class, weight, lane, later): (f64, u8, u32, usize, Option<f64>)| {
        let mut job = job(items.floor());
        (job.class, job.weight) = (class, f64::from(weight) * 50.0);
        job.stages[0][0].lane = lane;
        job.stages.extend(later.map(|items| vec![Part { lane: 1 - lane, ..part(items.floor()) }]));
        job
    };
    proptest::collection::vec(one.prop_map(make), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The engine is never idle while there is work: the last end is all work over the rate, within what small rests
    /// cannot use of it. No job ends before it could alone.
    #[test]
    fn work_is_conserved(jobs in some_jobs()) {
        let items: f64 = jobs.iter().flat_map(|job| job.stages.iter().flatten()).map(Part::open).sum();
        let sizes: Vec<f64> = jobs.iter().map(|job| job.stages.iter().flatten().map(Part::open).sum()).collect();
        let rests = jobs.len() as f64 * 4.0 * 50.0 * 0.068;
        let found = ends(&world(jobs));
        let last = found.iter().copied().fold(0.0, f64::max);
        prop_assert!(last >= alone(items) * 0.99 && last <= alone(items) * 1.02 + rests, "{last} {}", alone(items));
        for (end, size) in found.iter().zip(&sizes) {
            prop_assert!(*end >= alone(*size) * 0.99, "{end} {size}");
        }
    }

    /// More work of a job, or of those beside it, never makes its end come sooner (but for a bundle's grain).
    #[test]
    fn ends_are_monotone_in_work(jobs in some_jobs(), which in 0..8_usize, more in 1.5..4.0_f64) {
        let which = which % jobs.len();
        let before = ends(&world(jobs.clone()));
        let mut grown = jobs;
        let part = &mut grown[which].stages[0][0];
        part.waiting = (part.waiting * more).ceil();
        part.chunk = part.waiting.min(256.0);
        let after = ends(&world(grown));
        let grain = 3.0 * 15.0;
        prop_assert!(after[which] >= before[which] * 0.99 - grain);
        let last = |ends: &[f64]| ends.iter().copied().fold(0.0, f64::max);
        prop_assert!(last(&after) >= last(&before) * 0.99);
    }
}
