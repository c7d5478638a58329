//! Directories of ours in a volume of mke2fs, judged by e2fsck.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use block_io::AlignedBuf;
use ext4_format::checksum::{CRC32C_SEED, crc32c, inode_seed};
use ext4_format::hash::{HashAlgorithm, uses_unsigned_chars};

use super::testing::{MemDir, params};
use super::*;

const BLOCK_SIZE: usize = 1024;
const NAMES: usize = 6000;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("e2fsprogs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn image_with_names(folder: &Path, feature: &str, hash: &str) -> String {
    let source = folder.join("source");
    std::fs::create_dir_all(source.join("d")).unwrap();
    for i in 0..NAMES {
        std::fs::write(source.join("d").join(format!("{i}-{}", "n".repeat(i % 120))), b"").unwrap();
    }
    let image = folder.join("image").to_str().unwrap().to_owned();
    let features = format!("{feature},^has_journal");
    let source = source.to_str().unwrap();
    run(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-b", "1024", "-N", "8000", "-O", &features, "-d", source, &image, "32M"],
    );
    run("tune2fs", &["-E", &format!("hash_alg={hash}"), &image]);
    image
}

/// The first `count` blocks of the directory.
fn mapped(image: &str, folder: &Path, count: usize) -> Vec<u64> {
    let script = folder.join("bmap");
    std::fs::write(&script, (0..count).map(|lblk| format!("bmap /d {lblk}\n")).collect::<String>()).unwrap();
    let text = run("debugfs", &["-f", script.to_str().unwrap(), image]);
    let blocks: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(blocks.len() == count && !blocks.contains(&0), "{text}");
    blocks
}

fn is_accepted(feature: &str, hash: &str, algorithm: HashAlgorithm) {
    let folder = tempfile::tempdir().unwrap();
    let image = image_with_names(folder.path(), feature, hash);
    let file = std::fs::File::options().read(true).write(true).open(&image).unwrap();
    let mut superblock = vec![0; 1024];
    file.read_exact_at(&mut superblock, 1024).unwrap();
    let word = |at: usize| u32::from_le_bytes(superblock[at..at + 4].try_into().unwrap());
    let stat = run("debugfs", &["-R", "stat /d", &image]);
    let number = |label: &str| -> u32 {
        stat.split(label).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };

    let mut params = params(algorithm);
    params.has_csum = !feature.starts_with('^');
    params.hash_version.unsigned = uses_unsigned_chars(word(0x160));
    params.hash_seed = std::array::from_fn(|i| word(0xEC + i * 4));
    params.self_ino = Ino(number("Inode:"));
    let seed =
        inode_seed(crc32c(CRC32C_SEED, &superblock[0x68..0x78]), params.self_ino, number("Generation:"));

    // What mke2fs wrote is a linear directory: it names the inodes.
    let mut theirs = MemDir::new(BLOCK_SIZE, &params);
    theirs.seed = seed;
    theirs.blocks.clear();
    let count = number("Size:") as usize / BLOCK_SIZE;
    for block in mapped(&image, folder.path(), count) {
        let mut bytes = AlignedBuf::zeroed(BLOCK_SIZE);
        file.read_exact_at(&mut bytes, block * BLOCK_SIZE as u64).unwrap();
        theirs.blocks.push((Image::new(bytes), false));
    }
    let mut ours = MemDir::new(BLOCK_SIZE, &params);
    ours.seed = seed;
    ours.update(0, false, &mut |bytes| init_block(&params, bytes, Ino(2))).unwrap();
    list(&theirs, &params, 0, &mut |item, _| {
        if !is_dot(item.name) {
            insert(&mut ours, &params, item.name, item.entry.ino, item.entry.file_type).unwrap();
        }
        true
    })
    .unwrap();
    assert_eq!(ours.blocks[0].0[0x1E], 1);

    let mut commands = "expand_dir /d\n".repeat(ours.blocks.len() - theirs.blocks.len());
    commands.push_str("set_inode_field /d flags 0x81000\n");
    let script = folder.path().join("script");
    std::fs::write(&script, commands).unwrap();
    run("debugfs", &["-w", "-f", script.to_str().unwrap(), &image]);
    for ((bytes, _), block) in ours.blocks.iter().zip(mapped(&image, folder.path(), ours.blocks.len())) {
        file.write_all_at(bytes, block * BLOCK_SIZE as u64).unwrap();
    }
    run("e2fsck", &["-fn", &image]);

    // It does look: a changed key is found.
    let root = mapped(&image, folder.path(), 1)[0] * BLOCK_SIZE as u64;
    file.write_all_at(&[ours.blocks[0].0[0x2B] ^ 0x40], root + 0x2B).unwrap();
    let output = Command::new("e2fsck").args(["-fn", &image]).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn e2fsck_accepts_our_index() {
    is_accepted("^metadata_csum", "half_md4", HashAlgorithm::HalfMd4);
    is_accepted("metadata_csum", "tea", HashAlgorithm::Tea);
}
