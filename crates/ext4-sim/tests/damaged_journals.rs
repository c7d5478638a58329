//! Damaged journals, judged by the kernel and by us: both refuse, or both show the same directories.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ext4::{Fs, MountOptions, NewInode};
use ext4_sim::memory::MemoryDevice;
use ext4_sim::oracle::{KernelMount, Need, available, debugfs};
use ext4_sim::runner::format;

const BS: usize = 1024;
const TRANSACTIONS: usize = 8;
const CASES: u64 = 60;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;

/// A dirty volume and where its log lies.
struct Victim {
    bytes: Vec<u8>,
    /// Log block n → block.
    map: Vec<usize>,
    /// Log blocks of the log, in order, and whether they are control blocks.
    used: Vec<(usize, bool)>,
    has_sums: bool,
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn raw_crc32c(state: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!state, bytes)
}

impl Victim {
    fn new(dir: &Path, features: &str) -> Self {
        let image = dir.join("image");
        format(&image, 8 << 20, |options| {
            options.block_size = Some(BS as u32);
            options.features = features.into();
        });
        // Its version, in words, comes along.
        let map: Vec<usize> =
            debugfs(&image, "blocks <8>").split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let device = Arc::new(MemoryDevice::new(std::fs::read(&image).unwrap()));
        let (fs, _) = Fs::mount(device.clone(), &MountOptions::default()).unwrap();
        for n in 0..TRANSACTIONS {
            fs.mkdir(format!("/dir {n}").as_bytes(), NewInode { mode: 0o755, uid: 0, gid: 0 }).unwrap();
            if n % 3 == 2 {
                // A revoke.
                fs.rmdir(format!("/dir {}", n - 1).as_bytes()).unwrap();
            }
            fs.sync().unwrap();
        }
        fs.shut_down();
        let bytes = device.snapshot();
        let mut this = Self { bytes, map, used: Vec::new(), has_sums: !features.contains("^metadata_csum") };
        let mut n = be32(&this.block(0)[0x1C..]) as usize;
        let mut commits = 0;
        while commits < TRANSACTIONS {
            let block = this.block(n);
            let control = be32(block) == 0xC03B_3998;
            commits += usize::from(control && be32(&block[4..]) == COMMIT);
            this.used.push((n, control));
            n += 1;
        }
        this
    }

    fn block(&self, n: usize) -> &[u8] {
        &self.bytes[self.map[n] * BS..][..BS]
    }

