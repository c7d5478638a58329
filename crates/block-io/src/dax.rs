//! Devices that the CPU reaches by itself.

use crate::Result;

/// A device whose bytes are loaded and stored in place: no request, no page cache, any offset and any length. What was
/// stored is durable after [`crate::Device::flush`]. Two threads must not store into the same bytes, or load while another
/// stores: locks above see to that, as for requests.
pub trait Dax: Send + Sync {
    /// Copies bytes out. EINVAL outside the device.
    fn load(&self, offset_bytes: u64, out: &mut [u8]) -> Result<()>;

    /// Copies bytes in. EINVAL outside the device, EROFS on one that is read-only.
    fn store(&self, offset_bytes: u64, bytes: &[u8]) -> Result<()>;
}
