//! What the host's direct I/O asks of a request.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::AlignedBuf;

/// Multiples that direct I/O demands, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DioLimits {
    /// Of offsets and lengths: 512…4096.
    pub offset: u32,
    /// Of memory addresses: 1…4096.
    pub memory: u32,
}

/// What is taken for granted where nothing can be learnt: every host accepts it.
const SAFE: DioLimits = DioLimits { offset: 4096, memory: 4096 };
const CANDIDATES: [u32; 4] = [512, 1024, 2048, 4096];

/// The host's own word (statx), else what a read proves. `None`: no direct I/O here.
pub(crate) fn dio_limits(file: &File) -> Option<DioLimits> {
    match told(file) {
        Some((offset, memory)) => {
            let usable = |align: u32| align.is_power_of_two() && align <= 4096;
            (usable(offset) && usable(memory)).then_some(DioLimits { offset: offset.max(512), memory })
        }
        None => probe(file),
    }
}

/// STATX_DIOALIGN's offset and memory alignment; zeros say that there is no direct I/O.
pub(crate) fn told(file: &File) -> Option<(u32, u32)> {
    let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let told = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    told.then_some((stat.stx_dio_offset_align, stat.stx_dio_mem_align))
}

/// Tries reads of growing alignment. A read that ends early (at the end of the file) proves nothing.
pub(crate) fn probe(file: &File) -> Option<DioLimits> {
    let mut buf = AlignedBuf::zeroed(8192);
    let mut accepted = |start: u32, len: u32, offset: u32| {
        let range = start as usize..(start + len) as usize;
        file.read_at(&mut buf[range], u64::from(offset)).ok().map(|read| read == len as usize)
    };
    for offset in CANDIDATES {
        match accepted(0, offset, offset) {
            None => {}
            Some(false) => return Some(SAFE),
            Some(true) => {
                let memory = CANDIDATES.into_iter().find(|&memory| accepted(memory, offset, 0) == Some(true));
                return Some(DioLimits { offset, memory: memory.unwrap_or(SAFE.memory) });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    fn direct(path: &std::path::Path) -> Option<File> {
        File::options().read(true).custom_flags(libc::O_DIRECT).open(path).ok()
    }

    #[test]
    fn the_probe_agrees_with_the_host() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1; 65536]).unwrap();
        let Some(file) = direct(file.path()) else { return eprintln!("skipped: no O_DIRECT here") };
        let Some((offset, memory)) = told(&file).filter(|&(offset, _)| offset > 0) else {
            return eprintln!("skipped: the host does not tell");
        };
        let found = probe(&file).unwrap();
        // The probe starts at 512 and may be stricter than the host, never laxer.
        assert_eq!(found.offset, offset.max(512));
        assert!(found.memory >= memory);
        assert_eq!(dio_limits(&file), Some(DioLimits { offset: offset.max(512), memory }));
    }

    #[test]
    fn an_empty_file_proves_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = File::open(file.path()).unwrap();
        assert_eq!(probe(&file), Some(SAFE));
    }
}
