//! The plan and the queue as pure functions.

use std::collections::{BTreeMap, HashMap, HashSet};

use adit::engine::scheduler::foresight::{Growth, peak_blocks};
use adit::engine::scheduler::plan::{Limits, Running, Waiting, plan};
use adit::engine::scheduler::queue::{FairQueue, Ticket, Visit};

use crate::rig::Rng;

fn limits() -> Limits {
    Limits { rows: 16, sequences: 4, block_tokens: 4, blocks: 100 }
}

fn running(id: u64, pending: usize) -> Running {
    Running {
        id,
        priority: 0,
        group: 1,
        computed: 7,
        pending,
        expected: 0,
        blocks: 2,
        unshared_blocks: 2,
        is_decoding: pending < 4,
        served_at: 0,
    }
}

fn waiting(id: u64, tokens: usize) -> Waiting {
    Waiting { id, priority: 0, group: 1, tokens, hit_tokens: 0, revived_blocks: 0, expected: 0 }
}

fn work(plan: &adit::engine::scheduler::plan::Plan) -> BTreeMap<u64, usize> {
    plan.work.iter().map(|work| (work.id, work.rows)).collect()
}

#[test]
fn decodes_come_before_prompts_and_prompts_before_new_ones() {
    let plan = plan(&limits(), &[running(1, 12), running(2, 1), running(3, 3)], &[waiting(4, 8)]);
    assert_eq!(work(&plan), BTreeMap::from([(1, 12), (2, 1), (3, 3)]));
    assert!(plan.admit.is_empty(), "no row is left for a new one");
}

#[test]
fn a_prompt_longer_than_the_step_is_read_in_chunks() {
    let plan = plan(&limits(), &[running(2, 1)], &[waiting(4, 60)]);
    assert_eq!(work(&plan), BTreeMap::from([(2, 1), (4, 15)]));
    assert_eq!(plan.admit, [4]);
}

#[test]
fn memory_is_taken_from_the_lowest_priority_then_the_youngest() {
    let mut all = [running(1, 1), running(2, 1), running(3, 1)];
    for one in &mut all {
        one.computed = 8;
    }
    all[0].priority = 1;
    all[1].priority = 1;
    let limits = Limits { blocks: 0, ..limits() };
    assert_eq!(plan(&limits, &all, &[]).preempt, [3], "the lowest priority leaves");
    all[2].priority = 1;
    assert_eq!(plan(&limits, &all, &[]).preempt, [3], "the youngest leaves");
    all[0].priority = 0;
    let plan = plan(&limits, &all, &[]);
    assert_eq!(plan.preempt, [1]);
    assert_eq!(work(&plan), BTreeMap::from([(2, 1), (3, 1)]));
}

#[test]
fn a_large_request_is_not_overtaken() {
    let limits = Limits { blocks: 3, ..limits() };
    let plan = plan(&limits, &[running(1, 1)], &[waiting(2, 40), waiting(3, 4)]);
    assert!(plan.admit.is_empty());
}

#[test]
fn a_lone_request_takes_the_place_of_a_crowd() {
    let all = [running(1, 1), running(2, 1), running(3, 1), running(4, 1)];
    let lone = Waiting { group: 9, ..waiting(5, 8) };
    let made = plan(&limits(), &all, &[lone]);
    assert_eq!((made.preempt, made.admit), (vec![4], vec![5]));
    let same_group = plan(&limits(), &all, &[waiting(5, 8)]);
    assert!(same_group.preempt.is_empty() && same_group.admit.is_empty());
    let high = plan(&limits(), &all, &[Waiting { priority: 1, ..waiting(5, 8) }]);
    assert_eq!((high.preempt, high.admit), (vec![4], vec![5]));
    let two = plan(&limits(), &all, &[lone, Waiting { group: 10, ..waiting(6, 8) }]);
    assert_eq!(two.admit, [5], "one a step");
}

