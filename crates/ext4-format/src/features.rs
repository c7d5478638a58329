//! F13: feature flags, their names, and what a mount may do with them.

use std::fmt;

macro_rules! flags {
    ($(#[$doc:meta])* $module:ident, $table:ident: $($konst:ident = $bit:literal $name:literal,)*) => {
        $(#[$doc])*
        #[expect(missing_docs, reason = "the names are the format's (F13)")]
        pub mod $module {
            $(pub const $konst: u32 = $bit;)*
        }
        const $table: &[(u32, &str)] = &[$(($bit, $name),)*];
    };
}

flags! {
    /// Whoever does not know such a bit may read and write.
    compat, COMPAT_NAMES:
    DIR_PREALLOC = 0x1 "dir_prealloc",
    IMAGIC_INODES = 0x2 "imagic_inodes",
    HAS_JOURNAL = 0x4 "has_journal",
    EXT_ATTR = 0x8 "ext_attr",
    RESIZE_INODE = 0x10 "resize_inode",
    DIR_INDEX = 0x20 "dir_index",
    SPARSE_SUPER2 = 0x200 "sparse_super2",
    FAST_COMMIT = 0x400 "fast_commit",
    STABLE_INODES = 0x800 "stable_inodes",
    ORPHAN_FILE = 0x1000 "orphan_file",
}
flags! {
    /// Whoever does not know such a bit may not even read.
    incompat, INCOMPAT_NAMES:
    COMPRESSION = 0x1 "compression",
    FILETYPE = 0x2 "filetype",
    RECOVER = 0x4 "needs_recovery",
    JOURNAL_DEV = 0x8 "journal_dev",
    META_BG = 0x10 "meta_bg",
    EXTENTS = 0x40 "extent",
    BIT64 = 0x80 "64bit",
    MMP = 0x100 "mmp",
    FLEX_BG = 0x200 "flex_bg",
    EA_INODE = 0x400 "ea_inode",
    DIRDATA = 0x1000 "dirdata",
    CSUM_SEED = 0x2000 "metadata_csum_seed",
    LARGE_DIR = 0x4000 "large_dir",
    INLINE_DATA = 0x8000 "inline_data",
    ENCRYPT = 0x10000 "encrypt",
    CASEFOLD = 0x20000 "casefold",
}
flags! {
    /// Whoever does not know such a bit may read only.
    ro_compat, RO_COMPAT_NAMES:
    SPARSE_SUPER = 0x1 "sparse_super",
    LARGE_FILE = 0x2 "large_file",
    BTREE_DIR = 0x4 "btree_dir",
    HUGE_FILE = 0x8 "huge_file",
    GDT_CSUM = 0x10 "uninit_bg",
    DIR_NLINK = 0x20 "dir_nlink",
    EXTRA_ISIZE = 0x40 "extra_isize",
    HAS_SNAPSHOT = 0x80 "snapshot_bitmap",
    QUOTA = 0x100 "quota",
    BIGALLOC = 0x200 "bigalloc",
    METADATA_CSUM = 0x400 "metadata_csum",
    REPLICA = 0x800 "replica",
    READONLY = 0x1000 "read-only",
    PROJECT = 0x2000 "project",
    SHARED_BLOCKS = 0x4000 "shared_blocks",
    VERITY = 0x8000 "verity",
    ORPHAN_PRESENT = 0x10000 "orphan_present",
}

/// The three feature words of a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// [`compat`] bits.
    pub compat: u32,
    /// [`incompat`] bits.
    pub incompat: u32,
    /// [`ro_compat`] bits.
    pub ro_compat: u32,
}

/// What a mount may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    ReadWrite,
    /// Reading only; why.
    ReadOnly(String),
}

/// A volume that must not be mounted at all; why (the caller gets EOPNOTSUPP).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Features that change what every reader must understand, and that nobody here does.
const REFUSED: u32 = incompat::COMPRESSION | incompat::DIRDATA | incompat::JOURNAL_DEV | incompat::CASEFOLD;

