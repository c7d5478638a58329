//! Direct I/O plans: which device requests a read or write of a file range needs (B1–B8). Pure: nothing is sent here.

use std::ops::Range;

use block_io::AlignedBuf;

use crate::{Address, Mapping};

const EIO: i32 = 5;
const EINVAL: i32 = 22;

/// A direct write, as far as its plan depends on it.
#[derive(Debug, Clone, Copy)]
pub struct WriteRequest<'a> {
    /// Position in the file, in bytes.
    pub pos: u64,
    /// The bytes.
    pub data: &'a [u8],
    /// i_size, in bytes.
    pub size_bytes: u64,
    /// Block size of the file system.
    pub block_size: u32,
    /// Logical block of the device (B1).
    pub logical_block: u32,
    /// O_DSYNC without O_SYNC: FUA where B8 allows.
    pub dsync: bool,
}

/// Where the bytes of a device write come from.
#[derive(Debug)]
pub enum Source {
    /// A part of the caller's data.
    Data(Range<usize>),
    /// A whole new block: zeros around the caller's bytes (B5).
    Edge(AlignedBuf),
}

/// One device write.
#[derive(Debug)]
pub struct WritePiece {
    /// Byte offset on the device.
    pub device_offset_bytes: u64,
    /// Its bytes.
    pub source: Source,
}

/// The device writes of one request.
#[derive(Debug)]
pub struct WritePlan {
    /// In file order; they do not overlap.
    pub pieces: Vec<WritePiece>,
    /// Every piece may be written with FUA, and that makes the request durable (B8).
    pub fua: bool,
    /// Some of the range was unwritten: it has to be converted once the data is there (A14).
    pub unwritten: bool,
}

impl WritePlan {
    /// Plans a write over the mappings of its block-rounded range, which are in file order without gaps.
    ///
    /// # Errors
    /// EINVAL if position or length is no multiple of the logical block (B1, B2: judged after mapping); EIO for a hole
    /// (B6), which a caller should have filled.
    pub fn new(request: &WriteRequest<'_>, mappings: &[Mapping]) -> Result<Self, i32> {
        let (start, Some(end)) = (request.pos, request.pos.checked_add(request.data.len() as u64)) else {
            return Err(EINVAL);
        };
        if !(start | end).is_multiple_of(u64::from(request.logical_block)) {
            return Err(EINVAL);
        }
        // A13: a write past i_size changes metadata, which FUA would not make durable.
        let fua = request.dsync && end <= request.size_bytes;
        let mut plan = Self { pieces: Vec::with_capacity(mappings.len()), fua, unwritten: false };
        let mut pos = start;
        for mapping in mappings {
            let stop = end.min(mapping.end_bytes());
            if pos >= stop || pos < mapping.offset_bytes {
                continue;
            }
            let (device, unwritten) = match mapping.address {
                Address::Hole => return Err(EIO),
                Address::Unwritten { device_offset_bytes } => (device_offset_bytes, true),
                Address::Mapped { device_offset_bytes } => (device_offset_bytes, false),
            };
            let fresh = unwritten || mapping.flags.new;
            plan.unwritten |= unwritten;
            plan.fua &= !fresh && !mapping.flags.shared && !mapping.flags.dirty;
            let run = Run { pos, end: stop, device: device + (pos - mapping.offset_bytes) };
            let tail = fresh || (stop == end && end >= request.size_bytes);
            plan.add_run(request, run, fresh, tail);
            pos = stop;
        }
        if pos == end { Ok(plan) } else { Err(EIO) }
    }

    /// One run of contiguous blocks: an edge block whose other bytes must become zero (B5) is written whole.
    fn add_run(&mut self, request: &WriteRequest<'_>, mut run: Run, zero_head: bool, zero_tail: bool) {
        let block = u64::from(request.block_size);
        if zero_head && !run.pos.is_multiple_of(block) {
            let stop = run.end.min(run.pos.next_multiple_of(block));
            let whole = zero_tail || stop.is_multiple_of(block);
            self.add_edge(request, run.pos - run.pos % block, Run { end: stop, ..run }, whole);
            run = Run { pos: stop, end: run.end, device: run.device + (stop - run.pos) };
        }
        let tail = run.end % block;
        let middle = if zero_tail && tail != 0 { run.pos.max(run.end - tail) } else { run.end };
        if run.pos < middle {
            self.add_data(request, Run { end: middle, ..run });
        }
        if middle < run.end {
            let rest = Run { pos: middle, end: run.end, device: run.device + (middle - run.pos) };
            self.add_edge(request, middle, rest, true);
        }
    }

