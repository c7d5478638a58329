//! Times the engine's synchronous kernels and prints them as JSON: extent lookup at depth 0 and 2, and crc32c. Part of
//! `npm run bench`.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block_io::AlignedBuf;
use ext4::extents::{self, Tree, TreeOwner};
use ext4::meta::{BlockKind, BlockOwner, Image, Meta};
use ext4::{Error, Result, errno};
use ext4_format::checksum::{CRC32C_SEED, crc32c};
use ext4_format::extent::{Extent, ROOT_SIZE, empty_root};
use ext4_format::{Ino, Lblk, Pblk};

const BLOCK_SIZE: usize = 4096;
const FIRST_NODE: u64 = 1 << 30;
const OWNER: TreeOwner =
    TreeOwner { ino: Ino(12), seed: 0x5EED, goal: Pblk(5000), blocks: 1 << 31, apart: false };

/// Tree blocks as the cache of clean metadata holds them: a look-up shares the image. No checksums.
#[derive(Default)]
struct Nodes {
    images: HashMap<Pblk, Image>,
    allocated: u64,
}

impl Meta for Nodes {
    fn block_size(&self) -> usize {
        BLOCK_SIZE
    }

    fn read(&self, block: Pblk, _: BlockKind) -> Result<Image> {
        self.images.get(&block).cloned().ok_or(Error::errno_only(errno::EIO))
    }

    fn update(&mut self, block: Pblk, _: BlockKind, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let image = self.images.get_mut(&block).ok_or(Error::errno_only(errno::EIO))?;
        let mut changed = AlignedBuf::copy_of(image);
        change(&mut changed);
        *image = Arc::new(changed);
        Ok(())
    }

    fn create(&mut self, block: Pblk, _: BlockKind, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let mut image = AlignedBuf::zeroed(BLOCK_SIZE);
        fill(&mut image);
        self.images.insert(block, Arc::new(image));
        Ok(())
    }

    fn allocate_block(&mut self, _: BlockOwner) -> Result<Pblk> {
        self.allocated += 1;
        Ok(Pblk(FIRST_NODE + self.allocated))
    }

    fn free_block(&mut self, block: Pblk, _: Ino) -> Result<()> {
        self.images.remove(&block);
        Ok(())
    }

    fn free_data(&mut self, _: Pblk, _: u32, _: Ino) -> Result<()> {
        Ok(())
    }

    fn ensure_credits(&mut self, _: u32) -> Result<bool> {
        Ok(true)
    }
}

/// A tree of `extents` runs of one block with a hole after each.
fn sparse_tree(extents: u32) -> Result<(Nodes, [u8; ROOT_SIZE])> {
    let mut nodes = Nodes::default();
    let mut root = empty_root();
    for at in 0..extents {
        let lblk = Lblk(2 * at);
        let extent = Extent { lblk, len: 1, start: Pblk(10_000 + 3 * u64::from(at)), unwritten: false };
        Tree::new(&mut nodes, &mut root, OWNER).insert(extent)?;
    }
    Ok((nodes, root))
}

const BATCHES: usize = 15;
const BATCH_TIME: Duration = Duration::from_millis(20);

/// Nanoseconds of one call: the median of some batches, and how far the batches are from it at most, in percent.
fn measure(mut call: impl FnMut(u32)) -> (f64, f64) {
    let mut calls = 64u32;
    loop {
        let start = Instant::now();
        (0..calls).for_each(&mut call);
        if start.elapsed() >= BATCH_TIME || calls >= 1 << 28 {
            break;
        }
        calls *= 2;
    }
    let mut nanos: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(&mut call);
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    let median = nanos[BATCHES / 2];
    let margin = (nanos[BATCHES - 1] - median).max(median - nanos[0]);
    (median, 100.0 * margin / median)
}

fn main() -> Result<()> {
    let mut kernels = Vec::new();
    for (extents, depth) in [(4u32, 0), (10_000, 2)] {
        let (nodes, root) = sparse_tree(extents)?;
        assert_eq!(extents::depth(&root, OWNER)?, depth, "{extents} extents");
        // A step that is prime to the number of blocks visits them all, and never two in a row.
        let timed = measure(|call| {
            let lblk = Lblk(call.wrapping_mul(7919) % (2 * extents));
            black_box(extents::lookup(&nodes, black_box(&root), OWNER, lblk)).expect("a sound tree");
        });
        kernels.push((format!("extent lookup in the tree, depth {depth}"), timed));
    }
    let block = vec![0xA5; BLOCK_SIZE];
    let timed = measure(|call| {
        black_box(crc32c(CRC32C_SEED ^ call, black_box(&block)));
    });
    kernels.push(("crc32c of 4 KiB".into(), timed));

    let lines: Vec<String> = kernels
        .iter()
        .map(|(name, (nanos, margin))| {
            format!(r#"{{"name":"{name}","nanos":{nanos:.2},"marginPercent":{margin:.2}}}"#)
        })
        .collect();
    println!("[{}]", lines.join(",\n"));
    Ok(())
}