const INCOMPAT_WRITABLE: u32 = incompat::FILETYPE
    | incompat::RECOVER
    | incompat::META_BG
    | incompat::EXTENTS
    | incompat::BIT64
    | incompat::MMP
    | incompat::FLEX_BG
    | incompat::CSUM_SEED;

const RO_COMPAT_WRITABLE: u32 = ro_compat::SPARSE_SUPER
    | ro_compat::LARGE_FILE
    | ro_compat::HUGE_FILE
    | ro_compat::GDT_CSUM
    | ro_compat::DIR_NLINK
    | ro_compat::EXTRA_ISIZE
    | ro_compat::METADATA_CSUM
    | ro_compat::ORPHAN_PRESENT;

/// F13 for the features built so far: unknown incompat bits refuse; known ones that only touch some inodes, and
/// ro_compat bits that a writer would have to maintain, leave reading.
pub fn mount_policy(features: &Features) -> Result<Access, Refusal> {
    let known = INCOMPAT_NAMES.iter().fold(0, |mask, (bit, _)| mask | bit);
    let refused = features.incompat & (REFUSED | !known);
    if refused != 0 {
        let names = Features { incompat: refused, ..Features::default() };
        return Err(Refusal(format!("unsupported features: {names}")));
    }
    let unwritable = Features {
        compat: 0,
        incompat: features.incompat & !INCOMPAT_WRITABLE,
        ro_compat: features.ro_compat & !RO_COMPAT_WRITABLE,
    };
    if unwritable != Features::default() {
        return Ok(Access::ReadOnly(format!("features that cannot be written: {unwritable}")));
    }
    Ok(Access::ReadWrite)
}

/// The word that a feature name belongs to, and its bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Compat(u32),
    Incompat(u32),
    RoCompat(u32),
}

fn find(name: &str) -> Option<Flag> {
    // Other spellings that mke2fs takes.
    let name = match name {
        "extents" => "extent",
        "gdt_csum" => "uninit_bg",
        "large_files" => "large_file",
        other => other,
    };
    let bit = |table: &[(u32, &str)]| table.iter().find(|(_, n)| *n == name).map(|(bit, _)| *bit);
    bit(COMPAT_NAMES)
        .map(Flag::Compat)
        .or_else(|| bit(INCOMPAT_NAMES).map(Flag::Incompat))
        .or_else(|| bit(RO_COMPAT_NAMES).map(Flag::RoCompat))
}

impl Features {
    /// Whether all of the [`compat`] bits are set.
    pub fn has_compat(&self, bits: u32) -> bool {
        self.compat & bits == bits
    }

    /// Whether all of the [`incompat`] bits are set.
    pub fn has_incompat(&self, bits: u32) -> bool {
        self.incompat & bits == bits
    }

    /// Whether all of the [`ro_compat`] bits are set.
    pub fn has_ro_compat(&self, bits: u32) -> bool {
        self.ro_compat & bits == bits
    }

    /// Whether group descriptors carry a checksum of either kind, so that their flags mean something (F19).
    pub fn has_group_checksum(&self) -> bool {
        self.ro_compat & (ro_compat::GDT_CSUM | ro_compat::METADATA_CSUM) != 0
    }

