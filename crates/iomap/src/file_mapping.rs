//! What the page cache asks of a file system.

use block_io::Device;

use crate::{Address, Mapping};

/// What a page lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Nothing: it needs space, and a place in the map.
    Hole,
    /// Unwritten blocks: its conversion may need room in the map.
    Unwritten,
    /// Written blocks: it needs nothing.
    Written,
}

impl Backing {
    /// What a mapping says.
    pub fn of(address: Address) -> Self {
        match address {
            Address::Hole => Self::Hole,
            Address::Unwritten { .. } => Self::Unwritten,
            Address::Mapped { .. } => Self::Written,
        }
    }
}

/// Pages for which something is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved {
    /// Those over a hole, whose allocation is delayed: a block each.
    pub delayed: u64,
    /// Those that are to become written in the map, the delayed ones among them.
    pub converting: u64,
}

impl Reserved {
    /// What a page over `backing` needs.
    pub fn for_page(backing: Backing) -> Self {
        Self {
            delayed: u64::from(backing == Backing::Hole),
            converting: u64::from(backing != Backing::Written),
        }
    }

    /// Nothing at all.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl std::ops::AddAssign for Reserved {
    fn add_assign(&mut self, more: Self) {
        self.delayed += more.delayed;
        self.converting += more.converting;
    }
}

/// One file, as its page cache sees it. Nothing here is called with the cache's pages locked but [`FileMapping::size_bytes`],
/// [`FileMapping::now_ms`], [`FileMapping::try_backing`], [`FileMapping::reserve`] and [`FileMapping::release`], which do
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

    /// What the block at a position lies on, as far as memory knows. `None`: ask [`FileMapping::map_read`].
    fn try_backing(&self, pos: u64) -> Option<Backing>;

    /// Sets aside what so many pages will need until they are written ones on the device: space where they have none, and
    /// what maps them. ENOSPC: there is not enough, and nothing was set aside.
    fn reserve(&self, pages: Reserved) -> Result<(), Self::Error>;

    /// Gives back what was set aside and is not needed, or no longer.
    fn release(&self, pages: Reserved);

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
