//! Ranges to mappings to device requests: direct and buffered I/O for any file system.
