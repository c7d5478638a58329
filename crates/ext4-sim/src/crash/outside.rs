//! Judges from outside: e2fsck and the kernel, each distinct volume once (CM6).

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block_io::Device;

use super::image::{Base, Image, StateDevice};
use super::judge::{Tree, Verdict, same_tree_by_kernel};
use super::volume::Volume;
use crate::oracle::{self, KernelMount, Need};

/// Where images are put, and what was seen already.
pub struct Outside {
    dir: Option<tempfile::TempDir>,
    shown: Option<Shown>,
    seen: HashSet<u64>,
    /// Volumes that e2fsck saw.
    pub e2fsck: usize,
    /// Volumes that the kernel mounted.
    pub kernel: usize,
}

/// A file that holds an image, and the file of its journal's device.
struct Shown {
    image: Image,
    volume_bytes: u64,
    files: [(File, PathBuf); 2],
}

impl Shown {
    fn new(dir: &Path, base: &Arc<Base>, volume: Volume) -> io::Result<Self> {
        let file = |name, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes)?;
            Ok::<_, io::Error>((File::options().write(true).open(&path)?, path))
        };
        let (whole, journal) = base.bytes().split_at(volume.size);
        let files = [file("shown", whole)?, file("journal", journal)?];
        Ok(Self { image: Image::new(base), volume_bytes: volume.size as u64, files })
    }

    /// Writes what differs from the image before.
    fn show(&mut self, image: Image) -> io::Result<()> {
        for (at, page) in image.unlike(&self.image) {
            match at.checked_sub(self.volume_bytes) {
                None => self.files[0].0.write_all_at(page, at)?,
                Some(at) => self.files[1].0.write_all_at(page, at)?,
            }
        }
        self.image = image;
        Ok(())
    }
}

fn failed(text: String) -> Verdict {
    Verdict { letter: '-', detail: text }
}

impl Outside {
    pub fn new() -> Self {
        // Memory, where there is some: nothing here outlives a power cut.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).ok();
        Self { dir, shown: None, seen: HashSet::new(), e2fsck: 0, kernel: 0 }
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
        volume.made_as().hash(&mut hasher);
        hasher.write_u64(device.sums().volume);
        let mut superblock = [0; 1024];
        device.read(1024, &mut superblock).map_err(|error| failed(error.to_string()))?;
        hasher.write(&superblock);
        if !self.seen.insert(hasher.finish()) || !available(Need::E2fsprogs) {
            return Ok(());
        }
        self.e2fsck += 1;
        let shown = self.show(device.image(), volume).map_err(|error| failed(error.to_string()))?;
        let [(_, image), (_, journal)] = &shown.files;
        let journal = volume.journal_outside.then_some(journal.as_path());
        oracle::e2fsck_with(image, journal).map_err(|text| Verdict { letter: 'b', detail: text })
    }

    fn show(&mut self, image: Image, volume: Volume) -> io::Result<&Shown> {
        let dir = self.dir.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let shown = match self.shown.take().filter(|shown| Arc::ptr_eq(shown.image.base(), image.base())) {
            Some(shown) => shown,
            None => Shown::new(dir.path(), image.base(), volume)?,
        };
        let shown = self.shown.insert(shown);
        shown.show(image)?;
        Ok(shown)
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
