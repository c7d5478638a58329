//! Where the log lies on its device.

use std::fmt;
use std::sync::Arc;

use block_io::Device;

use crate::{Error, Result};

/// A run of log blocks that is contiguous on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogExtent {
    /// First log block.
    pub log_start: u32,
    /// Number of blocks, above zero.
    pub len: u32,
    /// The device block of `log_start`.
    pub device_block: u64,
}

/// Log block n → device block (J2). Covers [0, len) without a hole.
#[derive(Clone)]
pub struct LogMap {
    extents: Vec<LogExtent>,
    len: u32,
    external: Option<External>,
}

/// A log on a device of its own (J28).
#[derive(Clone)]
struct External {
    device: Arc<dyn Device>,
    superblock: u32,
    user: [u8; 16],
}

impl fmt::Debug for LogMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let external = self.external.is_some();
        f.debug_struct("LogMap").field("extents", &self.extents).field("external", &external).finish()
    }
}

impl LogMap {
    /// A map of `extents` in any order. A hole, an overlap or an overflow is EUCLEAN (J2).
    pub fn new(mut extents: Vec<LogExtent>) -> Result<Self> {
        extents.sort_by_key(|extent| extent.log_start);
        let mut len = 0u32;
        for extent in &extents {
            if extent.log_start != len || extent.len == 0 {
                return Err(Error::Corrupt(format!("the log has a hole or an overlap at block {len}")));
            }
            len = len.checked_add(extent.len).ok_or_else(|| Error::Corrupt("the log is too long".into()))?;
            if extent.device_block.checked_add(u64::from(extent.len)).is_none() {
                return Err(Error::Corrupt("the log lies outside the device".into()));
            }
        }
        let mut by_device: Vec<_> = extents.iter().map(|extent| (extent.device_block, extent.len)).collect();
        by_device.sort_unstable();
        if by_device.windows(2).any(|pair| pair[0].0 + u64::from(pair[0].1) > pair[1].0) {
            return Err(Error::Corrupt("a block of the log is used twice".into()));
        }
        Ok(Self { extents, len, external: None })
    }

    /// J28: all of `device` is the log of the volume whose UUID is `user`. The caller has checked that the device
    /// says so. EINVAL: too small.
    pub fn external(device: Arc<dyn Device>, block_size: usize, user: [u8; 16]) -> Result<Self> {
        assert!((1024..=65536).contains(&block_size));
        let len = u32::try_from(device.limits().size_bytes / block_size as u64).unwrap_or(u32::MAX);
        // Behind the block that holds the device's ext superblock.
        let superblock = if block_size == 1024 { 2 } else { 1 };
        if len <= superblock {
            return Err(Error::Invalid("the journal's device is too small".into()));
        }
        let extents = vec![LogExtent { log_start: 0, len, device_block: 0 }];
        Ok(Self { extents, len, external: Some(External { device, superblock, user }) })
    }

    /// Whether the log has a device of its own.
    pub fn is_external(&self) -> bool {
        self.external.is_some()
    }

    /// The device that the log is on, where `volume` is the volume's.
    pub(crate) fn device<'a>(&'a self, volume: &'a dyn Device) -> &'a dyn Device {
        self.external.as_ref().map_or(volume, |external| &*external.device)
    }

    pub(crate) fn shared_device(&self, volume: &Arc<dyn Device>) -> Arc<dyn Device> {
        self.external.as_ref().map_or(volume, |external| &external.device).clone()
    }

    /// The log block of JSB.
    pub(crate) fn superblock(&self) -> u32 {
        self.external.as_ref().map_or(0, |external| external.superblock)
    }

    /// The one volume whose journal an external log is.
    pub(crate) fn user(&self) -> Option<[u8; 16]> {
        self.external.as_ref().map(|external| external.user)
    }

    /// Blocks in the map.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no block at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device block of log block `n`, and how many log blocks from `n` on are contiguous on the device.
    pub fn run(&self, n: u32) -> Option<(u64, u32)> {
        let index = self.extents.partition_point(|extent| extent.log_start <= n).checked_sub(1)?;
        let extent = self.extents[index];
        let within = n - extent.log_start;
        (within < extent.len).then(|| (extent.device_block + u64::from(within), extent.len - within))
    }

    /// Whether a device block belongs to the log (R10).
    pub fn holds(&self, device_block: u64) -> bool {
        self.external.is_none()
            && self.extents.iter().any(|extent| {
                device_block >= extent.device_block
                    && device_block - extent.device_block < u64::from(extent.len)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_refuses() {
        let extent = |log_start, len, device_block| LogExtent { log_start, len, device_block };
        let map = LogMap::new(vec![extent(4, 2, 100), extent(0, 4, 200)]).unwrap();
        assert_eq!(map.len(), 6);
        assert_eq!(map.run(0), Some((200, 4)));
        assert_eq!(map.run(5), Some((101, 1)));
        assert_eq!(map.run(6), None);
        assert!(map.holds(203) && map.holds(100) && !map.holds(102) && !map.holds(204));
        assert!(LogMap::new(vec![extent(1, 4, 200)]).is_err());
        assert!(LogMap::new(vec![extent(0, 4, 200), extent(5, 1, 300)]).is_err());
        assert!(LogMap::new(vec![extent(0, 4, 200), extent(4, 1, 203)]).is_err());
        assert!(LogMap::new(vec![extent(0, 4, u64::MAX - 2)]).is_err());
        assert!(LogMap::new(vec![extent(0, u32::MAX, 0), extent(u32::MAX, 2, 1 << 40)]).is_err());
    }
}
