//! Plans carried out: what several device requests amount to, and a driver that waits for each.

use std::ops::Range;

use block_io::{Device, Error, Result};

use crate::{ReadPlan, Source, WritePlan, WriteRequest};

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The bytes of the whole request, or its first error (B9).
    pub result: Result<u64>,
    /// File bytes, whole blocks, that were unwritten and now hold data: to be converted (A14). None after an error.
    pub convert: Option<Range<u64>>,
}

/// A request whose device requests are under way: it counts them and reports once (B9).
#[derive(Debug)]
pub struct InFlight {
    outstanding: usize,
    error: Option<Error>,
    bytes: u64,
    convert: Option<Range<u64>>,
}

impl InFlight {
    /// A write.
    pub fn write(request: &WriteRequest<'_>, plan: &WritePlan) -> Self {
        let block = u64::from(request.block_size);
        let bytes = request.data.len() as u64;
        let end = request.pos.saturating_add(bytes);
        let convert = plan
            .unwritten
            .then(|| request.pos - request.pos % block..end.div_ceil(block).saturating_mul(block));
        Self { outstanding: plan.pieces.len(), error: None, bytes, convert }
    }

    /// A read.
    pub fn read(plan: &ReadPlan) -> Self {
        Self { outstanding: plan.pieces.len(), error: None, bytes: plan.bytes, convert: None }
    }

    /// The outcome of a request that needs no device request.
    pub fn if_done(&mut self) -> Option<Outcome> {
        if self.outstanding > 0 {
            return None;
        }
        Some(match self.error.take() {
            Some(error) => Outcome { result: Err(error), convert: None },
            None => Outcome { result: Ok(self.bytes), convert: self.convert.take() },
        })
    }

    /// One device request is over; with the last one comes the outcome.
    pub fn complete(&mut self, result: Result<()>) -> Option<Outcome> {
        assert!(self.outstanding > 0, "a device request completes once");
        self.outstanding -= 1;
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
        self.if_done()
    }
}

/// Carries out a write plan, one device request after the other. An error does not hold the others back (B9).
pub fn write_blocking(device: &dyn Device, request: &WriteRequest<'_>, plan: &WritePlan) -> Outcome {
    let mut flight = InFlight::write(request, plan);
    let mut outcome = flight.if_done();
    for piece in &plan.pieces {
        let bytes = match &piece.source {
            Source::Data(range) => &request.data[range.clone()],
            Source::Edge(edge) => edge,
        };
        outcome = flight.complete(device.write(piece.device_offset_bytes, bytes, plan.fua));
    }
    outcome.expect("every piece is complete")
}

/// Carries out a read plan. Of `out`, as long as the request, the plan's bytes are then valid.
///
/// # Errors
/// The first of the device's (B9).
pub fn read_blocking(device: &dyn Device, plan: &ReadPlan, out: &mut [u8]) -> Result<u64> {
    for zeros in &plan.zeros {
        out[zeros.clone()].fill(0);
    }
    let mut flight = InFlight::read(plan);
    let mut outcome = flight.if_done();
    for piece in &plan.pieces {
        outcome = flight.complete(device.read(piece.device_offset_bytes, &mut out[piece.range.clone()]));
    }
    outcome.expect("every piece is complete").result
}
