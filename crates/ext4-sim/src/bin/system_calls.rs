//! Carries out system calls below a directory, a line each from standard input, and answers each with `ok N` (an inode number,
//! or 0) or `error TEXT`. A process of its own, for a mount that its parent serves: the parent must never wait for itself.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use block_io::AlignedBuf;
use ext4_sim::pattern;

struct Calls {
    root: PathBuf,
    /// Files kept open.
    held: HashMap<String, File>,
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("no number: {text}")))
}

/// Runs a tool that makes a system call for which std has no function.
fn tool(name: &str, args: &[&str], path: PathBuf) -> io::Result<u64> {
    let output = Command::new(name).args(args).arg(path).output()?;
    match output.status.success() {
        true => Ok(0),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

impl Calls {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn inode(&self, path: &str) -> io::Result<u64> {
        Ok(fs::symlink_metadata(self.at(path))?.ino())
    }

    fn open(&self, path: &str, flags: i32) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(self.at(path))
    }

    /// Bytes of [`pattern::bytes`].
    fn write(&self, path: &str, [pos, seed, len, flags]: [&str; 4]) -> io::Result<u64> {
        let bytes = AlignedBuf::copy_of(&pattern::bytes(number(seed)?, number(len)?));
        self.open(path, number(flags)?)?.write_all_at(&bytes, number(pos)?)?;
        Ok(0)
    }

    fn call(&mut self, words: &[&str]) -> io::Result<u64> {
        match *words {
            ["create", path] => {
                OpenOptions::new().write(true).create_new(true).mode(0o644).open(self.at(path))?;
                self.inode(path)
            }
            ["mkdir", path] => {
                fs::create_dir(self.at(path))?;
                self.inode(path)
            }
            ["symlink", text, path] => {
                symlink(text, self.at(path))?;
                self.inode(path)
            }
            ["link", old, new] => fs::hard_link(self.at(old), self.at(new)).map(|()| 0),
            ["rename", old, new] => fs::rename(self.at(old), self.at(new)).map(|()| 0),
            ["unlink", path] => fs::remove_file(self.at(path)).map(|()| 0),
            ["rmdir", path] => fs::remove_dir(self.at(path)).map(|()| 0),
            ["chmod", path, mode] => {
                fs::set_permissions(self.at(path), fs::Permissions::from_mode(number(mode)?)).map(|()| 0)
            }
            ["write", path, pos, seed, len, flags] => self.write(path, [pos, seed, len, flags]),
            ["truncate", path, size] => self.open(path, 0)?.set_len(number(size)?).map(|()| 0),
            ["fallocate", path, ref args @ ..] => tool("fallocate", args, self.at(path)),
            ["fsync", path] => File::open(self.at(path))?.sync_all().map(|()| 0),
            ["fdatasync", path] => File::open(self.at(path))?.sync_data().map(|()| 0),
            ["syncfs"] => tool("sync", &["-f"], self.root.clone()),
            ["hold", path] => {
                let file = self.open(path, 0)?;
                self.held.insert(path.to_owned(), file);
                Ok(0)
            }
            ["let-go", path] => Ok(u64::from(self.held.remove(path).is_some())),
            _ => Err(io::Error::other(format!("no such call: {words:?}"))),
        }
    }
}

fn run(root: PathBuf) -> io::Result<()> {
    let mut calls = Calls { root, held: HashMap::new() };
    let mut out = io::stdout().lock();
    // It runs, and so in a mount namespace of its own, if it was to.
    writeln!(out, "ok 0")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        match calls.call(&line.split('\t').collect::<Vec<_>>()) {
            Ok(value) => writeln!(out, "ok {value}")?,
            Err(error) => writeln!(out, "error {}", error.to_string().replace('\n', " "))?,
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(root) = std::env::args_os().nth(1) else {
        eprintln!("usage: system_calls ROOT");
        return ExitCode::from(2);
    };
    match run(root.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
