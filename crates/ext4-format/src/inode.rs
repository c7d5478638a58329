//! Inodes (format section 5).

use crate::checksum::{crc32c, inode_seed};
use crate::codec::{get, put};
use crate::features::{incompat, ro_compat};
use crate::timestamp::Timestamp;
use crate::{Corrupt, Ino, Result, Superblock};

const WHAT: &str = "inode";

/// F53: inodes with a fixed meaning.
#[expect(missing_docs, reason = "the names are the format's (F53)")]
pub mod special {
    use crate::Ino;
    pub const BAD: Ino = Ino(1);
    pub const ROOT: Ino = Ino(2);
    pub const USER_QUOTA: Ino = Ino(3);
    pub const GROUP_QUOTA: Ino = Ino(4);
    pub const BOOT_LOADER: Ino = Ino(5);
    pub const UNDELETE: Ino = Ino(6);
    pub const RESIZE: Ino = Ino(7);
    pub const JOURNAL: Ino = Ino(8);
}

/// F52: bits of `Inode::flags`.
#[expect(missing_docs, reason = "the names are the format's (F52)")]
pub mod flags {
    pub const SECRM: u32 = 0x1;
    pub const UNRM: u32 = 0x2;
    pub const COMPR: u32 = 0x4;
    pub const SYNC: u32 = 0x8;
    pub const IMMUTABLE: u32 = 0x10;
    pub const APPEND: u32 = 0x20;
    pub const NODUMP: u32 = 0x40;
    pub const NOATIME: u32 = 0x80;
    pub const DIRTY: u32 = 0x100;
    pub const COMPRBLK: u32 = 0x200;
    pub const NOCOMPR: u32 = 0x400;
    pub const ENCRYPT: u32 = 0x800;
    pub const INDEX: u32 = 0x1000;
    pub const IMAGIC: u32 = 0x2000;
    pub const JOURNAL_DATA: u32 = 0x4000;
    pub const NOTAIL: u32 = 0x8000;
    pub const DIRSYNC: u32 = 0x10000;
    pub const TOPDIR: u32 = 0x20000;
    pub const HUGE_FILE: u32 = 0x40000;
    pub const EXTENTS: u32 = 0x80000;
    pub const VERITY: u32 = 0x100000;
    pub const EA_INODE: u32 = 0x200000;
    pub const DAX: u32 = 0x2000000;
    pub const INLINE_DATA: u32 = 0x10000000;
    pub const PROJINHERIT: u32 = 0x20000000;
    pub const CASEFOLD: u32 = 0x40000000;

    /// Inherited from the parent, before the type's restriction.
    const INHERITED: u32 = SECRM
        | UNRM
        | COMPR
        | SYNC
        | NODUMP
        | NOATIME
        | NOCOMPR
        | JOURNAL_DATA
        | NOTAIL
        | DIRSYNC
        | PROJINHERIT
        | CASEFOLD
        | DAX;

    /// F52: what a new inode of a type has of its parent's flags.
    pub fn inherited(parent: u32, mode: u16) -> u32 {
        let flags = parent & INHERITED;
        match mode & super::S_IFMT {
            super::S_IFDIR => flags,
            super::S_IFREG => flags & !(DIRSYNC | TOPDIR | CASEFOLD | PROJINHERIT),
            _ => flags & (NODUMP | NOATIME),
        }
    }
}

/// Type bits of a mode.
pub const S_IFMT: u16 = 0xF000;
/// FIFO.
pub const S_IFIFO: u16 = 0x1000;
/// Character device.
pub const S_IFCHR: u16 = 0x2000;
/// Directory.
pub const S_IFDIR: u16 = 0x4000;
/// Block device.
pub const S_IFBLK: u16 = 0x6000;
/// Regular file.
pub const S_IFREG: u16 = 0x8000;
/// Symbolic link.
pub const S_IFLNK: u16 = 0xA000;
/// Socket.
pub const S_IFSOCK: u16 = 0xC000;

