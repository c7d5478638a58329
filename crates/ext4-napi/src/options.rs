//! The options of formatVolume and openVolume, from JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use block_io::{Engine, Fault, FaultOn};
use ext4::mkfs::FormatOptions;
use ext4::{DataMode, Error, ErrorMode, MountOptions, Result, errno};
use serde_json::{Map, Value};

use crate::container::Faults;

/// How a volume is opened.
pub struct OpenVolume {
    /// For the mount.
    pub mount: MountOptions,
    /// For the queue.
    pub engine: Engine,
    /// Path of an external journal.
    pub journal: Option<Vec<u8>>,
    /// Open what the host's kernel has in use, too.
    pub force: bool,
    /// Failures of its container; the API has no option for them.
    pub faults: Faults,
}

/// How a volume is recovered.
pub struct RecoverVolume {
    /// Only say what there is to do.
    pub dry_run: bool,
    /// Open what the host's kernel has in use, too.
    pub force: bool,
    /// Path of an external journal.
    pub journal: Option<Vec<u8>>,
}

/// How a volume is made.
pub struct FormatVolume {
    /// For mkfs.
    pub format: FormatOptions,
    /// Over what is there already, too.
    pub force: bool,
}

fn invalid(name: &str) -> Error {
    Error::refused(errno::EINVAL, format!("option {name}"))
}

fn object(json: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(json).map_err(|_| Error::refused(errno::EINVAL, "the options are no JSON object"))
}

/// A missing or null option is `None`; one that `read` does not understand is EINVAL.
fn option<T>(
    options: &Map<String, Value>,
    name: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>> {
    match options.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| invalid(name)),
    }
}

