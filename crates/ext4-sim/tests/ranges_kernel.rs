//! fallocate, truncate and lseek beside the kernel's: the same random calls on files of two volumes must answer the same, and
//! leave the same sizes, contents and extents.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use block_io::{EventFd, ThreadsQueue};
use ext4::aio::FileId;
use ext4::{DataMode, FallocateMode, MountOptions, Result, Whence};
use ext4_sim::oracle::{KernelMount, Need, assert_clean, available, tool_ok};
use ext4_sim::runner::{Backend, Runner, format, open_device};

/// Runs calls of lines on standard input; answers each with its result, or the negative errno.
const KERNEL_SIDE: &str = r#"
use strict; use Fcntl; $| = 1; my $f;
while (<STDIN>) {
    my ($op, @a) = split;
    my $r;
    if ($op eq 'open') { close $f if $f; $r = sysopen($f, $a[0], O_RDWR | O_CREAT) ? 0 : -1; }
    elsif ($op eq 'write') { sysseek($f, $a[0], 0); $r = syswrite($f, chr($a[2]) x $a[1]); $r = -1 if !defined $r; }
    elsif ($op eq 'truncate') { $r = truncate($f, $a[0]) ? 0 : -1; }
    elsif ($op eq 'fallocate') { $r = syscall(285, fileno($f), map { $_ + 0 } @a); }
    elsif ($op eq 'seek') {
        # A cached page over unwritten blocks is data to the kernel, also where a large folio merely reaches there.
        syscall(74, fileno($f)); syscall(221, fileno($f), 0, 0, 4);
        $r = syscall(8, fileno($f), $a[0] + 0, $a[1] + 0);
    }
    elsif ($op eq 'fsync') { $r = syscall(74, fileno($f)); }
    $r = -($! + 0) if $r == -1;
    print "$r\n";
}
"#;

/// Through the page cache then: a hole in a block map, for one.
const ENOTBLK: i32 = 15;

/// One call on the open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Write { pos: u64, len: u64, byte: u8 },
    Truncate { size: u64 },
    Fallocate { mode: u32, pos: u64, len: u64 },
    Seek { pos: u64, whence: u32 },
    Sync,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { pos, len, byte } => write!(f, "write {pos} {len} {byte}"),
            Self::Truncate { size } => write!(f, "truncate {size}"),
            Self::Fallocate { mode, pos, len } => write!(f, "fallocate {mode} {pos} {len}"),
            Self::Seek { pos, whence } => write!(f, "seek {pos} {whence}"),
            Self::Sync => write!(f, "fsync"),
        }
    }
}

