//! Ranges to mappings to device requests: direct and buffered I/O for any file system.

mod direct_io;
mod mapping;
mod page_cache;

pub use direct_io::{ReadPiece, ReadPlan, ReadRequest, Source, WritePiece, WritePlan, WriteRequest};
pub use mapping::{Address, Mapping, MappingFlags};
pub use page_cache::{Busy, CacheBudget, FileMapping, PageCache};
