//! Results that do not fit into a number, until JavaScript takes them.

use block_io::BackendInfo;
use ext4::mkfs::FormatReport;
use ext4::{Error, Fs, RangeExtent, Recovery, Stat};

use napi_derive::napi;

use crate::js::{Js, JsResult, Value};

/// The detail of a failed operation.
#[napi(object)]
pub struct NativeFailure {
    /// In words.
    pub message: String,
    /// Where on the volume: inode, block, structure.
    pub place: Option<String>,
}

/// What `takeResult` gives.
pub enum Detail {
    /// Why the operation failed.
    Failure(NativeFailure),
    /// An opened file.
    Open(OpenFile),
    /// stat.
    Stat(Box<Stat>),
    /// A directory's names, inode numbers and types.
    Directory(Vec<(Vec<u8>, u32, u8)>),
    /// A symbolic link's text.
    Text(Vec<u8>),
    /// What a range of a file lies on.
    Extents(Vec<RangeExtent>),
    /// What mkfs made.
    Format(Box<FormatReport>),
    /// What a recovery did.
    Recovery(Recovery),
    /// What a volume is.
    Volume(Box<VolumeInfo>),
}

/// What `open` says.
pub struct OpenFile {
    ino: u32,
    generation: u32,
    mode: u16,
    size: u64,
    max_size: u64,
    bitmap_format: bool,
    dax: bool,
}

impl OpenFile {
    /// Of an inode.
    pub fn of(fs: &Fs, inode: &ext4::Inode) -> Self {
        Self {
            ino: inode.ino.0,
            generation: inode.generation,
            mode: inode.mode(),
            size: inode.size(),
            max_size: fs.max_bytes(inode),
            bitmap_format: inode.is_bitmap_format(),
            dax: fs.is_dax(inode),
        }
    }
}

/// What `volumeInfo` says.
pub struct VolumeInfo {
    superblock: ext4_format::Superblock,
    max_file_bytes: u64,
    read_only: bool,
    dax: bool,
    backend: BackendInfo,
    offset_align: u32,
    memory_align: u32,
    atomic_units: (u64, u64),
}

impl VolumeInfo {
    /// Of a mounted volume.
    pub fn of(fs: &Fs, backend: &BackendInfo) -> Self {
        let (offset_align, memory_align) = fs.direct_alignment();
        Self {
            superblock: fs.superblock(),
            max_file_bytes: fs.max_file_bytes(),
            read_only: fs.is_read_only(),
            dax: fs.has_dax(),
            backend: backend.clone(),
            offset_align,
            memory_align,
            atomic_units: fs.atomic_write_units(),
        }
    }
}

impl Detail {
    /// Of an error.
    pub fn failure(error: &Error) -> Self {
        let (message, place) = match error {
            Error::Corrupt { place, corrupt } => (corrupt.to_string(), Some(place.clone())),
            Error::Device(device) => {
                (device.to_string(), device.offset_bytes.map(|offset| format!("byte {offset} of the device")))
            }
            // The errno is told by its own name.
            Error::Refused { detail: Some(detail), .. } => (detail.clone(), None),
            other => (other.to_string(), None),
        };
        Self::Failure(NativeFailure { message, place })
    }

    /// As JavaScript gets it.
    pub fn to_js(&self, js: Js) -> JsResult<Value> {
        match self {
            Self::Failure(NativeFailure { message, place }) => {
                let object = js.object()?;
                js.set(object, c"message", js.string(message)?)?;
                if let Some(place) = place {
                    js.set(object, c"place", js.string(place)?)?;
                }
                Ok(object)
            }
            Self::Open(file) => open_file(js, file),
            Self::Stat(stat) => stat_object(js, stat),
            Self::Directory(entries) => directory(js, entries),
            Self::Text(text) => js.name(text),
            Self::Extents(extents) => extent_numbers(js, extents),
            Self::Format(report) => format_report(js, report),
            Self::Recovery(recovery) => recovery_object(js, recovery),
            Self::Volume(info) => info.to_js(js),
        }
    }
}

