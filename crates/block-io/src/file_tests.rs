use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::*;
use crate::{Completion, EventFd, Memory, Operation, Queue, Request, UringQueue};

/// A device whose flushes fail: a pipe cannot be synced.
fn unsyncable() -> FileDevice {
    let (_reader, writer) = std::io::pipe().unwrap();
    let limits = Limits {
        size_bytes: 1 << 20,
        logical_block_bytes: 512,
        memory_alignment_bytes: 1,
        volatile_cache: true,
        read_only: false,
        direct: false,
    };
    let file = File::from(OwnedFd::from(writer));
    let (flushing, failed_flush) = (Mutex::new(()), OnceLock::new());
    let file = LockedFile::exclusive_already(file);
    let (counts, whole) = (Arc::default(), Whole::new(0, false));
    FileDevice {
        file,
        _backing: None,
        limits,
        fallback: None,
        is_block_device: false,
        flushing,
        failed_flush,
        counts,
        whole,
    }
}

#[test]
fn the_first_failed_flush_is_the_last() {
    let mut device = unsyncable();
    let first = device.flush().unwrap_err();
    // The disk recovers, but what it lost stays lost.
    device.file = LockedFile::exclusive_already(tempfile::tempfile().unwrap());
    device.file.sync_data().unwrap();
    assert_eq!(device.flush(), Err(first.clone()));
    assert_eq!(device.write(0, &[1; 512], true), Err(first));
    device.write(0, &[1; 512], false).unwrap();
}

#[test]
fn a_refused_fua_write_latches_only_what_may_have_lost_data() {
    let device = unsyncable();
    device.latch_fua(Error::at("write", 0, libc::ENOSPC));
    assert_eq!(device.failed_flush(), None);
    let lost = device.latch_fua(Error::at("write", 0, libc::EIO));
    assert_eq!(device.failed_flush(), Some(&lost));
    assert_eq!(device.latch(Error::new("flush", libc::ENODEV)), lost, "the first one stays");
}

#[test]
fn the_ring_shares_the_latch() {
    let device = Arc::new(unsyncable());
    let event = Arc::new(EventFd::new().unwrap());
    let mut queue = match UringQueue::new(device.clone(), event.clone()) {
        Ok(queue) => queue,
        Err(refused) => return eprintln!("skipped: {refused}"),
    };
    let flush = |queue: &mut UringQueue| -> Result<()> {
        let memory = Memory::Owned(AlignedBuf::zeroed(0));
        queue.push(Request { id: 1, operation: Operation::Flush, offset_bytes: 0, memory });
        queue.submit().unwrap();
        let mut done: Vec<Completion> = Vec::new();
        while done.is_empty() {
            assert!(event.wait(Some(std::time::Duration::from_secs(10))), "a completion");
            event.clear();
            queue.reap(&mut done);
        }
        done.remove(0).result
    };
    let first = flush(&mut queue).unwrap_err();
    assert_eq!(device.failed_flush(), Some(&first), "the blocking face knows");
    assert_eq!(device.flush(), Err(first.clone()));
    assert_eq!(flush(&mut queue), Err(first));
}

#[test]
fn misaligned_memory_is_bounced_where_the_host_would_refuse_it() {
    let mut device = unsyncable();
    device.file = LockedFile::exclusive_already(tempfile::tempfile().unwrap());
    device.limits.memory_alignment_bytes = 4096;
    let bytes = AlignedBuf::copy_of(&(0..1025).map(|byte| byte as u8).collect::<Vec<_>>());
    assert!(!device.is_aligned(bytes[1..].as_ptr()));
    device.write(512, &bytes[1..], false).unwrap();
    let mut back = AlignedBuf::zeroed(1025);
    device.read(512, &mut back[1..]).unwrap();
    assert_eq!(bytes[1..], back[1..]);
}