/// One inode. Bytes that no field stands for (xattrs, slack) are kept and written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    raw: Vec<u8>,
    /// Type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// i_size in bytes.
    pub size: u64,
    /// 0 = free.
    pub links_count: u16,
    /// i_blocks in 512-byte sectors whatever the stored unit (F50).
    pub blocks: u64,
    /// [`flags`] bits. HUGE_FILE is set and cleared by encoding (F50).
    pub flags: u32,
    /// i_generation, part of F4.
    pub generation: u32,
    /// Xattr block, 0 = none.
    pub file_acl: u64,
    /// Map, extent root, fast symlink, device or inline data.
    pub i_block: [u8; Inode::I_BLOCK_SIZE],
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Last change of the data.
    pub mtime: Timestamp,
    /// Creation; zero where the inode has no room for it.
    pub crtime: Timestamp,
    /// Deletion time, or the next orphan (D27); 0 while in use.
    pub dtime: u32,
    /// Bytes of the fixed part past 0x80; 0 with 128-byte inodes.
    pub extra_isize: u16,
    /// Project; 0 where there is no room for it.
    pub projid: u32,
    /// i_version, 64 bits where there is room, else 32.
    pub version: u64,
}

impl Inode {
    /// Bytes of `i_block`.
    pub const I_BLOCK_SIZE: usize = 60;
    /// Bytes of the old inode; what lies behind depends on extra_isize (F47).
    pub const GOOD_OLD_SIZE: usize = 128;
    /// i_extra_isize of new inodes.
    pub const WANT_EXTRA_ISIZE: u16 = 32;

    const I_MODE: usize = 0x00;
    const I_UID: usize = 0x02;
    const I_SIZE_LO: usize = 0x04;
    const I_ATIME: usize = 0x08;
    const I_CTIME: usize = 0x0C;
    const I_MTIME: usize = 0x10;
    const I_DTIME: usize = 0x14;
    const I_GID: usize = 0x18;
    const I_LINKS_COUNT: usize = 0x1A;
    const I_BLOCKS_LO: usize = 0x1C;
    const I_FLAGS: usize = 0x20;
    const I_VERSION: usize = 0x24;
    const I_BLOCK: usize = 0x28;
    const I_GENERATION: usize = 0x64;
    const I_FILE_ACL_LO: usize = 0x68;
    const I_SIZE_HIGH: usize = 0x6C;
    const I_BLOCKS_HIGH: usize = 0x74;
    const I_FILE_ACL_HIGH: usize = 0x76;
    const I_UID_HIGH: usize = 0x78;
    const I_GID_HIGH: usize = 0x7A;
    const I_CHECKSUM_LO: usize = 0x7C;
    const I_EXTRA_ISIZE: usize = 0x80;
    const I_CHECKSUM_HI: usize = 0x82;
    const I_CTIME_EXTRA: usize = 0x84;
    const I_MTIME_EXTRA: usize = 0x88;
    const I_ATIME_EXTRA: usize = 0x8C;
    const I_CRTIME: usize = 0x90;
    const I_CRTIME_EXTRA: usize = 0x94;
    const I_VERSION_HI: usize = 0x98;
    const I_PROJID: usize = 0x9C;

    /// A free inode: all zero, extra_isize included.
    pub fn new(sb: &Superblock) -> Self {
        Self::parse(&vec![0; usize::from(sb.inode_size())], sb)
    }

    /// An inode about to be used: all zero but extra_isize, which is the volume's wish (32 on ordinary volumes).
    pub fn new_in_use(sb: &Superblock) -> Self {
        let mut inode = Self::new(sb);
        let room = sb.inode_size() - 128;
        if room > 0 {
            let want = sb.want_extra_isize;
            let valid = want >= Self::WANT_EXTRA_ISIZE && want.is_multiple_of(4) && want <= room;
            inode.extra_isize = if valid { want } else { Self::WANT_EXTRA_ISIZE };
        }
        inode
    }