/// Sets properties that are numbers.
pub fn set_numbers(js: Js, object: Value, numbers: &[(&std::ffi::CStr, f64)]) -> JsResult<()> {
    numbers.iter().try_for_each(|(name, number)| js.set(object, name, js.number(*number)?))
}

const S_IFMT: u16 = 0o170_000;

fn open_file(js: Js, file: &OpenFile) -> JsResult<Value> {
    let kind = match file.mode & S_IFMT {
        0o100_000 => 1,
        0o040_000 => 2,
        0o020_000 => 3,
        0o060_000 => 4,
        0o010_000 => 5,
        0o140_000 => 6,
        0o120_000 => 7,
        _ => 0,
    };
    // Number and 21 bits of the generation: below 2^53, and another one once the number is used again.
    let key = u64::from(file.generation & 0x1F_FFFF) << 32 | u64::from(file.ino);
    let object = js.object()?;
    set_numbers(
        js,
        object,
        &[
            (c"ino", f64::from(file.ino)),
            (c"generation", f64::from(file.generation)),
            (c"inodeKey", key as f64),
            (c"type", f64::from(kind)),
            (c"size", file.size as f64),
            (c"maxSize", file.max_size as f64),
        ],
    )?;
    js.set(object, c"bitmapFormat", js.boolean(file.bitmap_format)?)?;
    js.set(object, c"dax", js.boolean(file.dax)?)?;
    Ok(object)
}

fn stat_object(js: Js, stat: &Stat) -> JsResult<Value> {
    let object = js.object()?;
    let is_device = matches!(stat.mode & S_IFMT, 0o020_000 | 0o060_000);
    let device = if is_device { libc::makedev(stat.device.0, stat.device.1) } else { 0 };
    set_numbers(
        js,
        object,
        &[
            (c"ino", f64::from(stat.ino.0)),
            (c"mode", f64::from(stat.mode)),
            (c"nlink", f64::from(stat.links)),
            (c"uid", f64::from(stat.uid)),
            (c"gid", f64::from(stat.gid)),
            (c"rdev", device as f64),
            (c"size", stat.size as f64),
            (c"blocks", stat.sectors as f64),
            (c"atimeSec", stat.atime.sec as f64),
            (c"atimeNsec", f64::from(stat.atime.nsec)),
            (c"mtimeSec", stat.mtime.sec as f64),
            (c"mtimeNsec", f64::from(stat.mtime.nsec)),
            (c"ctimeSec", stat.ctime.sec as f64),
            (c"ctimeNsec", f64::from(stat.ctime.nsec)),
            (c"birthtimeSec", stat.crtime.sec as f64),
            (c"birthtimeNsec", f64::from(stat.crtime.nsec)),
            (c"dioOffsetAlign", f64::from(stat.direct.offset_align)),
            (c"dioMemAlign", f64::from(stat.direct.memory_align)),
            (c"atomicWriteUnitMin", stat.direct.atomic_min as f64),
            (c"atomicWriteUnitMax", stat.direct.atomic_max as f64),
        ],
    )?;
    Ok(object)
}

fn directory(js: Js, entries: &[(Vec<u8>, u32, u8)]) -> JsResult<Value> {
    let object = js.object()?;
    let types: Vec<u8> = entries.iter().map(|(_, _, kind)| *kind).collect();
    js.set(object, c"names", js.array(entries.iter().map(|(name, _, _)| js.name(name)))?)?;
    js.set(object, c"types", js.bytes(&types)?)?;
    js.set(object, c"inos", js.array(entries.iter().map(|(_, ino, _)| js.number(f64::from(*ino))))?)?;
    Ok(object)
}

