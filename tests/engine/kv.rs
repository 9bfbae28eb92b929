//! The block pool against a plain model of it.

use std::collections::HashMap;

use adit::engine::kv::{Block, BlockTable, Pool, PrefixHasher};
use adit::engine::request::AdapterId;

use crate::rig::Rng;

#[test]
fn hashes_stand_for_everything_before_and_for_the_adapter() {
    let hasher = PrefixHasher::default();
    let of = |adapter, tokens: &[u32]| {
        let mut hashes = Vec::new();
        hasher.extend(&mut hashes, adapter, tokens, 2);
        hashes
    };
    let base = of(None, &[1, 2, 3, 4, 5]);
    assert_eq!(base.len(), 2, "only full blocks");
    assert_eq!(base, of(None, &[1, 2, 3, 4, 9, 9])[..2]);
    assert_ne!(base[1], of(None, &[9, 2, 3, 4])[1], "the head matters");
    assert_ne!(base[0], of(Some(AdapterId(0)), &[1, 2])[0], "the adapter matters");
    let mut grown = of(None, &[1, 2]);
    hasher.extend(&mut grown, None, &[1, 2, 3, 4, 5], 2);
    assert_eq!(grown, base);
}

#[test]
fn what_nobody_holds_is_evicted_oldest_first() {
    let pool = Pool::new(3);
    for hash in 0..3 {
        let block = pool.allocate().unwrap();
        assert!(pool.publish(&block, hash, &[hash as u32]));
    }
    assert_eq!((pool.n_available(), pool.n_cached()), (3, 3));
    let kept = pool.share(0, &[0]).unwrap();
    assert!(pool.share(1, &[7]).is_none(), "the tokens are compared");
    let taken = pool.allocate().unwrap();
    assert!(taken.is_writable() && !kept.is_writable());
    assert!(pool.find(1, &[1]).is_none(), "1 was let go first of those that are free");
    assert_eq!(pool.find(2, &[2]), Some(false));
    assert_eq!(pool.find(0, &[0]), Some(true));
    let last = pool.allocate().unwrap();
    assert!(pool.allocate().is_none());
    drop((kept, taken, last));
    assert_eq!(pool.n_available(), 3);
}

#[test]
fn a_tables_tail_is_evicted_before_its_head() {
    let pool = Pool::new(2);
    let mut table = BlockTable::default();
    for hash in 0..2 {
        let block = pool.allocate().unwrap();
        pool.publish(&block, hash, &[hash as u32]);
        table.push(block);
    }
    drop(table);
    let _one = pool.allocate().unwrap();
    assert!(pool.find(0, &[0]).is_some() && pool.find(1, &[1]).is_none());
}

/// Thousands of random operations: no block is lost, none is handed out twice, content stays what it was.
#[test]
fn random_operations_keep_the_pool_whole() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let n_blocks = rng.within(1, 12);
        let pool = Pool::new(n_blocks);
        let mut held: Vec<(Block, Option<u64>)> = Vec::new();
        for _ in 0..200 {
            match rng.within(0, 3) {
                0 => {
                    let available = pool.n_available();
                    match pool.allocate() {
                        Some(block) => {
                            assert!(
                                held.iter().all(|(other, _)| other.id() != block.id()),
                                "handed out twice"
                            );
                            assert!(block.is_writable());
                            held.push((block, None));
                        }
                        None => assert_eq!(available, 0),
                    }
                }
                1 if !held.is_empty() => {
                    let index = rng.within(0, held.len() - 1);
                    held.swap_remove(index);
                }
                2 if !held.is_empty() => {
                    let index = rng.within(0, held.len() - 1);
                    let hash = rng.within(0, 15) as u64;
                    if pool.publish(&held[index].0, hash, &[hash as u32]) {
                        held[index].1 = Some(hash);
                        assert!(!held[index].0.is_writable());
                    }
                }
                _ => {
                    let hash = rng.within(0, 15) as u64;
                    if let Some(block) = pool.share(hash, &[hash as u32]) {
                        for (other, content) in &held {
                            assert_eq!(other.id() == block.id(), *content == Some(hash));
                        }
                        held.push((block, Some(hash)));
                    }
                }
            }
            let mut holders: HashMap<u32, usize> = HashMap::new();
            for (block, _) in &held {
                *holders.entry(block.id()).or_insert(0) += 1;
            }
            assert_eq!(pool.n_available() + holders.len(), n_blocks);
            for (block, _) in &held {
                assert_eq!(block.is_unshared(), holders[&block.id()] == 1);
            }
        }
        held.clear();
        assert_eq!(pool.n_available(), n_blocks);
    }
}
