//! Ranges to mappings to device requests: direct and buffered I/O for any file system.

mod blocking;
mod budget;
mod direct_io;
mod file_mapping;
mod mapping;
mod page_cache;
mod pages;
mod write_back;

pub use blocking::{InFlight, Outcome, read_blocking, write_blocking};
pub use budget::CacheBudget;
pub use direct_io::{ReadPiece, ReadPlan, ReadRequest, Source, WritePiece, WritePlan, WriteRequest};
pub use file_mapping::{Backing, FileMapping, Reserved};
pub use mapping::{Address, Mapping, MappingFlags};
pub use page_cache::{Busy, PageCache};
