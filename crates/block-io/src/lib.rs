//! Block devices and what they promise.
//!
//! A device has two faces. [`Device`] blocks its caller and may be shared between threads: commit, checkpoint,
//! write-back, recovery and mkfs use it. [`Queue`] carries the direct data I/O of one thread: requests are
//! pushed, submitted together and reaped as completions.

mod aligned;
mod container;
mod dax;
mod device;
mod dio_limits;
mod engine;
mod error;
mod eventfd;
mod fault;
mod file;
mod host_use;
mod immediate;
mod io_counts;
mod lock;
mod mapped;
mod memory;
mod memory_container;
mod no_barrier;
mod os_error;
mod queue;
mod record;
mod shared_memory;
pub mod sync;
mod threads;
mod time;
mod uring;
mod whole;

pub use aligned::{Aligned, AlignedBuf, LineBuf};
pub use container::{ContainerOptions, create_container, create_container_with};
pub use dax::Dax;
pub use device::{Device, Limits};
pub use engine::{BackendInfo, ENGINE_VARIABLE, Engine, open_queue};
pub use error::{Error, Result};
pub use eventfd::EventFd;
pub use fault::{Counts, Fault, FaultDevice, FaultOn};
pub use file::{FileDevice, OpenOptions};
pub use immediate::ImmediateQueue;
pub use io_counts::{IoCounts, IoTotals};
pub use mapped::MappedDevice;
pub use memory::MemoryDevice;
pub use memory_container::MemoryContainer;
pub use no_barrier::NoBarrierDevice;
pub use queue::{Completion, Memory, Operation, Queue, Request};
pub use record::{DeviceNumber, Event, Recorder, RecordingDevice};
pub use shared_memory::SharedMemory;
pub use threads::ThreadsQueue;
pub use time::since_boot;
pub use uring::UringQueue;
