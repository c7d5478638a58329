//! Direct writes and reads through plans, against a model of the file's bytes.

use crate::common::{
    BLOCK, Block, FILE_BLOCKS, FakeFile, GARBAGE, SECTOR, TestDevice, pattern, write_model, write_request,
};
use iomap::{InFlight, Outcome, ReadPlan, ReadRequest, WritePlan, read_blocking, write_blocking};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Write { sector: u64, sectors: u64, seed: u64 },
    Read { sector: u64, sectors: u64 },
    Preallocate { block: u64, blocks: u64 },
    SetSize { size: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let sectors = FILE_BLOCKS * BLOCK / SECTOR;
    prop_oneof![
        4 => (0..sectors - 20, 1..20u64, any::<u64>()).prop_map(|(sector, sectors, seed)| Op::Write { sector, sectors, seed }),
        1 => (0..sectors - 20, 1..20u64).prop_map(|(sector, sectors)| Op::Read { sector, sectors }),
        1 => (0..FILE_BLOCKS - 6, 1..6u64).prop_map(|(block, blocks)| Op::Preallocate { block, blocks }),
        1 => (0..FILE_BLOCKS * BLOCK).prop_map(|size| Op::SetSize { size }),
    ]
}

fn direct_write(file: &FakeFile, device: &TestDevice, pos: u64, data: &[u8]) -> Outcome {
    let mappings = file.map_for_write(pos, data.len() as u64);
    let request = write_request(pos, data, file.size());
    let plan = WritePlan::new(&request, &mappings).unwrap();
    let outcome = write_blocking(device, &request, &plan);
    if let Some(range) = outcome.convert.clone() {
        file.convert(range);
    }
    if outcome.result.is_ok() {
        file.raise_size(pos + data.len() as u64);
    }
    outcome
}

fn direct_read(file: &FakeFile, device: &TestDevice, pos: u64, len: u64) -> Vec<u8> {
    let request = ReadRequest { pos, len, size_bytes: file.size(), logical_block: SECTOR as u32 };
    let plan = ReadPlan::new(&request, &file.map(pos, request.available())).unwrap();
    let mut out = vec![GARBAGE; len as usize];
    let bytes = read_blocking(device, &plan, &mut out).unwrap();
    out.truncate(bytes as usize);
    out
}

fn whole(file: &FakeFile, device: &TestDevice) -> Vec<u8> {
    direct_read(file, device, 0, file.size().next_multiple_of(SECTOR))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn files_hold_what_was_written(gap in 2..20u64, ops in prop::collection::vec(op(), 1..40)) {
        let (device, file) = (TestDevice::new(), FakeFile::new(gap));
        let mut model = Vec::new();
        for op in ops {
            match op {
                Op::Write { sector, sectors, seed } => {
                    let data = pattern(seed, (sectors * SECTOR) as usize);
                    let outcome = direct_write(&file, &device, sector * SECTOR, &data);
                    prop_assert_eq!(outcome.result, Ok(data.len() as u64));
                    write_model(&mut model, sector * SECTOR, &data);
                }
                Op::Read { sector, sectors } => {
                    let (pos, len) = (sector * SECTOR, sectors * SECTOR);
                    let end = model.len().min((pos + len) as usize);
                    let expected = model.get(pos as usize..end).unwrap_or_default();
                    prop_assert_eq!(direct_read(&file, &device, pos, len), expected);
                }
                Op::Preallocate { block, blocks } => file.preallocate(block..block + blocks),
                Op::SetSize { size } => {
                    file.set_size(&device, size);
                    model.resize(size as usize, 0);
                }
            }
            prop_assert_eq!(whole(&file, &device), &model[..]);
        }
    }

    /// B9: whichever piece fails, the request fails once, nothing is converted, and no garbage comes to light.
    #[test]
    fn a_failed_piece_fails_the_request(
        gap in 2..6u64, sector in 0..20u64, sectors in 1..40u64, survivors in 0..8usize,
    ) {
        let (device, file) = (TestDevice::new(), FakeFile::new(gap));
        file.set_size(&device, FILE_BLOCKS * BLOCK);
        file.preallocate(3..8);
        let data = pattern(3, (sectors * SECTOR) as usize);
        *device.fail_write.lock() = Some(survivors);
        let outcome = direct_write(&file, &device, sector * SECTOR, &data);
        if device.writes.lock().len() == survivors && outcome.result.is_err() {
            prop_assert_eq!(outcome.convert, None);
            prop_assert!(file.0.lock().blocks.iter().all(|block| !matches!(block, Block::Written(_))));
        } else {
            prop_assert_eq!(outcome.result, Ok(data.len() as u64));
        }
        prop_assert!(!whole(&file, &device).contains(&GARBAGE));
    }
}

#[test]
fn a_request_reports_once_with_its_first_error() {
    let data = pattern(1, 3 * BLOCK as usize);
    let file = FakeFile::new(2);
    file.set_size(&TestDevice::new(), FILE_BLOCKS * BLOCK);
    let request = write_request(0, &data, file.size());
    let plan = WritePlan::new(&request, &file.map_for_write(0, data.len() as u64)).unwrap();
    assert_eq!(plan.pieces.len(), 3, "a gap after each block");
    let error = |errno| Err(block_io::Error::new("write", errno));
    for failing in 0..4 {
        let mut flight = InFlight::write(&request, &plan);
        let mut reports = Vec::new();
        for piece in 0..3 {
            let result = if piece >= failing { error(100 + piece) } else { Ok(()) };
            reports.extend(flight.complete(result).map(|outcome| (piece, outcome)));
        }
        let [(2, outcome)] = &reports[..] else { panic!("{reports:?}") };
        let (result, convert) = match failing {
            3 => (Ok(data.len() as u64), Some(0..3 * BLOCK)),
            first => (error(100 + first).map(|()| 0), None),
        };
        assert_eq!(*outcome, Outcome { result, convert });
    }
}