    /// Decodes `bytes` (the volume's inode size), its checksum verified (F48), i_extra_isize checked (F47).
    pub fn decode(bytes: &[u8], sb: &Superblock, ino: Ino) -> Result<Self> {
        assert_eq!(bytes.len(), usize::from(sb.inode_size()));
        verify_checksum(bytes, sb, ino)?;
        let room = bytes.len() - Self::GOOD_OLD_SIZE;
        if room > 0 {
            let extra: u16 = get(bytes, Self::I_EXTRA_ISIZE);
            if !extra.is_multiple_of(4) || usize::from(extra) > room {
                return Err(Corrupt::structure(WHAT, format!("inode {ino}: i_extra_isize {extra}")));
            }
        }
        Ok(Self::parse(bytes, sb))
    }

    fn parse(raw: &[u8], sb: &Superblock) -> Self {
        let features = sb.features();
        let extra_isize = if raw.len() > Self::GOOD_OLD_SIZE { get(raw, Self::I_EXTRA_ISIZE) } else { 0u16 };
        let extra = |offset: usize| has_field(extra_isize, offset, 4).then(|| get::<u32>(raw, offset));
        let time = |lo: usize, hi: usize| match extra(hi) {
            Some(bits) => Timestamp::from_extra(get(raw, lo), bits),
            None => Timestamp::from_lo(get(raw, lo)),
        };
        let crtime = match (extra(Self::I_CRTIME), extra(Self::I_CRTIME_EXTRA)) {
            (Some(lo), Some(bits)) => Timestamp::from_extra(lo, bits),
            (Some(lo), None) => Timestamp::from_lo(lo),
            _ => Timestamp::default(),
        };
        let join16 = |lo, hi| u32::from(get::<u16>(raw, hi)) << 16 | u32::from(get::<u16>(raw, lo));
        let flags: u32 = get(raw, Self::I_FLAGS);
        let mut blocks = u64::from(get::<u32>(raw, Self::I_BLOCKS_LO));
        if features.has_ro_compat(ro_compat::HUGE_FILE) {
            blocks |= u64::from(get::<u16>(raw, Self::I_BLOCKS_HIGH)) << 32;
            if flags & flags::HUGE_FILE != 0 {
                blocks *= u64::from(sb.block_size() / 512); // 48 + 7 bits.
            }
        }
        let mut file_acl = u64::from(get::<u32>(raw, Self::I_FILE_ACL_LO));
        if features.has_incompat(incompat::BIT64) {
            file_acl |= u64::from(get::<u16>(raw, Self::I_FILE_ACL_HIGH)) << 32;
        }
        let size_high: u32 = get(raw, Self::I_SIZE_HIGH);
        Self {
            mode: get(raw, Self::I_MODE),
            uid: join16(Self::I_UID, Self::I_UID_HIGH),
            gid: join16(Self::I_GID, Self::I_GID_HIGH),
            size: u64::from(size_high) << 32 | u64::from(get::<u32>(raw, Self::I_SIZE_LO)),
            links_count: get(raw, Self::I_LINKS_COUNT),
            blocks,
            flags,
            generation: get(raw, Self::I_GENERATION),
            file_acl,
            i_block: get(raw, Self::I_BLOCK),
            atime: time(Self::I_ATIME, Self::I_ATIME_EXTRA),
            ctime: time(Self::I_CTIME, Self::I_CTIME_EXTRA),
            mtime: time(Self::I_MTIME, Self::I_MTIME_EXTRA),
            crtime,
            dtime: get(raw, Self::I_DTIME),
            extra_isize,
            projid: extra(Self::I_PROJID).unwrap_or(0),
            version: u64::from(extra(Self::I_VERSION_HI).unwrap_or(0)) << 32
                | u64::from(get::<u32>(raw, Self::I_VERSION)),
            raw: raw.to_vec(),
        }
    }

    /// R24: the inode once a fast commit's bytes of it, at least 128, are replayed: all but i_block.
    pub fn replayed(&self, logged: &[u8], sb: &Superblock, ino: Ino) -> Result<Self> {
        let mut bytes = self.encode(sb, ino);
        let end = logged.len().min(bytes.len());
        bytes[..Self::I_BLOCK].copy_from_slice(&logged[..Self::I_BLOCK]);
        bytes[Self::I_GENERATION..end].copy_from_slice(&logged[Self::I_GENERATION..end]);
        seal(&mut bytes, sb, ino);
        Self::decode(&bytes, sb, ino)
    }

