//! What a volume does with blocks of file data, past maps and caches.

use block_io::AlignedBuf;
use ext4_format::{Ino, Pblk};
use iomap::{Address, Mapping as IoMapping, MappingFlags};

use crate::Result;
use crate::data_blocks::{self, DataBlocks, DataMapping};
use crate::extents::{MapState, Mapping};
use crate::fs::Fs;
use crate::inode::Inode;

impl Fs {
    /// [`data_blocks::check_mapping`].
    pub(crate) fn check_mapping(&self, ino: Ino, mapping: Mapping) -> Result<DataMapping> {
        data_blocks::check_mapping(&self.allocator, ino, mapping)
    }

    /// [`data_blocks::check_blocks`].
    pub(crate) fn check_data_blocks(&self, ino: Ino, start: Pblk, len: u32) -> Result<DataBlocks> {
        data_blocks::check_blocks(&self.allocator, ino, start, len)
    }

    /// Zeroes blocks on the device, outside any transaction: they are not reachable as written yet (D7).
    pub(crate) fn zero_blocks(&self, blocks: DataBlocks) -> Result<()> {
        const CHUNK_BYTES: u64 = 1 << 20;
        let block_size = self.block_size() as u64;
        let mut offset = blocks.start().0 * block_size;
        let end = offset + u64::from(blocks.len()) * block_size;
        let zeros = AlignedBuf::zeroed((end - offset).min(CHUNK_BYTES) as usize);
        while offset < end {
            let part = (end - offset).min(zeros.len() as u64);
            self.device.write(offset, &zeros[..part as usize], false)?;
            offset += part;
        }
        Ok(())
    }

    /// Reads the first of some blocks into owned memory.
    pub(crate) fn read_data_block(&self, inode: &Inode, blocks: DataBlocks) -> Result<AlignedBuf> {
        let mut data = AlignedBuf::zeroed(self.block_size());
        self.read_data(inode, blocks.device_offset_bytes(self.block_size()), &mut data)?;
        Ok(data)
    }

    /// A mapping in bytes.
    pub(crate) fn to_io_mapping(&self, mapping: &DataMapping, new: bool) -> IoMapping {
        let block_size = self.block_size() as u64;
        let device_offset_bytes = mapping.start.0 * block_size;
        IoMapping {
            offset_bytes: u64::from(mapping.lblk.0) * block_size,
            len_bytes: u64::from(mapping.len) * block_size,
            address: match mapping.state {
                MapState::Hole => Address::Hole,
                MapState::Written => Address::Mapped { device_offset_bytes },
                MapState::Unwritten => Address::Unwritten { device_offset_bytes },
            },
            flags: MappingFlags { new, ..MappingFlags::default() },
        }
    }
}
