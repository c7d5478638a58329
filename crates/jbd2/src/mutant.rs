//! Faults on purpose, one at a time: they prove that the crash checker (CM11) and the schedules (X22) would show them.
//! Without the feature `mutants` nothing of this is in the program.

#[cfg(feature = "mutants")]
static ACTIVE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Puts one fault in force, by its number: those of CM11, or one that only some schedules show (X22, from 41); 0: none.
#[cfg(feature = "mutants")]
pub fn activate_mutant(number: u32) {
    ACTIVE.store(number, std::sync::atomic::Ordering::SeqCst);
}

/// Whether a fault of CM11 is in force.
#[cfg(feature = "mutants")]
pub fn mutant(number: u32) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::Relaxed) == number
}

/// Never.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn mutant(_number: u32) -> bool {
    false
}