    fn add_data(&mut self, request: &WriteRequest<'_>, run: Run) {
        let range = request.range(run.pos, run.end);
        if let Some(WritePiece { device_offset_bytes, source: Source::Data(last) }) = self.pieces.last_mut()
            && last.end == range.start
            && *device_offset_bytes + last.len() as u64 == run.device
        {
            last.end = range.end;
            return;
        }
        self.pieces.push(WritePiece { device_offset_bytes: run.device, source: Source::Data(range) });
    }

    /// `run` with zeros from `from` before it, and up to its block's end behind it if `to_block_end`.
    fn add_edge(&mut self, request: &WriteRequest<'_>, from: u64, run: Run, to_block_end: bool) {
        let block = u64::from(request.block_size);
        let to = if to_block_end { run.end.next_multiple_of(block) } else { run.end };
        let mut edge = AlignedBuf::zeroed((to - from) as usize);
        let data = &request.data[request.range(run.pos, run.end)];
        let at = (run.pos - from) as usize;
        edge[at..at + data.len()].copy_from_slice(data);
        let device_offset_bytes = run.device - (run.pos - from);
        self.pieces.push(WritePiece { device_offset_bytes, source: Source::Edge(edge) });
    }
}

/// File bytes [pos, end) at device byte `device`.
#[derive(Debug, Clone, Copy)]
struct Run {
    pos: u64,
    end: u64,
    device: u64,
}

impl WriteRequest<'_> {
    /// File positions as indices into the data.
    fn range(&self, pos: u64, end: u64) -> Range<usize> {
        (pos - self.pos) as usize..(end - self.pos) as usize
    }
}

/// A direct read, as far as its plan depends on it.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// Position in the file, in bytes.
    pub pos: u64,
    /// Bytes wanted.
    pub len: u64,
    /// i_size, in bytes.
    pub size_bytes: u64,
    /// Logical block of the device (B1).
    pub logical_block: u32,
}

impl ReadRequest {
    /// Bytes that the file has for it: 0 at or beyond the end, before any other check (B3).
    pub fn available(&self) -> u64 {
        self.len.min(self.size_bytes.saturating_sub(self.pos))
    }
}

/// One device read into a part of the caller's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPiece {
    /// Byte offset on the device.
    pub device_offset_bytes: u64,
    /// Where in the caller's memory.
    pub range: Range<usize>,
}

/// The device reads of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadPlan {
    /// In file order. The last one may go beyond the file's end, up to a logical block; never beyond the memory.
    pub pieces: Vec<ReadPiece>,
    /// Parts of the memory that read as zeros (B6).
    pub zeros: Vec<Range<usize>>,
    /// What the read returns.
    pub bytes: u64,
}

impl ReadPlan {
    /// Plans a read over the mappings of its range up to i_size.
    ///
    /// # Errors
    /// EINVAL where a misaligned part meets blocks with data; holes and unwritten blocks do not care (B2).
    pub fn new(request: &ReadRequest, mappings: &[Mapping]) -> Result<Self, i32> {
        let bytes = request.available();
        let mut plan = Self { bytes, ..Self::default() };
        let lbs = u64::from(request.logical_block);
        let file_end = request.pos + bytes;
        // The device delivers whole logical blocks; what lies behind the file's end is not counted.
        let asked_end = request.pos.saturating_add(request.len);
        let mut pos = request.pos;
        for mapping in mappings {
            let stop = file_end.min(mapping.end_bytes());
            if pos >= stop || pos < mapping.offset_bytes {
                continue;
            }
            let start = (pos - request.pos) as usize;
            if let Address::Mapped { device_offset_bytes } = mapping.address {
                // B1 looks at the mapped length as it was asked for, B3 trims afterwards.
                let mapped_end = asked_end.min(mapping.end_bytes());
                if !(pos | mapped_end).is_multiple_of(lbs) {
                    return Err(EINVAL);
                }
                let read_end = mapped_end.min(stop.next_multiple_of(lbs));
                let device = device_offset_bytes + (pos - mapping.offset_bytes);
                plan.add(device, start..(read_end - request.pos) as usize);
            } else {
                plan.zeros.push(start..(stop - request.pos) as usize);
            }
            pos = stop;
        }
        if pos == file_end { Ok(plan) } else { Err(EIO) }
    }

    fn add(&mut self, device_offset_bytes: u64, range: Range<usize>) {
        if let Some(last) = self.pieces.last_mut()
            && last.range.end == range.start
            && last.device_offset_bytes + last.range.len() as u64 == device_offset_bytes
        {
            last.range.end = range.end;
            return;
        }
        self.pieces.push(ReadPiece { device_offset_bytes, range });
    }
}
