//! What the page cache asks of a file system.

use block_io::Device;

use crate::Mapping;

/// One file, as its page cache sees it. Nothing here is called with the cache's pages locked but [`FileMapping::size_bytes`],
/// [`FileMapping::now_ms`], [`FileMapping::try_is_allocated`], [`FileMapping::reserve`] and [`FileMapping::release`], which do
/// not wait.
pub trait FileMapping {
    /// The file system's error.
    type Error: From<block_io::Error> + Clone;

    /// The mapping at a position, at least one block and at most `len_bytes` of it.
    fn map_read(&self, pos: u64, len_bytes: u64) -> Result<Mapping, Self::Error>;

    /// Reads mapped bytes. A file system that journals data looks into its journal too.
    fn read_mapped(
        &self,
        device: &dyn Device,
        device_offset_bytes: u64,
        out: &mut [u8],
    ) -> Result<(), Self::Error> {
        Ok(device.read(device_offset_bytes, out)?)
    }

    /// Whether the block at a position is allocated, as far as memory knows. `None`: ask [`FileMapping::map_read`].
    fn try_is_allocated(&self, pos: u64) -> Option<bool>;

    /// Sets space aside for so many blocks, and for what maps them. ENOSPC: there is not enough.
    fn reserve(&self, blocks: u64) -> Result<(), Self::Error>;

    /// Gives reserved space back that is not needed.
    fn release(&self, blocks: u64);

    /// The mapping at a position for write-back, at most `len_bytes` of it. A hole is allocated first: out of the
    /// reservation and at most `delayed_bytes` of it, unless that is 0. What is allocated is flagged new, and then no
    /// longer reserved.
    fn map_write(&self, pos: u64, len_bytes: u64, delayed_bytes: u64) -> Result<Mapping, Self::Error>;

    /// The data of a range, whole blocks, is on the device: unwritten blocks become written, and the size on disk rises
    /// to `end` or the file's size, whichever is less.
    fn end_write(&self, pos: u64, end: u64) -> Result<(), Self::Error>;

    /// Whether the file's data goes through the journal, by [`FileMapping::journal`] instead of the device.
    fn is_journalled(&self) -> bool {
        false
    }

    /// Hands whole blocks from `pos` on to the journal, as [`FileMapping::map_write`] and [`FileMapping::end_write`] in one
    /// transaction. Returns the mapping of as many of them as one takes.
    fn journal(&self, pos: u64, data: &[u8], delayed_bytes: u64) -> Result<Mapping, Self::Error> {
        let _ = data;
        self.map_write(pos, 0, delayed_bytes)
    }

    /// i_size.
    fn size_bytes(&self) -> u64;

    /// The clock, in milliseconds since any moment.
    fn now_ms(&self) -> u64;
}