/// Whatever the input: no bound is exceeded, no row is given to one that leaves, and something happens.
#[test]
fn no_plan_exceeds_its_bounds() {
    let mut rng = Rng(7);
    for case in 0..20_000 {
        let block_tokens = rng.within(1, 8);
        let n_running = rng.within(0, 8);
        let mut all = Vec::new();
        for id in 0..n_running as u64 {
            let is_decoding = rng.chance(60);
            let computed = rng.within(0, 40);
            let pending = if is_decoding { rng.within(1, 5) } else { rng.within(1, 30) };
            let held = if is_decoding { computed } else { computed + pending };
            let blocks = held.div_ceil(block_tokens);
            all.push(Running {
                id,
                priority: rng.within(0, 2) as u8,
                group: rng.within(0, 3) as u64,
                computed,
                pending,
                expected: rng.within(0, 60),
                blocks,
                unshared_blocks: rng.within(0, blocks),
                is_decoding,
                served_at: rng.within(0, 9) as u64,
            });
        }
        let mut queue = Vec::new();
        for id in 100..100 + rng.within(0, 6) as u64 {
            let tokens = rng.within(1, 50);
            let hit_blocks = rng.within(0, (tokens - 1) / block_tokens);
            queue.push(Waiting {
                id,
                priority: rng.within(0, 2) as u8,
                group: rng.within(0, 5) as u64,
                tokens,
                hit_tokens: hit_blocks * block_tokens,
                revived_blocks: rng.within(0, hit_blocks),
                expected: rng.within(0, 60),
            });
        }
        let limits = Limits {
            rows: rng.within(1, 40),
            sequences: rng.within(1, 8).max(n_running),
            block_tokens,
            blocks: rng.within(0, 40),
        };
        let plan = plan(&limits, &all, &queue);
        let left: HashSet<u64> = plan.preempt.iter().copied().collect();
        let given: usize = plan.work.iter().map(|work| work.rows).sum();
        assert!(given <= limits.rows, "case {case}: rows");
        assert!(n_running - left.len() + plan.admit.len() <= limits.sequences, "case {case}: sequences");
        let mut blocks = limits.blocks as i64;
        for one in &all {
            if left.contains(&one.id) {
                blocks += one.unshared_blocks as i64;
            }
        }
        let by_id: HashMap<u64, &Running> = all.iter().map(|one| (one.id, one)).collect();
        for work in &plan.work {
            assert!(work.rows > 0 && !left.contains(&work.id), "case {case}: work");
            match by_id.get(&work.id) {
                Some(one) => {
                    assert!(work.rows <= one.pending);
                    let needed = (one.computed + work.rows).div_ceil(block_tokens);
                    blocks -= needed.saturating_sub(one.blocks) as i64;
                }
                None => assert!(plan.admit.contains(&work.id)),
            }
        }
        for id in &plan.admit {
            let one = queue.iter().find(|one| one.id == *id).unwrap();
            blocks -= (one.tokens.div_ceil(block_tokens) - one.hit_tokens / block_tokens + one.revived_blocks)
                as i64;
        }
        assert!(blocks >= 0, "case {case}: {blocks} blocks");
        let fits = |one: &Waiting| {
            one.tokens.div_ceil(block_tokens) - one.hit_tokens / block_tokens + one.revived_blocks
                <= limits.blocks
        };
        let is_possible = !all.is_empty() || queue.first().is_some_and(fits);
        assert!(
            !is_possible || !plan.work.is_empty() || !plan.preempt.is_empty(),
            "case {case}: stands still"
        );
    }
}

fn ticket(id: u64, group: u64) -> Ticket {
    Ticket { id, priority: 0, group, cost: 10 }
}

fn order(queue: &FairQueue) -> Vec<u64> {
    let mut ids = Vec::new();
    queue.visit(|ticket| {
        ids.push(ticket.id);
        Visit::Next
    });
    ids
}

#[test]
fn groups_take_turns_and_priority_goes_first() {
    let mut queue = FairQueue::default();
    for id in 0..4 {
        queue.push(ticket(id, 1));
    }
    queue.push(ticket(4, 2));
    queue.push(ticket(5, 2));
    queue.push(Ticket { priority: 3, ..ticket(6, 1) });
    assert_eq!(order(&queue), [6, 0, 4, 1, 5, 2, 3]);
    queue.admit(&ticket(0, 1));
    queue.admit(&ticket(1, 1));
    queue.push(ticket(7, 3));
    assert_eq!(order(&queue)[..3], [6, 4, 7], "who was served waits");
    queue.remove(&ticket(4, 2));
    assert_eq!((queue.len(), order(&queue).len()), (5, 5));
}

