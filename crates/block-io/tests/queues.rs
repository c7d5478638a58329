//! Every queue does the same.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use block_io::{
    AlignedBuf, Device, EventFd, FileDevice, ImmediateQueue, Limits, Memory, MemoryDevice, Operation, Queue,
    Result, ThreadsQueue, UringQueue,
};

#[path = "common/container.rs"]
mod container;
#[path = "common/queue.rs"]
mod queue;
use container::{container, open};
use queue::{event, finish, request};

const WRITE: Operation = Operation::Write { fua: false };
const FUA: Operation = Operation::Write { fua: true };

/// Runs `test` over each queue, direct and buffered.
fn each(size_bytes: u64, test: impl Fn(&mut dyn Queue, &EventFd, &dyn Device, &tempfile::NamedTempFile)) {
    type Make = fn(Arc<FileDevice>, Arc<EventFd>) -> Result<Box<dyn Queue>>;
    let makers: [Make; 3] = [
        |device, event| Ok(Box::new(UringQueue::new(device, event)?)),
        |device, event| Ok(Box::new(ThreadsQueue::new(device, event)?)),
        |device, event| Ok(Box::new(ImmediateQueue::new(device, Some(event)))),
    ];
    for direct in [true, false] {
        for make in makers {
            let file = container(size_bytes);
            let device = open(file.path(), direct);
            let event = event();
            match make(device.clone(), event.clone()) {
                Ok(mut queue) => test(&mut *queue, &event, &*device, &file),
                Err(refused) => eprintln!("skipped: {refused}"),
            }
        }
    }
}

#[test]
fn reads_give_what_writes_took() {
    each(1 << 20, |queue, event, device, _| {
        queue.push(request(1, WRITE, 4096, &[7; 4096]));
        queue.push(request(2, FUA, 8192, &[8; 8192]));
        assert_eq!(queue.in_flight(), 2);
        queue.submit().unwrap();
        let done = finish(queue, event);
        assert!(done.iter().all(|completion| completion.result.is_ok()));
        queue.push(request(3, Operation::Flush, 0, &[]));
        queue.push(request(4, Operation::Read, 0, &[1; 16384]));
        queue.submit().unwrap();
        let mut done = finish(queue, event);
        done.sort_by_key(|completion| completion.id);
        assert_eq!(done[0].result, Ok(()));
        let read = done[1].memory.bytes();
        assert!(read[..4096].iter().all(|&byte| byte == 0));
        assert!(read[4096..8192].iter().all(|&byte| byte == 7));
        assert!(read[8192..].iter().all(|&byte| byte == 8));
        let mut face = vec![0; 16384];
        device.read(0, &mut face).unwrap();
        assert_eq!(face, read);
    });
}

#[test]
fn waiting_for_the_device_needs_no_signal_and_loses_none() {
    let pattern = |round: u64| (round % 251) as u8 + 1;
    each(1 << 22, |queue, event, device, _| {
        assert_eq!(queue.submit_and_wait(), Ok(false), "there is nothing to wait for");
        queue.push(request(0, WRITE, 1 << 22, &[1; 4096]));
        assert_eq!(queue.submit_and_wait(), Ok(false), "the device never sees what is refused");
        assert!(finish(queue, event)[0].result.is_err());
        for round in 0..300u64 {
            // One alone, which whoever waits may carry out, and two at a time, which the device has.
            let count = 1 + round % 2;
            for _ in 0..count {
                queue.push(request(round, WRITE, round * 4096, &[pattern(round); 4096]));
            }
            let waited = queue.submit_and_wait().unwrap();
            let mut done = Vec::new();
            queue.reap(&mut done);
            assert!(!waited || !done.is_empty(), "it waited for a completion");
            // The next ones are announced as ever.
            queue.push(request(1000 + round, WRITE, round * 4096, &[pattern(round); 4096]));
            queue.submit().unwrap();
            done.extend(finish(queue, event));
            assert_eq!(done.len() as u64, 1 + count);
            assert!(done.iter().all(|completion| completion.result.is_ok()));
        }
        let mut block = [0; 4096];
        device.read(299 * 4096, &mut block).unwrap();
        assert_eq!(block, [pattern(299); 4096]);
    });
}

