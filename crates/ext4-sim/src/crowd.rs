//! Inodes that drive others out of memory: who keeps few is soon alone.

use std::sync::{Arc, Weak};

use ext4::{Fs, Inode, NewInode, Result};

/// More than a volume keeps in memory of inodes that nobody has open.
const FILES: u32 = 5000;

/// A directory of many files. The volume needs as many inodes.
pub struct Crowd(Arc<Fs>);

impl Crowd {
    /// Makes it, as /crowd, durable.
    ///
    /// # Errors
    /// Those of the calls.
    pub fn new(fs: &Arc<Fs>) -> Result<Self> {
        let new = NewInode { mode: 0o100_644, uid: 0, gid: 0 };
        fs.mkdir(b"/crowd", NewInode { mode: 0o755, ..new })?;
        for index in 0..FILES {
            let (inode, _) = fs.create(format!("/crowd/{index}").as_bytes(), new, false)?;
            fs.release(&inode)?;
        }
        fs.sync()?;
        Ok(Self(fs.clone()))
    }

    /// Has everything else forgotten, by reading alone, until `inode` is. Panics if that cannot be: somebody holds it.
    pub fn push_out(&self, inode: &Weak<Inode>) {
        for _ in 0..10 {
            for index in 0..FILES {
                let found = self.0.lookup(format!("/crowd/{index}").as_bytes(), false);
                found.unwrap_or_else(|error| panic!("a file of the crowd: {error}"));
            }
            if inode.strong_count() == 0 {
                return;
            }
        }
        panic!("the inode stays in memory");
    }
}
