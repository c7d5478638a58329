//! Multi-mount protection (M3–M5): hosts that share a device see in one block that another one uses the volume.

use std::sync::Arc;
use std::time::Duration;

use block_io::sync::Mutex;
use block_io::{AlignedBuf, Device};
use ext4_format::features::incompat;
use ext4_format::mmp::{Mmp, SEQ_CLEAN, SEQ_MAX};
use ext4_format::{Corrupt, Superblock};

use crate::clock::{Cancel, Clock};
use crate::superblock_io::has_metadata_csum;
use crate::{Error, Result, errno};

/// Seconds: the smallest check interval that is honoured, and the largest interval of either kind that a tool writes.
const MIN_CHECK_INTERVAL: u16 = 5;
const MAX_INTERVAL: u16 = 300;

/// What a mount wants of its claim.
pub(crate) struct Wishes {
    pub clock: Arc<dyn Clock>,
    /// Ends a wait.
    pub cancel: Cancel,
    /// Take intervals that no tool writes for the largest that one does.
    pub force: bool,
}

struct State {
    block: AlignedBuf,
    mmp: Mmp,
    /// When the last update was.
    updated: Duration,
    /// Another host took the volume, or it was released: nothing is written any more.
    over: bool,
}

/// The claim of a read-write mount.
pub(crate) struct MmpClaim {
    device: Arc<dyn Device>,
    clock: Arc<dyn Clock>,
    offset: u64,
    block_number: u64,
    seed: Option<u32>,
    cancel: Cancel,
    update_interval: u16,
    /// Intervals that no tool writes count as the largest that one does.
    force: bool,
    state: Mutex<State>,
}

fn in_use(mmp: &Mmp, why: &str) -> Error {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let detail =
        format!("{why}: host {:?}, device {:?}, at {}", text(&mmp.nodename), text(&mmp.bdevname), mmp.time);
    Error::refused(errno::EBUSY, detail)
}

fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    let len = text.len().min(N - 1);
    field[..len].copy_from_slice(&text[..len]);
    field
}

fn random_seq() -> u32 {
    (uuid::Uuid::new_v4().as_u128() as u32) % SEQ_MAX + 1
}

impl MmpClaim {
    /// M3: makes sure that nobody else uses the volume, and claims it. Takes no time where it was unmounted, and twice the
    /// wait of M3 after a crash. `None` without the feature.
    ///
    /// # Errors
    /// EBUSY: in use, or being checked. EUCLEAN, EBADMSG: the block is damaged, or an interval is one that no tool writes,
    /// unless the mount is forced. ECANCELED.
    pub fn take(device: &Arc<dyn Device>, superblock: &Superblock, wishes: &Wishes) -> Result<Option<Self>> {
        if !superblock.features().has_incompat(incompat::MMP) {
            return Ok(None);
        }
        let number = superblock.mmp_block;
        if number <= u64::from(superblock.first_data_block) || number >= superblock.blocks_count() {
            let corrupt = Corrupt::structure("superblock", format!("MMP block {number}"));
            return Err(Error::Corrupt { place: "superblock".into(), corrupt });
        }
        let block_size = superblock.block_size() as usize;
        let mut claim = Self {
            device: device.clone(),
            clock: wishes.clock.clone(),
            cancel: wishes.cancel.clone(),
            force: wishes.force,
            offset: number * block_size as u64,
            block_number: number,
            seed: has_metadata_csum(superblock).then(|| superblock.fs_seed()),
            update_interval: superblock.mmp_update_interval.clamp(1, MAX_INTERVAL),
            state: Mutex::new(State {
                block: AlignedBuf::zeroed(block_size),
                mmp: Mmp { seq: 0, time: 0, nodename: [0; 64], bdevname: [0; 32], check_interval: 0 },
                updated: Duration::ZERO,
                over: false,
            }),
        };
        claim.state.get_mut().mmp = claim.read(&mut AlignedBuf::zeroed(block_size))?;
        claim.check_and_claim(superblock.mmp_update_interval)?;
        Ok(Some(claim))
    }

