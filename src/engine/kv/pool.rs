//! The block pool. Allocation, sharing and release are O(1), eviction O(log n).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::prefix::BlockHash;
use crate::nn::batch::BlockId;

/// All blocks of one engine. Cloning gives another reference to the same pool, on the same thread.
#[derive(Clone)]
pub struct Pool {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    slots: Vec<Slot>,
    /// Blocks without content.
    free: Vec<BlockId>,
    /// Blocks with content that nobody holds, by the time they were let go: the first is evicted first.
    cached: BTreeMap<u64, BlockId>,
    by_hash: HashMap<BlockHash, BlockId>,
    clock: u64,
}

#[derive(Default)]
struct Slot {
    references: u32,
    content: Option<Content>,
    /// Key in `cached` while the block is there.
    released_at: u64,
}

struct Content {
    hash: BlockHash,
    tokens: Box<[u32]>,
}

impl Pool {
    pub fn new(n_blocks: usize) -> Self {
        let inner = Inner {
            slots: std::iter::repeat_with(Slot::default).take(n_blocks).collect(),
            free: (0..n_blocks as BlockId).rev().collect(),
            cached: BTreeMap::new(),
            by_hash: HashMap::new(),
            clock: 0,
        };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Blocks that can be had: free ones and cached ones.
    pub fn n_available(&self) -> usize {
        let inner = self.inner.borrow();
        inner.free.len() + inner.cached.len()
    }

    pub fn n_cached(&self) -> usize {
        self.inner.borrow().cached.len()
    }

    pub fn n_blocks(&self) -> usize {
        self.inner.borrow().slots.len()
    }

    /// An empty block of one's own; evicts the cached block that was let go first if none is free.
    pub fn allocate(&self) -> Option<Block> {
        let mut inner = self.inner.borrow_mut();
        let id = match inner.free.pop() {
            Some(id) => id,
            None => inner.evict()?,
        };
        inner.slots[id as usize].references = 1;
        Some(self.block(id))
    }

    /// Whether the cache has a block, and if so whether somebody holds it.
    pub fn find(&self, hash: BlockHash, tokens: &[u32]) -> Option<bool> {
        let inner = self.inner.borrow();
        let id = inner.find(hash, tokens)?;
        Some(inner.slots[id as usize].references > 0)
    }

    /// Takes a share in a cached block.
    pub fn share(&self, hash: BlockHash, tokens: &[u32]) -> Option<Block> {
        let mut inner = self.inner.borrow_mut();
        let id = inner.find(hash, tokens)?;
        let slot = &mut inner.slots[id as usize];
        slot.references += 1;
        if slot.references == 1 {
            let released_at = slot.released_at;
            inner.cached.remove(&released_at);
        }
        Some(self.block(id))
    }

    /// Makes a full block's content known; it is read-only from here on. Returns whether it was the first
    /// with this content; a second one stays private.
    pub fn publish(&self, block: &Block, hash: BlockHash, tokens: &[u32]) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.by_hash.contains_key(&hash) || inner.slots[block.id as usize].content.is_some() {
            return false;
        }
        inner.by_hash.insert(hash, block.id);
        inner.slots[block.id as usize].content = Some(Content { hash, tokens: tokens.into() });
        true
    }

    fn block(&self, id: BlockId) -> Block {
        Block { id, inner: self.inner.clone() }
    }
}

impl Inner {
    fn find(&self, hash: BlockHash, tokens: &[u32]) -> Option<BlockId> {
        let id = *self.by_hash.get(&hash)?;
        let content = self.slots[id as usize].content.as_ref()?;
        (*content.tokens == *tokens).then_some(id)
    }

    fn evict(&mut self) -> Option<BlockId> {
        let (_, id) = self.cached.pop_first()?;
        if let Some(content) = self.slots[id as usize].content.take() {
            self.by_hash.remove(&content.hash);
        }
        Some(id)
    }

    fn release(&mut self, id: BlockId) {
        self.clock += 1;
        let clock = self.clock;
        let slot = &mut self.slots[id as usize];
        slot.references -= 1;
        if slot.references > 0 {
            return;
        }
        if slot.content.is_some() {
            slot.released_at = clock;
            self.cached.insert(clock, id);
        } else {
            self.free.push(id);
        }
    }
}

/// A share in one block; let go when dropped.
pub struct Block {
    id: BlockId,
    inner: Rc<RefCell<Inner>>,
}

impl Block {
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Nobody else reads it and its content is not promised to anybody.
    pub fn is_writable(&self) -> bool {
        let inner = self.inner.borrow();
        let slot = &inner.slots[self.id as usize];
        slot.references == 1 && slot.content.is_none()
    }

    /// Letting go of it makes a block available.
    pub fn is_unshared(&self) -> bool {
        self.inner.borrow().slots[self.id as usize].references == 1
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.inner.borrow_mut().release(self.id);
    }
}

/// A sequence's blocks in order of position. Let go last block first, so that the deepest part of a prefix is
/// evicted before what more sequences can share.
#[derive(Default)]
pub struct BlockTable {
    blocks: Vec<Block>,
}

impl BlockTable {
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Block> {
        self.blocks.iter()
    }

    pub fn get(&self, index: usize) -> &Block {
        &self.blocks[index]
    }

    pub fn clear(&mut self) {
        while self.blocks.pop().is_some() {}
    }

    pub fn n_unshared(&self) -> usize {
        self.blocks.iter().filter(|block| block.is_unshared()).count()
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        self.clear();
    }
}