#[test]
fn a_lone_request_stands_at_the_front_however_long_the_queue() {
    let mut queue = FairQueue::default();
    for id in 0..100_000 {
        queue.push(ticket(id, 1));
    }
    for id in 0..500 {
        queue.admit(&ticket(id, 1));
    }
    queue.push(ticket(200_000, 2));
    assert_eq!(order(&queue)[0], 200_000);
}

#[test]
fn service_is_shared_over_time() {
    let mut queue = FairQueue::default();
    let mut rng = Rng(3);
    let mut next = 0;
    let mut served = HashMap::new();
    for group in 0..3 {
        for _ in 0..1_000 {
            // the groups' requests cost 1 to 3
            queue.push(Ticket { cost: group + 1, ..ticket(next, group) });
            next += 1;
        }
    }
    for _ in 0..900 {
        let mut first = None;
        queue.visit(|ticket| {
            first = Some(*ticket);
            Visit::Stop
        });
        let first = first.unwrap();
        *served.entry(first.group).or_insert(0) += first.cost;
        queue.admit(&first);
        if rng.chance(5) {
            // one that was preempted comes back and is not charged again
            queue.push(Ticket { cost: 0, ..first });
        }
    }
    let (least, most) = (served.values().min().unwrap(), served.values().max().unwrap());
    assert!(most - least < most / 5, "{served:?}");
}

/// With the lengths known, the peak is what a simulation of the sequences side by side comes to, or at most one
/// block for each of them more.
#[test]
fn the_peak_is_that_of_the_future() {
    let mut rng = Rng(11);
    for case in 0..5_000 {
        let block_tokens = rng.within(1, 16);
        let n = rng.within(1, 12);
        // (tokens, blocks held, of them its own, tokens to come)
        let all: Vec<[usize; 4]> = (0..n)
            .map(|_| {
                let tokens = rng.within(1, 60);
                let held = tokens.div_ceil(block_tokens);
                [tokens, held, rng.within(0, held), rng.within(0, 80)]
            })
            .collect();
        let growths = all
            .iter()
            .map(|&[tokens, held, own, to_come]| Growth {
                unplaced: tokens as i64 - (held * block_tokens) as i64,
                tokens: to_come,
                freed_blocks: own,
            })
            .collect();
        let peak = peak_blocks(growths, block_tokens);
        let needed = |now: usize| -> i64 {
            let of = |&[tokens, held, own, to_come]: &[usize; 4]| match to_come >= now {
                true => (tokens + now).div_ceil(block_tokens) as i64 - held as i64,
                false => -(own as i64),
            };
            all.iter().map(of).sum()
        };
        let simulated = (0..=80).map(needed).max().unwrap();
        assert!(peak >= simulated && peak <= simulated.max(0) + n as i64, "case {case}: {peak}, {simulated}");
    }
}

#[test]
fn who_would_not_last_waits_unless_it_is_owed_a_turn() {
    let running = Running { expected: 100, ..running(1, 1) };
    let next = Waiting { expected: 100, ..waiting(2, 8) };
    let tight = Limits { blocks: 40, ..limits() };
    assert!(plan(&tight, &[running], &[next]).admit.is_empty(), "26 and 28 blocks are not there");
    assert_eq!(plan(&Limits { blocks: 60, ..limits() }, &[running], &[next]).admit, [2]);
    assert_eq!(plan(&tight, &[], &[next]).admit, [2], "one alone has to try");
    let soon = Running { expected: 4, ..running };
    assert_eq!(plan(&tight, &[soon], &[next]).admit, [2], "the other one will have ended");
    let crowd = [running, Running { id: 3, ..running }];
    let lone = plan(&tight, &crowd, &[Waiting { group: 9, ..next }]);
    assert_eq!((lone.preempt, lone.admit), (vec![3], vec![2]));
}