#[test]
fn nothing_reaches_the_device_before_submit() {
    each(1 << 20, |queue, event, device, _| {
        device.write(0, &[0; 4096], false).unwrap();
        queue.push(request(1, WRITE, 0, &[9; 4096]));
        queue.reap(&mut Vec::new());
        std::thread::sleep(Duration::from_millis(5));
        let mut byte = [0; 4096];
        device.read(0, &mut byte).unwrap();
        assert_eq!(byte[0], 0);
        queue.submit().unwrap();
        finish(queue, event);
        device.read(0, &mut byte).unwrap();
        assert_eq!(byte[0], 9);
    });
}

#[test]
fn more_requests_than_the_ring_has_entries() {
    const COUNT: u64 = 5000;
    each(COUNT * 4096, |queue, event, device, _| {
        for id in 0..COUNT {
            queue.push(request(id, WRITE, id * 4096, &[(id % 251) as u8 + 1; 4096]));
        }
        queue.submit().unwrap();
        let mut ids: Vec<u64> = finish(queue, event)
            .iter()
            .map(|completion| {
                assert_eq!(completion.result, Ok(()));
                completion.id
            })
            .collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..COUNT), "each once");
        let mut block = [0; 4096];
        for id in (0..COUNT).step_by(97) {
            device.read(id * 4096, &mut block).unwrap();
            assert_eq!(block, [(id % 251) as u8 + 1; 4096]);
        }
    });
}

#[test]
fn requests_outside_the_device_or_off_its_blocks_are_refused() {
    each(1 << 20, |queue, event, device, file| {
        for (id, offset, len) in [
            (0, 1 << 20, 4096),
            (1, (1 << 20) - 4096, 8192),
            (2, u64::MAX - 4095, 4096),
            (3, 1, 512),
            (4, 0, 100),
        ] {
            queue.push(request(id, WRITE, offset, &vec![1; len]));
        }
        queue.submit().unwrap();
        let done = finish(queue, event);
        assert_eq!(done.len(), 5);
        for completion in done {
            assert_eq!(completion.result.unwrap_err().errno, libc::EINVAL, "{}", completion.id);
        }
        assert_eq!(file.as_file().metadata().unwrap().len(), device.limits().size_bytes, "it did not grow");
    });
}

/// A container that was cut under a volume gave EIO once; then a write behind the new end made it longer again, what had been
/// lost read as zeros, and a flush called that durable.
#[test]
fn a_container_cut_short_carries_out_nothing_more() {
    let (short, whole) = (4096, 1 << 20);
    for cut_is_found_by in [Operation::Read, WRITE, FUA, Operation::Flush] {
        each(whole, |queue, event, device, file| {
            queue.push(request(0, WRITE, 512 << 10, &[7; 4096]));
            queue.submit().unwrap();
            assert!(finish(queue, event)[0].result.is_ok());
            file.as_file().set_len(short).unwrap();
            let bytes: &[u8] = if cut_is_found_by == Operation::Flush { &[] } else { &[0; 8192] };
            // A write at the very end would bring the size back.
            let offset = if cut_is_found_by == Operation::Read { 0 } else { whole - bytes.len() as u64 };
            queue.push(request(1, cut_is_found_by, offset, bytes));
            queue.submit().unwrap();
            let errno = |result: Result<()>| result.map_err(|error| error.errno);
            assert_eq!(errno(finish(queue, event).remove(0).result), Err(libc::EIO), "{cut_is_found_by:?}");
            assert!(device.lost().is_some());
            let later = [WRITE, FUA, Operation::Read, Operation::Flush];
            for (id, operation) in later.into_iter().enumerate() {
                queue.push(request(id as u64, operation, 0, &[0; 512]));
            }
            queue.submit().unwrap();
            for done in finish(queue, event) {
                assert_eq!(
                    errno(done.result),
                    Err(libc::EIO),
                    "{cut_is_found_by:?}, then {:?}",
                    later[done.id as usize]
                );
            }
            assert_eq!(errno(device.read(0, &mut [0; 512])), Err(libc::EIO));
            assert_eq!(errno(device.write(0, &[0; 512], false)), Err(libc::EIO));
            assert_eq!(errno(device.discard(0, 512)), Err(libc::EIO));
            assert_eq!(errno(device.flush()), Err(libc::EIO));
            assert_eq!(file.as_file().metadata().unwrap().len(), short, "nothing made it longer");
        });
    }
}

