//! Judges from outside: e2fsck and the kernel, each distinct volume once (CM6).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;

use block_io::Device;

use super::image::StateDevice;
use super::judge::{Tree, Verdict, same_tree_by_kernel};
use super::volume::Volume;
use crate::oracle::{self, KernelMount, Need};

/// Where images are put, and what was seen already.
pub struct Outside {
    dir: Option<tempfile::TempDir>,
    seen: HashSet<u64>,
    /// Volumes that e2fsck saw.
    pub e2fsck: usize,
    /// Volumes that the kernel mounted.
    pub kernel: usize,
}

fn failed(text: String) -> Verdict {
    Verdict { letter: '-', detail: text }
}

impl Outside {
    pub fn new() -> Self {
        // Memory, where there is some: nothing here outlives a power cut.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).ok();
        Self { dir, seen: HashSet::new(), e2fsck: 0, kernel: 0 }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Verdict> {
        let dir = self.dir.as_ref().ok_or_else(|| failed("no directory for images".into()))?;
        let image = dir.path().join(name);
        std::fs::write(&image, bytes).map_err(|error| failed(error.to_string()))?;
        Ok(image)
    }

    /// CM8 (b). What the empty log still holds does not make another volume.
    pub fn e2fsck(&mut self, device: &StateDevice, volume: Volume) -> Result<(), Verdict> {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(device.sums().volume);
        let mut superblock = [0; 1024];
        device.read(1024, &mut superblock).map_err(|error| failed(error.to_string()))?;
        hasher.write(&superblock);
        if !self.seen.insert(hasher.finish()) || !available(Need::E2fsprogs) {
            return Ok(());
        }
        self.e2fsck += 1;
        let bytes = device.snapshot();
        let (bytes, journal) = bytes.split_at(volume.size);
        let image = self.put("image", bytes)?;
        let journal = match volume.journal_outside {
            true => Some(self.put("journal", journal)?),
            false => None,
        };
        oracle::e2fsck_with(&image, journal.as_deref()).map_err(|text| Verdict { letter: 'b', detail: text })
    }

    /// CM8 (g): the kernel recovers the same tree from the same state.
    pub fn kernel(&mut self, bytes: &[u8], tree: &Tree) -> Result<(), Verdict> {
        if !available(Need::KernelMount) {
            return Ok(());
        }
        self.kernel += 1;
        let image = self.put("image", bytes)?;
        let wrong = |detail: String| Verdict { letter: 'g', detail };
        let mount = KernelMount::try_new(&image, "rw").map_err(wrong)?;
        same_tree_by_kernel(mount.path(), tree).map_err(wrong)?;
        drop(mount);
        oracle::e2fsck(&image).map_err(wrong)
    }

    /// Keeps a state that failed, beside other temporary files.
    pub fn keep(&self, bytes: &[u8]) -> Option<PathBuf> {
        let file = tempfile::Builder::new().prefix("crash-state-").suffix(".img").tempfile().ok()?;
        let (_, path) = file.keep().ok()?;
        std::fs::write(&path, bytes).ok()?;
        Some(path)
    }
}

/// Says once that a judge is missing, not at every state.
fn available(need: Need) -> bool {
    use std::sync::OnceLock;
    static E2FSPROGS: OnceLock<bool> = OnceLock::new();
    static KERNEL: OnceLock<bool> = OnceLock::new();
    let known = if need == Need::E2fsprogs { &E2FSPROGS } else { &KERNEL };
    *known.get_or_init(|| oracle::available(need, "crash states"))
}