/// Four numbers each: position, place on the device, length, flags.
fn extent_numbers(js: Js, extents: &[RangeExtent]) -> JsResult<Value> {
    let numbers: Vec<f64> = extents
        .iter()
        .flat_map(|extent| {
            let flags = [extent.unwritten, extent.delalloc, extent.last, extent.inline];
            let bits = flags.iter().enumerate().map(|(bit, &set)| u32::from(set) << bit).sum::<u32>();
            [extent.logical as f64, extent.physical as f64, extent.len as f64, f64::from(bits)]
        })
        .collect();
    js.array(numbers.iter().map(|&number| js.number(number)))
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn strings(js: Js, texts: &[String]) -> JsResult<Value> {
    js.array(texts.iter().map(|text| js.string(text)))
}

fn format_report(js: Js, report: &FormatReport) -> JsResult<Value> {
    let object = js.object()?;
    set_numbers(
        js,
        object,
        &[
            (c"blockSize", f64::from(report.block_size)),
            (c"blockCount", report.blocks_count as f64),
            (c"groupCount", f64::from(report.group_count)),
            (c"inodeCount", f64::from(report.inodes_count)),
            (c"journalBlocks", f64::from(report.journal_blocks)),
            (c"bytesWritten", report.bytes_written as f64),
        ],
    )?;
    js.set(object, c"uuid", js.string(&uuid_text(&report.uuid))?)?;
    js.set(object, c"features", strings(js, &report.features)?)?;
    Ok(object)
}

fn recovery_object(js: Js, recovery: &Recovery) -> JsResult<Value> {
    let object = js.object()?;
    js.set(object, c"needed", js.boolean(recovery.needed)?)?;
    js.set(object, c"hasErrors", js.boolean(recovery.has_errors)?)?;
    let report = &recovery.report;
    set_numbers(
        js,
        object,
        &[
            (c"transactions", f64::from(report.transactions_replayed)),
            (c"blocks", report.blocks_replayed as f64),
            (c"revoked", report.copies_revoked as f64),
            (c"fastCommits", f64::from(report.fast_commits)),
            (c"orphansDeleted", f64::from(report.orphans.deleted)),
            (c"orphansTruncated", f64::from(report.orphans.truncated)),
            (c"orphansBad", f64::from(report.orphans.bad)),
            (c"orphansUnsupported", f64::from(report.orphans.unsupported)),
        ],
    )?;
    let left = js.array(report.orphans.left.iter().map(|ino| js.number(f64::from(*ino))))?;
    js.set(object, c"orphansLeft", left)?;
    Ok(object)
}

impl VolumeInfo {
    /// As JavaScript gets it.
    pub fn to_js(&self, js: Js) -> JsResult<Value> {
        let sb = &self.superblock;
        let label = sb.volume_name.split(|&byte| byte == 0).next().unwrap_or_default();
        let object = js.object()?;
        js.set(object, c"uuid", js.string(&uuid_text(&sb.uuid))?)?;
        js.set(object, c"label", js.string(&String::from_utf8_lossy(label))?)?;
        set_numbers(
            js,
            object,
            &[
                (c"blockSize", f64::from(sb.block_size())),
                (c"blockCount", sb.blocks_count() as f64),
                (c"freeBlocks", sb.free_blocks_count() as f64),
                (c"inodeCount", f64::from(sb.inodes_count)),
                (c"freeInodes", f64::from(sb.free_inodes_count)),
                (c"dioOffsetAlign", f64::from(self.offset_align)),
                (c"dioMemoryAlign", f64::from(self.memory_align)),
                (c"maxFileSize", self.max_file_bytes as f64),
                (c"atomicWriteUnitMin", self.atomic_units.0 as f64),
                (c"atomicWriteUnitMax", self.atomic_units.1 as f64),
            ],
        )?;
        // C24: always, for no host says what its device could do.
        js.set(object, c"atomicWriteJournalled", js.boolean(true)?)?;
        js.set(object, c"features", strings(js, &sb.features().names())?)?;
        js.set(object, c"readOnly", js.boolean(self.read_only)?)?;
        js.set(object, c"dax", js.boolean(self.dax)?)?;
        js.set(object, c"backend", js.string(self.backend.name)?)?;
        js.set(object, c"backendReason", js.string(&self.backend.reason)?)?;
        Ok(object)
    }
}