#[test]
fn a_drained_queue_holds_nothing_and_works_again() {
    each(1 << 22, |queue, event, _, _| {
        struct Keeper(Arc<AtomicUsize>, #[expect(dead_code, reason = "kept alive")] AlignedBuf);
        impl Drop for Keeper {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let freed = Arc::new(AtomicUsize::new(0));
        for id in 0..400 {
            let mut buf = AlignedBuf::zeroed(4096);
            let start = buf.as_mut_ptr();
            let memory = Memory::Pinned { start, len: 4096, keeper: Box::new(Keeper(freed.clone(), buf)) };
            queue.push(block_io::Request { id, operation: Operation::Read, offset_bytes: id * 4096, memory });
        }
        queue.submit().unwrap();
        queue.push(request(1000, Operation::Read, 1, &[0; 4096])); // Refused, never reaped.
        queue.push(request(1001, Operation::Read, 0, &[0; 4096])); // Never submitted.
        queue.drain();
        assert_eq!((queue.in_flight(), freed.load(Ordering::SeqCst)), (0, 400));
        queue.push(request(1, WRITE, 0, &[3; 4096]));
        queue.submit().unwrap();
        assert_eq!(finish(queue, event).len(), 1);
    });
}

#[test]
fn draining_leaves_the_signals_of_others() {
    each(1 << 20, |queue, event, _, _| {
        event.signal();
        queue.drain();
        assert!(event.clear());
    });
}

#[test]
fn dropping_in_flight_requests_is_safe() {
    for _ in 0..20 {
        let file = container(1 << 22);
        let device = open(file.path(), true);
        let Ok(mut queue) = UringQueue::new(device, event()) else {
            return eprintln!("skipped: no io_uring");
        };
        for id in 0..300 {
            queue.push(request(id, WRITE, id * 4096, &[1; 4096]));
        }
        queue.submit().unwrap();
    }
}

#[test]
fn the_ring_refuses_misaligned_memory() {
    let file = container(1 << 20);
    let device = open(file.path(), true);
    if device.limits().memory_alignment_bytes == 1 {
        return eprintln!("skipped: the host accepts any address");
    }
    let event = event();
    let Ok(mut queue) = UringQueue::new(device, event.clone()) else {
        return eprintln!("skipped: no io_uring");
    };
    let mut buf = AlignedBuf::zeroed(8192);
    let start = buf[1..].as_mut_ptr();
    let memory = Memory::Pinned { start, len: 4096, keeper: Box::new(buf) };
    queue.push(block_io::Request { id: 1, operation: Operation::Read, offset_bytes: 0, memory });
    queue.submit().unwrap();
    assert_eq!(finish(&mut queue, &event)[0].result.as_ref().unwrap_err().errno, libc::EINVAL);
}

#[test]
fn threads_signal_once_until_reaped() {
    let event = event();
    let device = Arc::new(MemoryDevice::new(1 << 20, 512));
    let mut queue = ThreadsQueue::with_threads(device, event.clone(), 3).unwrap();
    for id in 0..50 {
        queue.push(request(id, WRITE, id * 512, &[1; 512]));
    }
    queue.submit().unwrap();
    assert!(event.wait(Some(Duration::from_secs(10))));
    std::thread::sleep(Duration::from_millis(50)); // All of them are done now.
    assert!(event.clear());
    assert!(!event.wait(Some(Duration::ZERO)));
    assert_eq!(queue.in_flight(), 50);
    let mut done = Vec::new();
    queue.reap(&mut done);
    assert_eq!((done.len(), queue.in_flight()), (50, 0));
}

#[test]
fn a_panicking_device_fails_the_request_alone() {
    struct Panics(MemoryDevice);
    impl Device for Panics {
        fn limits(&self) -> &Limits {
            self.0.limits()
        }
        fn read(&self, _: u64, _: &mut [u8]) -> Result<()> {
            panic!("on purpose")
        }
        fn write(&self, offset_bytes: u64, buf: &[u8], fua: bool) -> Result<()> {
            self.0.write(offset_bytes, buf, fua)
        }
        fn flush(&self) -> Result<()> {
            Ok(())
        }
        fn discard(&self, _: u64, _: u64) -> Result<()> {
            Ok(())
        }
    }
    let event = event();
    let device = Arc::new(Panics(MemoryDevice::new(1 << 20, 512)));
    let mut queue = ThreadsQueue::with_threads(device, event.clone(), 1).unwrap();
    queue.push(request(1, Operation::Read, 0, &[0; 512]));
    queue.push(request(2, WRITE, 0, &[0; 512]));
    queue.submit().unwrap();
    let mut done = finish(&mut queue, &event);
    done.sort_by_key(|completion| completion.id);
    assert_eq!(done[0].result.as_ref().unwrap_err().errno, libc::EIO);
    assert_eq!(done[1].result, Ok(()));
}

#[test]
fn an_eventfd_waits_as_long_as_told() {
    let event = event();
    let start = std::time::Instant::now();
    assert!(!event.wait(Some(Duration::from_micros(1500))));
    assert!(start.elapsed() >= Duration::from_micros(1500));
    event.signal();
    event.signal();
    assert!(event.wait(None) && event.clear() && !event.clear());
}

#[test]
fn a_container_is_free_once_device_and_ring_are_gone() {
    let file = container(1 << 20);
    for _ in 0..50 {
        let device = open(file.path(), true); // EBUSY would panic.
        let event = event();
        let Ok(mut queue) = UringQueue::new(device, event.clone()) else {
            return eprintln!("skipped: no io_uring");
        };
        queue.push(request(1, WRITE, 0, &[1; 4096]));
        queue.submit().unwrap();
    }
}

#[test]
fn draining_waits_for_requests_that_run() {
    struct Slow(MemoryDevice, AtomicUsize);
    impl Device for Slow {
        fn limits(&self) -> &Limits {
            self.0.limits()
        }
        fn read(&self, _: u64, _: &mut [u8]) -> Result<()> {
            self.1.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100));
            self.1.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
        fn write(&self, _: u64, _: &[u8], _: bool) -> Result<()> {
            Ok(())
        }
        fn flush(&self) -> Result<()> {
            Ok(())
        }
        fn discard(&self, _: u64, _: u64) -> Result<()> {
            Ok(())
        }
    }
    let device = Arc::new(Slow(MemoryDevice::new(1 << 20, 512), AtomicUsize::new(0)));
    let mut queue = ThreadsQueue::with_threads(device.clone(), event(), 2).unwrap();
    for id in 0..10 {
        queue.push(request(id, Operation::Read, 0, &[0; 512]));
    }
    queue.submit().unwrap();
    while device.1.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    queue.drain();
    assert_eq!(device.1.load(Ordering::SeqCst), 0, "its memory would be freed under a worker");
}

/// A request counts once, whichever face it comes through and whatever carries it out; a refused one does not.
#[test]
fn requests_are_counted() {
    let file = container(1 << 20);
    let device = open(file.path(), true);
    let event = event();
    let mut queues: Vec<Box<dyn Queue>> =
        vec![Box::new(ThreadsQueue::new(device.clone(), event.clone()).unwrap())];
    match UringQueue::new(device.clone(), event.clone()) {
        Ok(queue) => queues.push(Box::new(queue)),
        Err(refused) => eprintln!("skipped: {refused}"),
    }
    for queue in &mut queues {
        let before = device.io_counts().totals();
        queue.push(request(1, WRITE, 4096, &[7; 4096]));
        queue.push(request(2, FUA, 8192, &[8; 8192]));
        queue.push(request(3, Operation::Read, 0, &[0; 16384]));
        queue.push(request(4, Operation::Flush, 0, &[]));
        queue.push(request(5, WRITE, 2 << 20, &[7; 4096]));
        queue.submit().unwrap();
        finish(&mut **queue, &event);
        let after = device.io_counts().totals();
        assert_eq!((after.writes - before.writes, after.fua_writes - before.fua_writes), (2, 1));
        assert_eq!((after.reads - before.reads, after.flushes - before.flushes), (1, 1));
        assert_eq!(after.bytes_written - before.bytes_written, 12288);
        assert_eq!(after.bytes_read - before.bytes_read, 16384);
    }
}