    fn check_and_claim(&self, update_interval: u16) -> Result<()> {
        let mut state = self.state.lock();
        let found = self.read(&mut state.block)?;
        let update_interval = self.check_interval("s_mmp_update_interval", update_interval)?;
        let check_interval = self.check_interval("mmp_check_interval", found.check_interval)?;
        let interval = update_interval.max(MIN_CHECK_INTERVAL).max(check_interval);
        let seconds = u64::from(interval);
        let mut wait = Duration::from_secs((2 * seconds + 1).min(seconds + 60));
        if found.seq == SEQ_CLEAN {
            wait = Duration::ZERO;
        } else if found.seq > SEQ_MAX {
            return Err(in_use(&found, "the volume is being checked, or its last check was cut short"));
        } else {
            self.wait(wait)?;
            if self.read(&mut state.block)?.seq != found.seq {
                return Err(in_use(&found, "the volume is mounted elsewhere"));
            }
        }
        state.mmp = Mmp {
            seq: random_seq(),
            time: found.time,
            nodename: padded(host_name().as_bytes()),
            bdevname: padded(b"uext4"),
            check_interval: interval,
        };
        self.write(&mut state)?;
        if !wait.is_zero() {
            self.wait(wait)?;
        }
        let now = self.read(&mut state.block)?;
        if (now.seq, now.nodename) != (state.mmp.seq, state.mmp.nodename) {
            return Err(in_use(&now, "another host mounts the volume at the same time"));
        }
        Ok(())
    }

    /// EUCLEAN for a value that no tool writes: a wait is never cut short, so it would be one of hours.
    fn check_interval(&self, field: &str, seconds: u16) -> Result<u16> {
        if seconds <= MAX_INTERVAL || self.force {
            return Ok(seconds.min(MAX_INTERVAL));
        }
        let corrupt = Corrupt::structure("MMP", format!("{field} of {seconds} seconds"));
        Err(Error::corrupt_block(self.block_number, corrupt))
    }

    fn wait(&self, duration: Duration) -> Result<()> {
        match self.clock.wait(duration, &self.cancel) {
            true => Ok(()),
            false => Err(Error::refused(errno::ECANCELED, "the wait for other hosts was cancelled")),
        }
    }

    fn read(&self, block: &mut AlignedBuf) -> Result<Mmp> {
        self.device.read(self.offset, block)?;
        Mmp::decode(block, self.seed).map_err(|corrupt| Error::corrupt_block(self.block_number, corrupt))
    }

    fn write(&self, state: &mut State) -> Result<()> {
        let now = self.clock.now();
        state.mmp.time = now.sec.max(0) as u64;
        let State { block, mmp, .. } = state;
        mmp.encode(block, self.seed);
        self.device.write(self.offset, block, true)?;
        state.updated = self.clock.since_boot();
        Ok(())
    }

    /// M4: a step for a thread of its own, for no commit may hold the sign of life up. Returns the milliseconds until the next
    /// one. The block is read before it is written: a machine that was paused has no clock that tells.
    ///
    /// # Errors
    /// EBUSY: another host took the volume over while this one slept; nothing may be written any more. Errors of the device.
    pub fn tick(&self) -> Result<u64> {
        let interval_ms = u64::from(self.update_interval) * 1000;
        let mut state = self.state.lock();
        if state.over {
            return Ok(interval_ms);
        }
        let late_ms = self.clock.since_boot().saturating_sub(state.updated).as_millis() as u64;
        if late_ms < interval_ms {
            return Ok(interval_ms - late_ms);
        }
        self.check_ours(&mut state)?;
        state.mmp.seq = if state.mmp.seq >= SEQ_MAX { 1 } else { state.mmp.seq + 1 };
        let observed = (2 * late_ms).div_ceil(1000).min(u64::from(MAX_INTERVAL)) as u16;
        state.mmp.check_interval = observed.max(MIN_CHECK_INTERVAL);
        self.write(&mut state)?;
        Ok(interval_ms)
    }

    fn check_ours(&self, state: &mut State) -> Result<()> {
        let found = self.read(&mut state.block)?;
        if (found.seq, found.nodename) != (state.mmp.seq, state.mmp.nodename) {
            state.over = true;
            return Err(in_use(&found, "another host took the volume over"));
        }
        Ok(())
    }

    /// M5: the volume is free again.
    ///
    /// # Errors
    /// Those of the device; EBUSY as for [`MmpClaim::tick`].
    pub fn release(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.over {
            return Ok(());
        }
        self.check_ours(&mut state)?;
        state.mmp.seq = SEQ_CLEAN;
        self.write(&mut state)?;
        state.over = true;
        Ok(())
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| String::new(), |name| name.trim().into())
}
