//! The devices that tests use in place of a disk.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use block_io::{
    Device, Event, Fault, FaultDevice, FaultOn, MemoryDevice, Operation, Queue, Recorder, RecordingDevice,
    ThreadsQueue,
};
use proptest::prelude::*;

#[path = "common/queue.rs"]
mod queue;

#[test]
fn a_tebibyte_takes_the_space_of_what_was_written() {
    let device = MemoryDevice::new(1 << 40, 4096);
    let last = (1 << 40) - 4096;
    device.write(last, &[9; 4096], true).unwrap();
    assert_eq!(device.allocated_bytes(), 4096);
    assert_eq!(device.read_bytes(last - 1, 2), [0, 9]);
    assert_eq!(device.write(last, &[0; 8192], false).unwrap_err().errno, libc::EINVAL);
    device.discard(0, 1 << 40).unwrap();
    assert_eq!(device.allocated_bytes(), 0);
}

#[test]
fn a_snapshot_goes_its_own_way() {
    let device = MemoryDevice::from_bytes(&[1; 8192], 512);
    let snapshot = device.snapshot();
    device.write(0, &[2; 512], false).unwrap();
    snapshot.write(4096, &[3; 512], false).unwrap();
    assert_eq!((device.read_bytes(0, 1), device.read_bytes(4096, 1)), (vec![2], vec![1]));
    assert_eq!((snapshot.read_bytes(0, 1), snapshot.read_bytes(4096, 1)), (vec![1], vec![3]));
}

proptest! {
    #[test]
    fn memory_is_like_an_array(steps in prop::collection::vec((0u8..3, 0usize..64, 0usize..40, 1u8..), 1..60)) {
        let device = MemoryDevice::new(64 * 512, 512);
        let mut model = vec![0u8; 64 * 512];
        for (kind, start, len, byte) in steps {
            let range = start * 512..(start + len).min(64) * 512;
            let (offset, bytes) = (range.start as u64, vec![byte; range.len()]);
            match kind {
                0 => { device.write(offset, &bytes, false).unwrap(); model[range].fill(byte); }
                1 => { device.discard(offset, bytes.len() as u64).unwrap(); model[range].fill(0); }
                _ => {
                    let mut read = bytes;
                    device.read(offset, &mut read).unwrap();
                    prop_assert_eq!(&read[..], &model[range]);
                }
            }
        }
        prop_assert_eq!(device.read_bytes(0, model.len()), model);
    }
}

#[test]
fn the_recorder_keeps_one_order_over_devices() {
    let recorder = Recorder::new();
    let device =
        |number| RecordingDevice::new(Arc::new(MemoryDevice::new(1 << 20, 512)), recorder.clone(), number);
    let (volume, journal) = (device(0), device(1));
    volume.write(512, &[1; 512], false).unwrap();
    journal.flush().unwrap();
    recorder.mark("fsync returned");
    volume.discard(0, 512).unwrap();
    assert!(volume.write(1, &[2; 512], true).is_err());
    let done = |device, request, succeeded| Event::Completed { device, request, succeeded };
    let write = |request, offset_bytes, byte: u8, fua| Event::WriteSubmitted {
        device: 0,
        request,
        offset_bytes,
        bytes: Arc::from([byte; 512]),
        fua,
    };
    let expected = vec![
        write(0, 512, 1, false),
        done(0, 0, true),
        Event::FlushSubmitted { device: 1, request: 1 },
        done(1, 1, true),
        Event::Mark("fsync returned".into()),
        Event::DiscardSubmitted { device: 0, request: 2, offset_bytes: 0, len_bytes: 512 },
        done(0, 2, true),
        write(3, 1, 2, true),
        done(0, 3, false),
    ];
    assert_eq!(recorder.events(), expected);
    assert_eq!(recorder.take(), expected);
    assert!(recorder.events().is_empty());
}

#[test]
fn a_queue_is_recorded_below() {
    let recorder = Recorder::new();
    let memory = Arc::new(MemoryDevice::new(1 << 20, 512));
    let event = queue::event();
    let device = Arc::new(RecordingDevice::new(memory, recorder.clone(), 0));
    let mut threads = ThreadsQueue::new(device, event.clone()).unwrap();
    for id in 0..20 {
        threads.push(queue::request(id, Operation::Write { fua: false }, id * 512, &[id as u8; 512]));
    }
    threads.submit().unwrap();
    queue::finish(&mut threads, &event);
    let events = recorder.take();
    assert_eq!(events.len(), 40);
    for number in 0..20 {
        let submitted = events
            .iter()
            .position(|event| matches!(event, Event::WriteSubmitted { request, .. } if *request == number));
        let completed = events
            .iter()
            .position(|event| matches!(event, Event::Completed { request, .. } if *request == number));
        assert!(submitted.unwrap() < completed.unwrap());
    }
}

#[test]
fn faults_hit_the_request_they_name() {
    let memory = Arc::new(MemoryDevice::new(1 << 20, 512));
    let device = FaultDevice::new(memory.clone());
    let once =
        Fault { on: FaultOn::Write, nth: 2, from_then_on: false, errno: libc::ENOSPC, half_written: true };
    device.inject(once);
    device.inject(Fault {
        on: FaultOn::Flush,
        nth: 2,
        from_then_on: true,
        errno: libc::EIO,
        half_written: false,
    });
    device.inject(Fault {
        on: FaultOn::Read,
        nth: 1,
        from_then_on: false,
        errno: libc::EIO,
        half_written: false,
    });
    let write = |byte| device.write(0, &[byte; 1536], false).map_err(|error| error.errno);
    let flush = || device.flush().map_err(|error| error.errno);
    let read = || device.read(0, &mut [0; 512]).map_err(|error| error.errno);
    assert_eq!([write(1), write(2)], [Ok(()), Err(libc::ENOSPC)]);
    assert_eq!(
        (memory.read_bytes(0, 1), memory.read_bytes(512, 1)),
        (vec![2], vec![1]),
        "half, in whole blocks"
    );
    assert_eq!(write(3), Ok(()));
    assert_eq!([flush(), flush(), flush()], [Ok(()), Err(libc::EIO), Err(libc::EIO)]);
    assert_eq!([read(), read()], [Err(libc::EIO), Ok(())]);
    device.clear();
    assert_eq!(flush(), Ok(()));
    let counts = device.counts();
    assert_eq!((counts.reads, counts.writes, counts.flushes), (2, 3, 4));
}
