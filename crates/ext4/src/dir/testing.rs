//! A directory in memory, and a judge of it that shares no code with the directory operations.

use std::collections::{BTreeMap, HashSet};

use block_io::AlignedBuf;
use ext4_format::Ino;
use ext4_format::dirent::{seal_leaf, verify_leaf};
use ext4_format::hash::{HashAlgorithm, HashVersion};
use ext4_format::htree::{seal_index, verify_index};

use super::*;

pub const SEED: u32 = 0x1234_5678;
pub const SELF_INO: Ino = Ino(12);
pub const PARENT_INO: Ino = Ino(2);

pub fn params(algorithm: HashAlgorithm) -> DirParams {
    DirParams {
        has_csum: true,
        filetype: true,
        dir_index: true,
        large_dir: false,
        hash_version: HashVersion { algorithm, unsigned: false },
        hash_seed: [1, 2, 3, 4],
        self_ino: SELF_INO,
    }
}

/// Seals every block after every change, and verifies it at every read.
pub struct MemDir {
    pub blocks: Vec<(Image, bool)>,
    pub block_size: usize,
    pub has_csum: bool,
    /// F4.
    pub seed: u32,
    pub indexed: bool,
    /// How many blocks it may have.
    pub space: usize,
    /// Changes since it was last set to 0.
    pub changed: HashSet<u32>,
}

impl MemDir {
    pub fn new(block_size: usize, params: &DirParams) -> Self {
        let has_csum = params.has_csum;
        let mut dir = Self {
            blocks: Vec::new(),
            block_size,
            has_csum,
            seed: SEED,
            indexed: false,
            space: usize::MAX,
            changed: HashSet::new(),
        };
        dir.append(false, &mut |bytes| init_block(params, bytes, PARENT_INO)).unwrap();
        dir
    }

    /// Makes the checksums of a damaged block right again.
    pub fn reseal(&mut self, lblk: usize) {
        let (image, index) = &self.blocks[lblk];
        let mut bytes = AlignedBuf::copy_of(image);
        let index = *index;
        self.seal(&mut bytes, index);
        self.blocks[lblk] = (Image::new(bytes), index);
    }

    fn seal(&self, bytes: &mut [u8], index: bool) {
        match (self.has_csum, index) {
            (false, _) => {}
            (true, false) => seal_leaf(bytes, self.seed),
            (true, true) if verify_index(bytes, self.seed).is_err_and(|e| e.errno() == 117) => {}
            (true, true) => seal_index(bytes, self.seed),
        }
    }
}

impl DirBlocks for MemDir {
    fn block_size(&self) -> usize {
        self.block_size
    }

    fn block_count(&self) -> u32 {
        self.blocks.len() as u32
    }

    fn read(&self, lblk: u32, index: bool) -> Result<Image> {
        let (image, _) = &self.blocks[lblk as usize];
        if self.has_csum {
            let verify = if index { verify_index } else { verify_leaf };
            verify(image, self.seed).map_err(|corrupt| Error::corrupt_block(u64::from(lblk), corrupt))?;
        }
        Ok(image.clone())
    }

    fn update(&mut self, lblk: u32, index: bool, change: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let mut bytes = AlignedBuf::copy_of(&self.blocks[lblk as usize].0);
        change(&mut bytes);
        self.seal(&mut bytes, index);
        self.blocks[lblk as usize] = (Image::new(bytes), index);
        self.changed.insert(lblk);
        Ok(())
    }

    fn append(&mut self, index: bool, fill: &mut dyn FnMut(&mut [u8])) -> Result<u32> {
        if self.blocks.len() >= self.space {
            return Err(Error::errno_only(errno::ENOSPC));
        }
        let mut bytes = AlignedBuf::zeroed(self.block_size);
        fill(&mut bytes);
        self.seal(&mut bytes, index);
        self.blocks.push((Image::new(bytes), index));
        self.changed.insert(self.block_count() - 1);
        Ok(self.block_count() - 1)
    }

    fn indexed(&self) -> bool {
        self.indexed
    }

    fn set_indexed(&mut self, on: bool) -> Result<()> {
        self.indexed = on;
        Ok(())
    }
}