    /// i_block of a fast commit's bytes of an inode.
    pub fn logged_i_block(logged: &[u8]) -> [u8; Self::I_BLOCK_SIZE] {
        get(logged, Self::I_BLOCK)
    }

    /// The bytes, with their checksum. Panics if a number does not fit the volume's format (see
    /// [`Inode::max_blocks`]): our own bug.
    pub fn encode(&self, sb: &Superblock, ino: Ino) -> Vec<u8> {
        let mut bytes = vec![0; self.raw.len()];
        self.encode_into(&mut bytes, sb, ino);
        bytes
    }

    /// The same into a slot of an inode table.
    pub fn encode_into(&self, bytes: &mut [u8], sb: &Superblock, ino: Ino) {
        assert_eq!(bytes.len(), usize::from(sb.inode_size()));
        assert_eq!(bytes.len(), self.raw.len());
        bytes.copy_from_slice(&self.raw);
        put(bytes, Self::I_MODE, self.mode);
        put(bytes, Self::I_UID, self.uid as u16);
        put(bytes, Self::I_UID_HIGH, (self.uid >> 16) as u16);
        put(bytes, Self::I_GID, self.gid as u16);
        put(bytes, Self::I_GID_HIGH, (self.gid >> 16) as u16);
        put(bytes, Self::I_SIZE_LO, self.size as u32);
        put(bytes, Self::I_SIZE_HIGH, (self.size >> 32) as u32);
        put(bytes, Self::I_DTIME, self.dtime);
        put(bytes, Self::I_LINKS_COUNT, self.links_count);
        put(bytes, Self::I_GENERATION, self.generation);
        put(bytes, Self::I_BLOCK, self.i_block);
        put(bytes, Self::I_FILE_ACL_LO, self.file_acl as u32);
        if sb.features().has_incompat(incompat::BIT64) {
            put(bytes, Self::I_FILE_ACL_HIGH, (self.file_acl >> 32) as u16);
        }
        self.put_blocks(bytes, sb);
        self.put_times(bytes);
        put(bytes, Self::I_VERSION, self.version as u32);
        if bytes.len() > Self::GOOD_OLD_SIZE {
            let room = bytes.len() - Self::GOOD_OLD_SIZE;
            assert!(self.extra_isize.is_multiple_of(4) && usize::from(self.extra_isize) <= room);
            put(bytes, Self::I_EXTRA_ISIZE, self.extra_isize);
            self.put_extra(bytes, Self::I_VERSION_HI, (self.version >> 32) as u32);
            self.put_extra(bytes, Self::I_PROJID, self.projid);
        }
        seal(bytes, sb, ino);
    }

    /// F47: a field past 0x80 is written only where it exists.
    fn put_extra(&self, bytes: &mut [u8], offset: usize, value: u32) {
        if has_field(self.extra_isize, offset, 4) {
            put(bytes, offset, value);
        }
    }

    /// F49: what remains of a time of change or access once this inode stores it.
    pub fn as_stored(&self, time: Timestamp) -> Timestamp {
        time.stored(has_field(self.extra_isize, Self::I_MTIME_EXTRA, 4))
    }

    /// Makes each time what remains of it once it is stored, so that nobody sees more than is there after the next mount.
    pub fn keep_stored_times(&mut self) {
        let extra_isize = self.extra_isize;
        let stored = |time: Timestamp, offset| time.stored(has_field(extra_isize, offset, 4));
        self.atime = stored(self.atime, Self::I_ATIME_EXTRA);
        self.ctime = stored(self.ctime, Self::I_CTIME_EXTRA);
        self.mtime = stored(self.mtime, Self::I_MTIME_EXTRA);
        self.crtime = match has_field(extra_isize, Self::I_CRTIME, 4) {
            true => stored(self.crtime, Self::I_CRTIME_EXTRA),
            false => Timestamp::default(),
        };
    }