    /// The sums of a control block, or of the superblock, made right.
    fn seal(&self, n: usize, block: &mut [u8]) {
        if !self.has_sums {
            return;
        }
        let (at, seed) = match (n, be32(&block[4..])) {
            (0, _) => (0xFC, !0),
            (_, COMMIT) => (16, raw_crc32c(!0, &self.block(0)[0x30..0x40])),
            _ => (BS - 4, raw_crc32c(!0, &self.block(0)[0x30..0x40])),
        };
        block[at..at + 4].fill(0);
        let sum = raw_crc32c(seed, block);
        block[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }

    /// The volume with one byte of its log changed, and what was done.
    fn damaged(&self, random: &mut impl FnMut(usize) -> usize) -> (Vec<u8>, String) {
        let (n, control) = match random(8) {
            0 => (0, true),
            _ => self.used[random(self.used.len())],
        };
        let mut block = self.block(n).to_vec();
        let kind = be32(&block[4..]);
        let at = match (n, control) {
            // JSB: sequence, start, errno, features.
            (0, _) => 0x18 + random(0x14),
            // Without sums a wrong tag or block would damage the volume itself.
            _ if !self.has_sums => random(12),
            (_, false) => random(BS),
            _ if kind == DESCRIPTOR && random(2) == 0 => 12 + 4 + random(4),
            _ => [random(12), 12 + random(52), random(BS)][random(3)],
        };
        if !self.has_sums && !control {
            return self.damaged(random);
        }
        let value = if random(3) == 0 { block[at] ^ 1 << random(8) } else { random(256) as u8 };
        // An escape where there was none would put the magic into a good block, and damage the volume itself.
        let value = if kind == DESCRIPTOR && at == 19 { value & !1 | block[at] & 1 } else { value };
        // Sealed again, a tag's block number would send a good block anywhere.
        let names_a_block = kind == DESCRIPTOR && at >= 12;
        let flags = kind == DESCRIPTOR && (16..20).contains(&at);
        let seal = control && (!names_a_block || flags) && random(2) == 0;
        let told = format!("log block {n} (type {kind}), byte {at}: {} to {value}, sealed {seal}", block[at]);
        block[at] = value;
        if seal {
            self.seal(n, &mut block);
        }
        let mut bytes = self.bytes.clone();
        bytes[self.map[n] * BS..][..BS].copy_from_slice(&block);
        (bytes, told)
    }
}

/// The directories that we see after recovery; `None` where we refuse.
fn ours(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    let device = Arc::new(MemoryDevice::new(bytes.to_vec()));
    let (fs, _) = Fs::mount(device, &MountOptions::default()).map_err(|error| error.to_string())?;
    let mut names = BTreeSet::new();
    let collect = &mut |name: &[u8], _, _| {
        names.insert(String::from_utf8_lossy(name).into_owned());
        true
    };
    fs.read_dir(b"/", collect).map_err(|error| error.to_string())?;
    names.remove(".");
    names.remove("..");
    Ok(names)
}

fn the_kernels(image: &Path, bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    std::fs::write(image, bytes).unwrap();
    let mounted = KernelMount::try_new(image, "rw")?;
    let entries = std::fs::read_dir(mounted.path()).map_err(|error| error.to_string())?;
    Ok(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
}

/// X38.
#[test]
fn x38_the_kernel_and_we_judge_alike() {
    const TEST: &str = "x38_the_kernel_and_we_judge_alike";
    if !available(Need::E2fsprogs, TEST) || !available(Need::KernelMount, TEST) {
        return;
    }
    for (features, seed) in [("", 1), ("^metadata_csum,^metadata_csum_seed", 2)] {
        let dir = tempfile::tempdir().unwrap();
        let victim = Victim::new(dir.path(), features);
        let image = dir.path().join("damaged");
        let whole = the_kernels(&image, &victim.bytes);
        assert_eq!(ours(&victim.bytes), whole);
        let mut state: u64 = seed;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut refused, mut prefixes) = (0, 0);
        for case in 0..CASES {
            let (bytes, told) = victim.damaged(&mut random);
            let (kernel, we) = (the_kernels(&image, &bytes), ours(&bytes));
            refused += usize::from(we.is_err());
            prefixes += usize::from(we.is_ok() && we != whole);
            let alike = match (&kernel, &we) {
                (Ok(kernel), Ok(we)) => kernel == we,
                (kernel, we) => kernel.is_err() == we.is_err(),
            };
            assert!(alike, "{features} case {case}: {told}\nkernel {kernel:?}\nwe {we:?}");
        }
        eprintln!("{features}: {refused} refused, {prefixes} shorter, of {CASES}");
        assert!(refused >= 3 && prefixes >= 3, "{refused} refused, {prefixes} shorter");
    }
}

/// X39. Any byte of the log's control blocks and of JSB, with the sums made right: an error, or a mount that can be read; no
/// panic, no hang, and nothing beyond the volume (the device would refuse it).
#[test]
fn any_byte_with_its_sum_made_right() {
    if !available(Need::E2fsprogs, "any_byte_with_its_sum_made_right") {
        return;
    }
    for (features, seed) in [("", 3u64), ("^metadata_csum,^metadata_csum_seed", 4)] {
        let dir = tempfile::tempdir().unwrap();
        let victim = Victim::new(dir.path(), features);
        let mut state = seed;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let control: Vec<usize> =
            victim.used.iter().filter(|(_, control)| *control).map(|(n, _)| *n).chain([0]).collect();
        let (mut refused, mut mounted) = (0, 0);
        for _ in 0..600 {
            let n = control[random(control.len())];
            let mut block = victim.block(n).to_vec();
            for _ in 0..=random(2) {
                let at = [random(0x5C), random(256), random(BS)][random(3)];
                block[at] = [random(256) as u8, 0, 0xFF, block[at] ^ 1 << random(8)][random(4)];
            }
            victim.seal(n, &mut block);
            let mut bytes = victim.bytes.clone();
            bytes[victim.map[n] * BS..][..BS].copy_from_slice(&block);
            match ours(&bytes) {
                Ok(_) => mounted += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 30 && mounted > 30, "{refused} refused, {mounted} mounted");
    }
}

/// X3. An impossible r_count was an end of the log where its transaction has no commit block, and the mount went on; Linux 6.18
/// refuses it wherever it is met.
#[test]
fn x3_damaged_revoke_blocks_as_the_kernel_judges_them() {
    const TEST: &str = "x3_damaged_revoke_blocks_as_the_kernel_judges_them";
    const REVOKE: u32 = 5;
    if !available(Need::E2fsprogs, TEST) || !available(Need::KernelMount, TEST) {
        return;
    }
    for features in ["", "^metadata_csum,^metadata_csum_seed"] {
        let dir = tempfile::tempdir().unwrap();
        let victim = Victim::new(dir.path(), features);
        let image = dir.path().join("damaged");
        let control: Vec<usize> = victim.used.iter().filter(|used| used.1).map(|used| used.0).collect();
        let kind = |n: usize| be32(&victim.block(n)[4..]);
        let revoke = control.iter().copied().find(|&n| kind(n) == REVOKE).unwrap();
        let commit = control.iter().copied().find(|&n| n > revoke && kind(n) == COMMIT).unwrap();
        let most = BS as u32 - if victim.has_sums { 4 } else { 0 };
        for (count, sealed) in [(15, true), (20, false), (most, true), (most + 1, true), (most + 1, false)] {
            for committed in [true, false] {
                let mut block = victim.block(revoke).to_vec();
                block[12..16].copy_from_slice(&count.to_be_bytes());
                if sealed {
                    victim.seal(revoke, &mut block);
                }
                let mut bytes = victim.bytes.clone();
                bytes[victim.map[revoke] * BS..][..BS].copy_from_slice(&block);
                if !committed {
                    bytes[victim.map[commit] * BS..][..BS].fill(0);
                }
                let (kernel, we) = (the_kernels(&image, &bytes), ours(&bytes));
                let told = format!("'{features}', {count}, {sealed}, {committed}: {kernel:?}, {we:?}");
                assert_eq!(kernel.ok(), we.ok(), "{told}");
            }
        }
    }
}
