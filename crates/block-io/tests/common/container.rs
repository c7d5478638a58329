use std::path::Path;
use std::sync::Arc;

use block_io::{FileDevice, OpenOptions};

pub fn open(path: &Path, direct: bool) -> Arc<FileDevice> {
    Arc::new(FileDevice::open(path, OpenOptions { read_only: false, force: false, direct }).unwrap())
}

pub fn container(size_bytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size_bytes).unwrap();
    file
}