/// The kernel's side of the comparison.
struct Kernel {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Kernel {
    fn start() -> Self {
        let mut child = Command::new("perl")
            .args(["-e", KERNEL_SIDE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    fn ask(&mut self, line: &str) -> i64 {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().parse().unwrap_or_else(|_| panic!("{line}: {answer:?}"))
    }

    fn stop(mut self) {
        drop(self.input);
        self.child.wait().unwrap();
    }
}

/// The same numbers on every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    /// A position or length: half of them multiples of a block.
    fn bytes(&mut self, block: u64, blocks: u64) -> u64 {
        match self.below(4) {
            0 | 1 => self.below(blocks) * block,
            2 => self.below(blocks * block),
            _ => (self.below(blocks) * block + self.below(5)).saturating_sub(2),
        }
    }

    fn call(&mut self, block: u64, base: u64) -> Call {
        const MODES: [u32; 12] = [0, 1, 3, 3, 3, 0x10, 0x11, 8, 8, 0x20, 0x20, 2];
        let pos = base + self.bytes(block, 40);
        match self.below(12) {
            0..=3 => Call::Write { pos, len: 1 + self.bytes(block, 12), byte: 1 + self.below(250) as u8 },
            4 => Call::Truncate { size: base + self.bytes(block, 50) },
            5..=9 => {
                let mode = MODES[self.below(MODES.len() as u64) as usize];
                let aligned = mode & 0x28 != 0 && self.below(8) != 0;
                let len = self.bytes(block, 20);
                let round = |bytes: u64| if aligned { bytes.next_multiple_of(block) } else { bytes };
                Call::Fallocate { mode, pos: round(pos), len: round(len) }
            }
            10 => Call::Seek { pos, whence: 3 + self.below(2) as u32 },
            _ => Call::Sync,
        }
    }
}

/// Our side: the result, or the negative errno.
fn ours(volume: &mut Runner, file: FileId, call: Call, direct: bool) -> i64 {
    let inode = volume.inode(file);
    let fs = volume.fs().clone();
    let result: Result<u64> = match call {
        Call::Write { pos, len, byte } => {
            let data = vec![byte; len as usize];
            let direct = match direct && (pos | len).is_multiple_of(4096) {
                true => volume.direct_write(file, pos, &data),
                false => Err(ext4::Error::errno_only(ENOTBLK)),
            };
            match direct {
                Ok(done) if done == len => Ok(len),
                Err(error) if error.errno() != ENOTBLK => Err(error),
                short => {
                    let done = short.unwrap_or(0);
                    fs.file_modified(&inode)
                        .and_then(|()| fs.buffered_write(&inode, pos + done, &data[done as usize..]))
                        .map(|rest| done + rest as u64)
                }
            }
        }
        Call::Truncate { size } => fs.truncate(&inode, size).map(|()| 0),
        Call::Fallocate { mode, pos, len } => {
            // An empty range is refused before the mode.
            let mode = if len == 0 { Ok(FallocateMode::PunchHole) } else { FallocateMode::from_bits(mode) };
            mode.and_then(|mode| fs.fallocate(&inode, mode, pos, len)).map(|()| 0)
        }
        Call::Seek { pos, whence } => volume
            .sync(file)
            .and_then(|()| Whence::from_number(whence))
            .and_then(|whence| fs.seek(&inode, pos, whence)),
        Call::Sync => volume.sync(file).map(|()| 0),
    };
    result.map_or_else(|error| -i64::from(error.errno()), |number| number as i64)
}

/// Size, contents from `base` on, and where it has blocks of which state: (first byte, length, unwritten), joined.
type Shape = (u64, Vec<u8>, Vec<(u64, u64, bool)>);

fn shape(volume: &mut Runner, path: &str, base: u64, mode: DataMode) -> Shape {
    let file = volume.open(path).unwrap();
    let inode = volume.inode(file);
    let fs = volume.fs().clone();
    let size = fs.sizes(&inode).0;
    let mut data = vec![0; size.saturating_sub(base) as usize];
    assert_eq!(fs.buffered_read(&inode, base, &mut data).unwrap(), data.len());
    let mut runs: Vec<(u64, u64, bool)> = Vec::new();
    let extents = fs.extents(&inode, 0, u64::MAX, usize::MAX).unwrap();
    assert!(extents.iter().rev().enumerate().all(|(index, extent)| extent.last == (index == 0)));
    for extent in extents {
        assert!(!extent.delalloc && !extent.inline);
        // D8: where data is logged the kernel would rather zero small unwritten neighbours than split.
        let state = extent.unwritten && mode != DataMode::Journal;
        match runs.last_mut() {
            Some((start, len, unwritten)) if *start + *len == extent.logical && *unwritten == state => {
                *len += extent.len;
            }
            _ => runs.push((extent.logical, extent.len, state)),
        }
    }
    volume.close(file).unwrap();
    (size, data, runs)
}

fn mount_with(image: &Path, data: DataMode) -> Runner {
    let device = open_device(image);
    let event = Arc::new(EventFd::new().unwrap());
    let queue = Box::new(ThreadsQueue::new(device.clone(), event.clone()).unwrap());
    Runner::with_options(device, queue, event, &MountOptions { data: Some(data), ..MountOptions::default() })
        .unwrap()
}

/// Runs `files` × `calls` on both sides and compares.
/// One kind of volume.
#[derive(Clone, Copy)]
struct Kind {
    block: u32,
    /// `mke2fs -O`; "": as we make volumes.
    features: &'static str,
    /// data= of mount(8).
    data: DataMode,
}

fn compare(kind: Kind, files: u64, calls: u64, seed: u64) {
    let Kind { block, features, .. } = kind;
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
    match features {
        "" => format(&image, 64 << 20, |options| options.block_size = Some(block)),
        features => {
            let (block, image) = (block.to_string(), image.to_str().unwrap());
            tool_ok("mke2fs", &["-q", "-t", "ext4", "-b", &block, "-O", features, image, "64M"]);
        }
    }
    std::fs::copy(&image, &copy).unwrap();
    let mut logs: Vec<Vec<(Call, i64, i64)>> = Vec::new();
    run_both(&image, &copy, kind, (files, calls), seed, &mut logs);
    assert_clean(&image);
    assert_clean(&copy);
    let mut volume = Runner::mount(&image, Backend::Threads);
    let mut theirs = Runner::mount(&copy, Backend::Threads);
    let mut contents = Vec::new();
    for (index, log) in logs.iter().enumerate() {
        let (path, base) = (format!("/f{index}"), base_of(index as u64));
        let (mine, kernels) =
            (shape(&mut volume, &path, base, kind.data), shape(&mut theirs, &path, base, kind.data));
        assert_eq!((mine.0, &mine.2), (kernels.0, &kernels.2), "{path}: {log:?}");
        let differs = mine.1.iter().zip(&kernels.1).position(|(a, b)| a != b);
        contents.push(mine.1);
        assert_eq!(differs, None, "{path}: contents differ at this byte: {log:?}");
    }
    volume.unmount().unwrap();
    theirs.unmount().unwrap();
    // And the kernel reads ours.
    let mount = KernelMount::new(&image, "ro");
    for (index, expected) in contents.into_iter().enumerate() {
        let file = File::open(mount.path().join(format!("f{index}"))).unwrap();
        let mut data = vec![0; expected.len()];
        file.read_exact_at(&mut data, base_of(index as u64)).unwrap();
        assert!(data == expected, "f{index}: the kernel reads ours otherwise: {:?}", logs[index]);
    }
}

/// Some files lie across 4 GiB.
fn base_of(index: u64) -> u64 {
    if index % 4 == 3 { (4 << 30) - 80 * 1024 } else { 0 }
}

fn run_both(
    image: &Path,
    copy: &Path,
    kind: Kind,
    (files, calls): (u64, u64),
    seed: u64,
    logs: &mut Vec<Vec<(Call, i64, i64)>>,
) {
    let mut volume = mount_with(image, kind.data);
    let mount = KernelMount::new(
        copy,
        match kind.data {
            DataMode::Ordered => "rw,data=ordered",
            DataMode::Journal => "rw,data=journal",
            DataMode::Writeback => "rw,data=writeback",
        },
    );
    let block = kind.block.into();
    let mut kernel = Kernel::start();
    for index in 0..files {
        let mut random = Random(seed << 32 | index);
        let file = volume.create(&format!("/f{index}")).unwrap();
        assert_eq!(kernel.ask(&format!("open {}/f{index}", mount.path().display())), 0);
        let mut log = Vec::new();
        for _ in 0..calls {
            let call = random.call(block, base_of(index));
            let direct = random.below(2) == 0;
            let answers = (call, ours(&mut volume, file, call, direct), kernel.ask(&call.to_string()));
            log.push(answers);
            // The kernel cannot drop pages that wait for a checkpoint.
            let cached = kind.data == DataMode::Journal && matches!(call, Call::Seek { .. });
            assert!(answers.1 == answers.2 || cached, "/f{index}: {log:?}");
        }
        volume.sync(file).unwrap();
        kernel.ask("fsync");
        volume.close(file).unwrap();
        logs.push(log);
    }
    kernel.stop();
    drop(mount);
    volume.unmount().unwrap();
}

#[test]
fn random_calls_answer_as_the_kernels() {
    if !available(Need::KernelMount, "random_calls_answer_as_the_kernels") {
        return;
    }
    let plain = Kind { block: 4096, features: "", data: DataMode::Ordered };
    let kinds = [
        plain,
        Kind { block: 1024, ..plain },
        Kind { block: 1024, features: "^extent,^64bit", ..plain },
        Kind { data: DataMode::Journal, ..plain },
        Kind { block: 1024, features: "^extent,^64bit", data: DataMode::Journal },
    ];
    for (seed, kind) in (1..).zip(kinds) {
        compare(kind, 20, 40, seed);
    }
}