    fn put_times(&self, bytes: &mut [u8]) {
        let times = [
            (Self::I_ATIME, Self::I_ATIME_EXTRA, self.atime),
            (Self::I_CTIME, Self::I_CTIME_EXTRA, self.ctime),
            (Self::I_MTIME, Self::I_MTIME_EXTRA, self.mtime),
            (Self::I_CRTIME, Self::I_CRTIME_EXTRA, self.crtime),
        ];
        for (lo, hi, time) in times {
            if lo == Self::I_CRTIME && !has_field(self.extra_isize, lo, 4) {
                continue;
            }
            if has_field(self.extra_isize, hi, 4) {
                let (low, extra) = time.to_extra();
                put(bytes, lo, low);
                put(bytes, hi, extra);
            } else {
                put(bytes, lo, time.to_lo());
            }
        }
    }

    /// F50: the unit becomes the block only when sectors need more than 48 bits.
    fn put_blocks(&self, bytes: &mut [u8], sb: &Superblock) {
        assert!(self.blocks <= Self::max_blocks(sb), "i_blocks of {} sectors", self.blocks);
        let mut flags = self.flags & !flags::HUGE_FILE;
        let mut count = self.blocks;
        if count >> 48 != 0 {
            flags |= flags::HUGE_FILE;
            count /= u64::from(sb.block_size() / 512);
        }
        put(bytes, Self::I_FLAGS, flags);
        put(bytes, Self::I_BLOCKS_LO, count as u32);
        if sb.features().has_ro_compat(ro_compat::HUGE_FILE) {
            put(bytes, Self::I_BLOCKS_HIGH, (count >> 32) as u16);
        }
    }

    /// The largest i_blocks, in sectors, that the volume can store (F50).
    pub fn max_blocks(sb: &Superblock) -> u64 {
        if sb.features().has_ro_compat(ro_compat::HUGE_FILE) {
            ((1 << 48) - 1) * u64::from(sb.block_size() / 512)
        } else {
            u64::from(u32::MAX)
        }
    }

    /// The type bits of the mode.
    pub fn file_type(&self) -> u16 {
        self.mode & S_IFMT
    }

    /// A regular file?
    pub fn is_reg(&self) -> bool {
        self.file_type() == S_IFREG
    }

    /// A directory?
    pub fn is_dir(&self) -> bool {
        self.file_type() == S_IFDIR
    }

    /// A symbolic link?
    pub fn is_symlink(&self) -> bool {
        self.file_type() == S_IFLNK
    }

    /// A symbolic link whose text is in `i_block` (F56)?
    pub fn is_fast_symlink(&self) -> bool {
        self.is_symlink() && self.size < Self::I_BLOCK_SIZE as u64 && !self.has_flag(flags::INLINE_DATA)
    }