fn le16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Judges the bytes of a directory by F63–F71 and collects its names with inode and type.
pub struct Judge<'a> {
    dir: &'a MemDir,
    params: &'a DirParams,
    version: HashVersion,
    seen: HashSet<u32>,
    names: BTreeMap<Vec<u8>, (u32, u8)>,
}

/// All names but "." and "..".
pub fn judge(dir: &MemDir, params: &DirParams) -> BTreeMap<Vec<u8>, (u32, u8)> {
    let mut version = params.hash_version;
    if dir.indexed {
        version = HashVersion::from_stored(dir.blocks[0].0[0x1C], version.unsigned).unwrap();
    }
    let mut judge = Judge { dir, params, version, seen: HashSet::new(), names: BTreeMap::new() };
    if dir.indexed {
        judge.root();
        assert_eq!(judge.seen.len(), dir.blocks.len(), "a block is not referenced");
    } else {
        for lblk in 0..dir.block_count() {
            judge.leaf(lblk, None);
        }
    }
    judge.names
}

impl Judge<'_> {
    fn block(&mut self, lblk: u32, index: bool) -> Image {
        assert!(self.seen.insert(lblk), "block {lblk} referenced twice");
        let (_, is_index) = &self.dir.blocks[lblk as usize];
        assert_eq!(*is_index, index, "kind of block {lblk}");
        self.dir.read(lblk, index).unwrap()
    }

    fn root(&mut self) {
        let block = self.block(0, true);
        assert_eq!((le32(&block, 0), le16(&block, 4), le16(&block, 6), block[8]), (12, 12, 0x201, b'.'));
        let bs = block.len();
        assert_eq!((le32(&block, 12), le16(&block, 16), &block[20..22]), (2, bs - 12, &b".."[..]));
        assert_eq!((le32(&block, 0x18), block[0x1D], block[0x1F]), (0, 8, 0));
        self.entries(&block, 0x20, block[0x1E], 0, None);
    }

    fn entries(&mut self, block: &[u8], at: usize, levels: u8, key: u32, next: Option<u32>) {
        let bs = block.len();
        let (limit, count) = (le16(block, at), le16(block, at + 2));
        assert_eq!(limit, (bs - at) / 8 - usize::from(self.params.has_csum));
        assert!((1..=limit).contains(&count));
        for i in 0..count {
            let own = if i == 0 { key } else { le32(block, at + i * 8) };
            let next = if i + 1 < count { Some(le32(block, at + i * 8 + 8)) } else { next };
            if let Some(next) = next {
                assert!(own & !1 < next & !1 || (own & !1 == next & !1 && next & 1 == 1), "{own:x} {next:x}");
            }
            let child = le32(block, at + i * 8 + 4);
            if levels == 0 {
                self.leaf(child, Some((own, next)));
            } else {
                let node = self.block(child, true);
                assert_eq!((le32(&node, 0), le16(&node, 4), le16(&node, 6)), (0, bs, 0));
                self.entries(&node, 8, levels - 1, own, next);
            }
        }
    }

    fn leaf(&mut self, lblk: u32, interval: Option<(u32, Option<u32>)>) {
        let block = self.block(lblk, false);
        let end = block.len() - if self.params.has_csum { 12 } else { 0 };
        let mut at = 0;
        while at < end {
            let (ino, rec_len, name_len) =
                (le32(&block, at), le16(&block, at + 4), usize::from(block[at + 6]));
            assert!(rec_len >= 8 + name_len && rec_len % 4 == 0);
            let name = &block[at + 8..at + 8 + name_len];
            at += rec_len;
            if ino == 0 || name == b"." || name == b".." {
                assert!(ino == 0 || interval.is_none());
                continue;
            }
            if let Some((key, next)) = interval {
                let hash = self.version.hash(&self.params.hash_seed, name).hash;
                assert!(hash >= key & !1, "a name before its leaf");
                assert!(next.is_none_or(|next| hash < next), "a name behind its leaf");
            }
            let file_type = block[at - rec_len + 7];
            assert!(self.names.insert(name.to_vec(), (ino, file_type)).is_none(), "twice");
        }
        assert_eq!(at, end);
    }
}
