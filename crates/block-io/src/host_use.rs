//! Whether the host's kernel has a container in use: as a loop device, or mounted.
//!
//! The kernel knows nothing of our locks, so it is asked. Whoever attaches a loop device later is not seen.
#![expect(unsafe_code, reason = "an ioctl has no safe wrapper")]

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::lock::{LockedFile, PATIENCE, PAUSE};
use crate::{Error, Result};

const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LO_FLAGS_READ_ONLY: u32 = 1;

/// struct loop_info64, of which the first two words and the flags are read.
#[repr(C)]
struct LoopInfo64 {
    lo_device: u64,
    lo_inode: u64,
    lo_rdevice: u64,
    lo_offset: u64,
    lo_sizelimit: u64,
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    lo_flags: u32,
    names_and_key: [u8; 64 + 64 + 32],
    lo_init: [u64; 2],
}
const _: () = assert!(size_of::<LoopInfo64>() == 232);

/// A loop device, and the file under it.
struct Loop {
    device: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
    read_only: bool,
}

/// What an open loop device says of itself; `None`: it has no file, or is no loop device.
fn status(device: &File) -> Option<LoopInfo64> {
    // SAFETY: all zeros is a valid structure.
    let mut info: LoopInfo64 = unsafe { std::mem::zeroed() };
    // SAFETY: the ioctl fills the structure, which outlives the call and has its size.
    (unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &mut info) } == 0).then_some(info)
}

fn read_word(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim_end_matches('\n').to_owned())
}

/// All loop devices that have a file. Paths lie after a rename, so the device itself is asked; where it may not be opened, its
/// path has to do.
fn loops() -> Vec<Loop> {
    let Ok(blocks) = std::fs::read_dir("/sys/block") else { return Vec::new() };
    let attached = |entry: std::fs::DirEntry| {
        let backing = read_word(&entry.path().join("loop/backing_file"))?;
        let device = Path::new("/dev").join(entry.file_name());
        if let Some(info) = File::open(&device).ok().as_ref().and_then(status) {
            let read_only = info.lo_flags & LO_FLAGS_READ_ONLY != 0;
            return Some(Loop { device, file: (info.lo_device, info.lo_inode), read_only });
        }
        let file = std::fs::metadata(backing).ok()?;
        let read_only = read_word(&entry.path().join("ro")).is_some_and(|word| word == "1");
        Some(Loop { device, file: (file.dev(), file.ino()), read_only })
    };
    blocks.flatten().filter_map(attached).collect()
}

/// How this mount namespace has a block device mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mounted {
    No,
    ReadOnly,
    Writable,
}

/// `number`: as in `st_rdev`.
fn mounted(number: u64, mountinfo: &str) -> Mounted {
    let id = format!("{}:{}", libc::major(number), libc::minor(number));
    let lines = mountinfo.lines().filter(|line| line.split(' ').nth(2) == Some(&id));
    // The super block's own options are the last field: a read-only bind mount of a writable one does not count.
    let read_only =
        |line: &str| line.rsplit(' ').next().is_some_and(|all| all.split(',').any(|one| one == "ro"));
    lines.map(read_only).fold(Mounted::No, |so_far, read_only| match (so_far, read_only) {
        (Mounted::Writable, _) | (_, false) => Mounted::Writable,
        _ => Mounted::ReadOnly,
    })
}

fn mounted_here(number: u64) -> Mounted {
    mounted(number, &std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn busy(detail: String) -> Error {
    Error::new("open", libc::EBUSY).with_detail(detail)
}

/// EBUSY if somebody else may be writing through a block device. O_EXCL sees who has it in every namespace.
fn refuse_writers(device: &Path, number: u64) -> Result<()> {
    let taken = || busy(format!("{} is mounted or in exclusive use", device.display()));
    match mounted_here(number) {
        Mounted::ReadOnly => return Ok(()),
        Mounted::Writable => return Err(taken()),
        Mounted::No => {}
    }
    // Others who look are gone in a moment.
    let begin = Instant::now();
    loop {
        match File::options().read(true).custom_flags(libc::O_EXCL).open(device) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && begin.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Err(taken()),
            _ => return Ok(()),
        }
    }
}

/// For a container file: EBUSY if a loop device lies on it (for reading only: one through which somebody may write).
pub(crate) fn refuse_looped(file: &Metadata, read_only: bool) -> Result<()> {
    let begin = Instant::now();
    loop {
        let on_it = loops().into_iter().find(|one| one.file == (file.dev(), file.ino()));
        let Some(Loop { device, read_only: reads, .. }) = on_it else { return Ok(()) };
        let number = std::fs::metadata(&device).map_or(0, |device| device.rdev());
        if read_only {
            return if reads { Ok(()) } else { refuse_writers(&device, number) };
        }
        // A loop device that is let go lives on while somebody looks at it.
        if mounted_here(number) != Mounted::No || begin.elapsed() > PATIENCE {
            return Err(busy(format!("{} lies on it", device.display())));
        }
        std::thread::sleep(PAUSE);
    }
}

/// For a block device: EBUSY if we are to read what others write; for a loop device the lock of the file under it too.
///
/// # Errors
/// EBUSY also where the file under a loop device is open as a container.
pub(crate) fn refuse_taken(path: &Path, device: &File, read_only: bool) -> Result<Option<LockedFile>> {
    let number = device.metadata().map_err(|error| crate::os_error::os("stat", &error))?.rdev();
    if read_only {
        refuse_writers(path, number)?;
    }
    backing_file(device, number, read_only).map(|file| LockedFile::new(file, read_only)).transpose()
}

/// The file under a loop device or a partition of one, if it can be opened under a name.
fn backing_file(device: &File, number: u64, read_only: bool) -> Option<File> {
    let sys = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number)));
    let of = |part: &str| read_word(&sys.join(part));
    let path = of("loop/backing_file").or_else(|| of("../loop/backing_file"))?;
    let file = File::options().read(true).write(!read_only).open(path).ok()?;
    let found = file.metadata().ok()?;
    // After a rename another file may have the name.
    let is_it =
        status(device).is_none_or(|info| (info.lo_device, info.lo_inode) == (found.dev(), found.ino()));
    is_it.then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_mounted_as_its_super_block_is() {
        let info = "36 35 7:0 / /a rw,noatime shared:1 - ext4 /dev/loop0 rw\n\
                    37 35 7:1 / /b ro - ext4 /dev/loop1 ro,errors=continue\n\
                    38 35 7:2 / /c ro - ext4 /dev/loop2 rw\n\
                    39 35 7:1 /x /d ro - ext4 /dev/loop1 ro\n";
        let of = |minor| mounted(libc::makedev(7, minor), info);
        assert_eq!(
            [of(0), of(1), of(2), of(3)],
            [Mounted::Writable, Mounted::ReadOnly, Mounted::Writable, Mounted::No]
        );
    }
}