    /// Whether a [`flags`] bit is set.
    pub fn has_flag(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether times have nanoseconds and 34 bits of seconds here.
    pub fn has_extra_times(&self) -> bool {
        has_field(self.extra_isize, Self::I_CRTIME_EXTRA, 4)
    }

    /// F55: major and minor of a device.
    pub fn device(&self) -> (u32, u32) {
        let (old, new): (u32, u32) = (get(&self.i_block, 0), get(&self.i_block, 4));
        if old != 0 {
            (old >> 8 & 0xFF, old & 0xFF)
        } else {
            (new >> 8 & 0xFFF, (new & 0xFF) | (new >> 12 & 0xFFF00))
        }
    }

    /// F55: makes `i_block` name a device; major below 2^12, minor below 2^20.
    pub fn set_device(&mut self, major: u32, minor: u32) {
        assert!(major < 1 << 12 && minor < 1 << 20);
        self.i_block = [0; Self::I_BLOCK_SIZE];
        if major < 256 && minor < 256 {
            put(&mut self.i_block, 0, major << 8 | minor);
        } else {
            put(&mut self.i_block, 4, (minor & 0xFF) | major << 8 | (minor & !0xFF) << 12);
        }
    }

    /// Where in-inode xattrs may start. Without a fixed part past 0x80 there are none: the two bytes of
    /// i_extra_isize itself are in the way, and the kernel takes the room for a fixed part.
    fn xattr_start(&self) -> usize {
        let extra = usize::from(self.extra_isize);
        if extra == 0 { self.raw.len() } else { (Self::GOOD_OLD_SIZE + extra).min(self.raw.len()) }
    }

    /// The bytes behind the fixed part: in-inode xattrs and slack (F82). Empty with 128-byte inodes and with
    /// i_extra_isize 0.
    pub fn xattr_area(&self) -> &[u8] {
        &self.raw[self.xattr_start()..]
    }

    /// The same, to change.
    pub fn xattr_area_mut(&mut self) -> &mut [u8] {
        let start = self.xattr_start();
        &mut self.raw[start..]
    }

    /// Gives an inode that has room but no fixed part past 0x80 that of a new inode, as the kernel does when it
    /// changes one; what stood there means nothing (F47).
    pub fn want_extra_isize(&mut self) {
        if self.extra_isize == 0 && self.raw.len() > Self::GOOD_OLD_SIZE {
            self.raw[Self::GOOD_OLD_SIZE..].fill(0);
            self.extra_isize = Self::WANT_EXTRA_ISIZE;
        }
    }

    /// The seed of the blocks that belong to this inode (F4).
    pub fn seed(&self, sb: &Superblock, ino: Ino) -> u32 {
        inode_seed(sb.fs_seed(), ino, self.generation)
    }
}

/// F47.
fn has_field(extra_isize: u16, offset: usize, size: usize) -> bool {
    offset + size <= Inode::GOOD_OLD_SIZE + usize::from(extra_isize)
}

/// F48: whether the upper half of the checksum exists.
fn has_checksum_hi(bytes: &[u8]) -> bool {
    bytes.len() > Inode::GOOD_OLD_SIZE && get::<u16>(bytes, Inode::I_EXTRA_ISIZE) >= 4
}

fn checksum(bytes: &[u8], sb: &Superblock, ino: Ino) -> u32 {
    let seed = inode_seed(sb.fs_seed(), ino, get(bytes, Inode::I_GENERATION));
    let state = crc32c(seed, &bytes[..Inode::I_CHECKSUM_LO]);
    let mut state = crc32c(state, &[0; 2]);
    let mut rest = Inode::I_CHECKSUM_LO + 2;
    if has_checksum_hi(bytes) {
        state = crc32c(state, &bytes[rest..Inode::I_CHECKSUM_HI]);
        state = crc32c(state, &[0; 2]);
        rest = Inode::I_CHECKSUM_HI + 2;
    }
    crc32c(state, &bytes[rest..])
}

/// Stores the checksum of an encoded inode; does nothing without metadata_csum.
pub fn seal(bytes: &mut [u8], sb: &Superblock, ino: Ino) {
    if !sb.features().has_ro_compat(ro_compat::METADATA_CSUM) {
        return;
    }
    let sum = checksum(bytes, sb, ino);
    put(bytes, Inode::I_CHECKSUM_LO, sum as u16);
    if has_checksum_hi(bytes) {
        put(bytes, Inode::I_CHECKSUM_HI, (sum >> 16) as u16);
    }
}

/// F48. An inode whose old part is all zero passes.
fn verify_checksum(bytes: &[u8], sb: &Superblock, ino: Ino) -> Result<()> {
    let unused = bytes[..Inode::GOOD_OLD_SIZE].iter().all(|byte| *byte == 0);
    if !sb.features().has_ro_compat(ro_compat::METADATA_CSUM) || unused {
        return Ok(());
    }
    let lo = u32::from(get::<u16>(bytes, Inode::I_CHECKSUM_LO));
    let mut expected = checksum(bytes, sb, ino);
    let found = if has_checksum_hi(bytes) {
        u32::from(get::<u16>(bytes, Inode::I_CHECKSUM_HI)) << 16 | lo
    } else {
        expected &= 0xFFFF;
        lo
    };
    if found != expected {
        return Err(Corrupt::Checksum { what: WHAT, found, expected });
    }
    Ok(())
}