fn uuid(value: &Value) -> Option<[u8; 16]> {
    let digits: String = value.as_str()?.chars().filter(|&digit| digit != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut uuid = [0; 16];
    for (index, byte) in uuid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(uuid)
}

fn path(value: &Value) -> Option<Vec<u8>> {
    value.as_str().filter(|path| !path.is_empty()).map(|path| path.as_bytes().to_vec())
}

/// errors= (EP1).
fn error_mode(value: &Value) -> Option<ErrorMode> {
    Some(match value.as_str()? {
        "continue" => ErrorMode::Continue,
        "remount-ro" => ErrorMode::RemountReadOnly,
        "panic" => ErrorMode::Shutdown,
        _ => return None,
    })
}

fn data_mode(value: &Value) -> Option<DataMode> {
    match value.as_str()? {
        "ordered" => Some(DataMode::Ordered),
        "journal" => Some(DataMode::Journal),
        "writeback" => Some(DataMode::Writeback),
        _ => None,
    }
}

/// The options of openVolume.
///
/// # Errors
/// EINVAL.
pub fn open_volume(json: &[u8]) -> Result<OpenVolume> {
    let options = object(json)?;
    let mut mount = MountOptions {
        read_only: option(&options, "readOnly", Value::as_bool)?.unwrap_or(false),
        ..MountOptions::default()
    };
    if let Some(interval) = option(&options, "commitIntervalMs", Value::as_u64)? {
        mount.commit_interval_ms = interval.clamp(1, 3_600_000);
    }
    if let Some(bytes) = option(&options, "pageCacheBytes", Value::as_u64)? {
        mount.page_cache_bytes = bytes;
    }
    mount.data = option(&options, "data", data_mode)?;
    if let Some(on) = option(&options, "dioreadNolock", Value::as_bool)? {
        mount.dioread_nolock = on;
    }
    if let Some(percent) = option(&options, "dirtyRatio", Value::as_u64)? {
        mount.dirty_ratio = u8::try_from(percent)
            .ok()
            .filter(|percent| *percent <= 100)
            .ok_or_else(|| invalid("dirtyRatio"))?;
    }
    if let Some(age) = option(&options, "writeBackAgeMs", Value::as_u64)? {
        mount.write_back_age_ms = age;
    }
    if let Some(bytes) = option(&options, "metadataCacheBytes", Value::as_u64)? {
        mount.metadata_cache_bytes = bytes;
    }
    mount.errors = option(&options, "errors", error_mode)?;
    mount.barrier = option(&options, "barrier", Value::as_bool)?.unwrap_or(true);
    mount.noload = option(&options, "noload", Value::as_bool)?.unwrap_or(false);
    mount.dax = option(&options, "dax", Value::as_bool)?.unwrap_or(false);
    let journal = option(&options, "journal", path)?;
    let engine = option(&options, "engine", |value| value.as_str()?.parse().ok())?.unwrap_or_default();
    let faults = |name| option(&options, name, faults).map(Option::unwrap_or_default);
    let faults = Faults { queued: faults("queuedFaults")?, blocking: faults("blockingFaults")? };
    let force = option(&options, "force", Value::as_bool)?.unwrap_or(false);
    Ok(OpenVolume { mount, engine, journal, force, faults })
}

/// A list of [read or write or flush, which one of them, errno].
fn faults(value: &Value) -> Option<Vec<Fault>> {
    let fault = |one: &Value| {
        let on = match one.get(0)?.as_str()? {
            "read" => FaultOn::Read,
            "write" => FaultOn::Write,
            "flush" => FaultOn::Flush,
            _ => return None,
        };
        let (nth, errno) = (one.get(1)?.as_u64()?, i32::try_from(one.get(2)?.as_u64()?).ok()?);
        // Half of a failing write is done, as on a disk that fails midway.
        Some(Fault { on, nth, from_then_on: false, errno, half_written: true })
    };
    value.as_array()?.iter().map(fault).collect()
}

/// The options of recoverVolume.
///
/// # Errors
/// EINVAL.
pub fn recover_volume(json: &[u8]) -> Result<RecoverVolume> {
    let options = object(json)?;
    let dry_run = option(&options, "dryRun", Value::as_bool)?.unwrap_or(false);
    let force = option(&options, "force", Value::as_bool)?.unwrap_or(false);
    Ok(RecoverVolume { dry_run, force, journal: option(&options, "journal", path)? })
}

/// The options of formatVolume.
///
/// # Errors
/// EINVAL.
pub fn format_volume(json: &[u8]) -> Result<FormatVolume> {
    let options = object(json)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let u32_of = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let mut format = FormatOptions::new(now);
    format.size_bytes = option(&options, "sizeBytes", Value::as_u64)?;
    format.block_size = option(&options, "blockSize", u32_of)?;
    format.label = option(&options, "label", text)?.unwrap_or_default();
    format.uuid = option(&options, "uuid", uuid)?;
    format.features = option(&options, "features", text)?.unwrap_or_default();
    format.inode_ratio = option(&options, "inodeRatio", u32_of)?;
    format.inodes_count = option(&options, "inodeCount", u32_of)?;
    format.journal_blocks = option(&options, "journalBlocks", u32_of)?;
    let force = option(&options, "force", Value::as_bool)?.unwrap_or(false);
    Ok(FormatVolume { format, force })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let options = open_volume(br#"{"readOnly":true,"engine":"threads","commitIntervalMs":0}"#).unwrap();
        assert!(options.mount.read_only);
        assert_eq!((options.engine, options.mount.commit_interval_ms), (Engine::Threads, 1));
        for bad in [
            &br#"[]"#[..],
            b"",
            br#"{"engine":"x"}"#,
            br#"{"readOnly":1}"#,
            br#"{"commitIntervalMs":-1}"#,
            br#"{"dirtyRatio":101}"#,
            br#"{"data":"x"}"#,
        ] {
            assert_eq!(open_volume(bad).err().unwrap().errno(), errno::EINVAL);
        }
        let faults = open_volume(br#"{"queuedFaults":[["write",3,5],["read",1,5]]}"#).unwrap().faults;
        assert_eq!((faults.queued.len(), faults.queued[0].nth, faults.blocking.len()), (2, 3, 0));
        assert!(open_volume(br#"{"queuedFaults":[["seek",3,5]]}"#).is_err());
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let format =
            format_volume(format!(r#"{{"uuid":"{uuid}","sizeBytes":4096}}"#).as_bytes()).unwrap().format;
        assert_eq!(format.uuid.unwrap()[..3], [0, 0x11, 0x22]);
        assert_eq!(format.size_bytes, Some(4096));
        assert!(format_volume(br#"{"uuid":"0011"}"#).is_err());
        assert!(format_volume("{\"uuid\":\"€0112233445566778899aabbccddeef\"}".as_bytes()).is_err());
    }
}