    /// Sets or clears the feature of mke2fs's name; `false` if there is none of that name.
    pub fn set(&mut self, name: &str, on: bool) -> bool {
        let (word, bit) = match find(name) {
            Some(Flag::Compat(bit)) => (&mut self.compat, bit),
            Some(Flag::Incompat(bit)) => (&mut self.incompat, bit),
            Some(Flag::RoCompat(bit)) => (&mut self.ro_compat, bit),
            None => return false,
        };
        if on {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        true
    }

    /// Applies a list as `mke2fs -O` takes it: names separated by commas, `^` clears, `none` clears all before
    /// it. Errors with the first unknown name.
    pub fn apply(&mut self, list: &str) -> Result<(), String> {
        for item in list.split([',', ' ']).filter(|item| !item.is_empty()) {
            if item == "none" {
                *self = Self::default();
                continue;
            }
            let (name, on) = item.strip_prefix('^').map_or((item, true), |name| (name, false));
            if !self.set(name, on) {
                return Err(name.to_string());
            }
        }
        Ok(())
    }

    /// The names of the set bits as mke2fs prints them; an unknown bit reads `FEATURE_I31` (word and bit).
    pub fn names(&self) -> Vec<String> {
        let words = [
            (self.compat, COMPAT_NAMES, 'C'),
            (self.incompat, INCOMPAT_NAMES, 'I'),
            (self.ro_compat, RO_COMPAT_NAMES, 'R'),
        ];
        let mut names = Vec::new();
        for (word, table, letter) in words {
            for shift in (0..32).filter(|shift| word >> shift & 1 == 1) {
                let known = table.iter().find(|(bit, _)| *bit == 1 << shift);
                names.push(known.map_or(format!("FEATURE_{letter}{shift}"), |(_, name)| (*name).to_string()));
            }
        }
        names
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str = "has_journal,ext_attr,resize_inode,dir_index,orphan_file,filetype,extent,64bit,flex_bg,\
                            metadata_csum_seed,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

    fn features(list: &str) -> Features {
        let mut features = Features::default();
        features.apply(list).unwrap();
        features
    }

    #[test]
    fn names_and_bits_agree() {
        let upstream = features(UPSTREAM);
        assert_eq!(upstream, Features { compat: 0x103c, incompat: 0x22c2, ro_compat: 0x46b });
        assert_eq!(features(&upstream.names().join(",")), upstream);
        assert_eq!(features("extents,^extent,gdt_csum").names(), ["uninit_bg"]);
        assert_eq!(Features::default().apply("extent,nonsense"), Err("nonsense".into()));
        assert_eq!(Features { incompat: 1 << 31, ..Features::default() }.names(), ["FEATURE_I31"]);
    }

    #[test]
    fn every_feature_has_a_policy() {
        let outcome = |list: &str| match mount_policy(&features(&format!("{UPSTREAM},{list}"))) {
            Ok(Access::ReadWrite) => "rw",
            Ok(Access::ReadOnly(_)) => "ro",
            Err(_) => "no",
        };
        let writable = "dir_prealloc imagic_inodes ^has_journal ^ext_attr ^resize_inode ^dir_index sparse_super2 \
            fast_commit stable_inodes ^orphan_file ^filetype needs_recovery meta_bg ^64bit mmp ^flex_bg \
            ^metadata_csum_seed ^sparse_super ^large_file ^huge_file uninit_bg ^dir_nlink ^extra_isize \
            ^metadata_csum orphan_present ^extent";
        let readable = "ea_inode large_dir inline_data encrypt btree_dir snapshot_bitmap quota \
            bigalloc replica read-only project shared_blocks verity";
        let refused = "compression dirdata journal_dev casefold";
        for (list, expected) in [(writable, "rw"), (readable, "ro"), (refused, "no")] {
            for name in list.split_whitespace() {
                assert_eq!(outcome(name), expected, "{name}");
            }
        }
    }

    #[test]
    fn f13_every_unknown_bit() {
        let base = features(UPSTREAM);
        let known_incompat = INCOMPAT_NAMES.iter().fold(0, |mask, (bit, _)| mask | bit);
        let known_ro = RO_COMPAT_NAMES.iter().fold(0, |mask, (bit, _)| mask | bit);
        for shift in 0..32 {
            let bit = 1 << shift;
            let compat = Features { compat: base.compat | bit, ..base };
            assert_eq!(mount_policy(&compat), Ok(Access::ReadWrite), "compat {shift}");
            if known_incompat & bit == 0 {
                assert!(mount_policy(&Features { incompat: base.incompat | bit, ..base }).is_err());
            }
            if known_ro & bit == 0 {
                let policy = mount_policy(&Features { ro_compat: base.ro_compat | bit, ..base });
                assert!(matches!(policy, Ok(Access::ReadOnly(_))), "ro_compat {shift}");
            }
        }
    }
}
