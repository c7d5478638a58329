//! Clean metadata blocks, and the one way from a block number to its contents.
//!
//! A block in a transaction, or awaiting its checkpoint, belongs to the journal and is looked up there first.
//! Two steps must not interleave for one block: a reader that found it neither in the journal nor here and reads
//! the device, and a handle that takes it into the journal. Both hold the block's shard lock; the journal
//! hands a block back here *before* it drops its own entry.

use std::sync::Arc;

use block_io::sync::{Mutex, MutexGuard};
use block_io::{AlignedBuf, Device};
use ext4_format::Pblk;
use quick_cache::Weighter;

use crate::Result;
use crate::meta::Image;

const SHARDS: usize = 64;

#[derive(Clone)]
struct ImageBytes;

impl Weighter<u64, Image> for ImageBytes {
    fn weight(&self, _block: &u64, image: &Image) -> u64 {
        image.len() as u64
    }
}

/// A bounded cache of clean metadata blocks over a device.
pub struct BlockCache {
    device: Arc<dyn Device>,
    block_size: usize,
    clean: quick_cache::sync::Cache<u64, Image, ImageBytes>,
    shards: [Mutex<()>; SHARDS],
}

impl BlockCache {
    /// A cache of at most `capacity_bytes` for blocks of `block_size` bytes.
    pub fn new(device: Arc<dyn Device>, block_size: usize, capacity_bytes: u64) -> Self {
        let blocks = (capacity_bytes / block_size as u64).max(64);
        Self {
            device,
            block_size,
            clean: quick_cache::sync::Cache::with_weighter(blocks as usize, capacity_bytes, ImageBytes),
            shards: std::array::from_fn(|_| Mutex::new(())),
        }
    }

    /// The lock under which a block enters the journal or comes from the device.
    pub fn lock(&self, block: Pblk) -> MutexGuard<'_, ()> {
        self.shards[(block.0 % SHARDS as u64) as usize].lock()
    }

    /// The cached image. Only meaningful after the journal was asked.
    pub fn get(&self, block: Pblk) -> Option<Image> {
        self.clean.get(&block.0)
    }

    /// Reads the device, without looking into the cache. The caller holds the shard lock.
    pub fn read_device(&self, block: Pblk) -> Result<Image> {
        let mut image = AlignedBuf::zeroed(self.block_size);
        self.device.read(block.0 * self.block_size as u64, &mut image)?;
        Ok(Arc::new(image))
    }

    /// Puts a clean image, replacing an older one.
    pub fn insert(&self, block: Pblk, image: Image) {
        self.clean.insert(block.0, image);
    }

    /// Forgets a block.
    pub fn remove(&self, block: Pblk) {
        self.clean.remove(&block.0);
    }
}
