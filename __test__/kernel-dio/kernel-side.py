"""Runs random cases on a mounted kernel file system: one JSON case a line in, one JSON result a line out.

Arguments: the mount point, and a file with 64 KiB of bytes for each seed from 0 on.
"""

import ctypes
import errno
import hashlib
import json
import mmap
import os
import sys

SEED_BYTES = 65536
PAGE = 4096
ATIME_NS = 946684800 * 10**9
MTIME_NS = 978307200 * 10**9

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

mount_point, seeds_path = sys.argv[1:3]
with open(seeds_path, "rb") as seeds_file:
    seeds = seeds_file.read()
memory = memoryview(mmap.mmap(-1, 1 << 20))


def segments(step):
    """Each in pages of its own, at its place in the first of them."""
    start = 0
    for place, length in step.get("iov") or [[step.get("mem", 0), step["len"]]]:
        yield memory[start + place : start + place + length]
        start += (place + length + PAGE) // PAGE * PAGE


def flags_of(step):
    flags = os.O_RDONLY if step["k"] in ("pread", "seek") else os.O_RDWR
    for name, flag in (("direct", os.O_DIRECT), ("oappend", os.O_APPEND), ("odsync", os.O_DSYNC), ("osync", os.O_SYNC)):
        if step.get(name):
            flags |= flag
    return flags


def run_on(fd, step):
    kind = step["k"]
    if kind == "pwrite":
        parts = list(segments(step))
        at = step["seed"] * SEED_BYTES
        for part in parts:
            part[:] = seeds[at : at + len(part)]
            at += len(part)
        return {"ret": os.pwritev(fd, parts, step["pos"])}
    if kind == "pread":
        parts = list(segments(step))
        for part in parts:
            part[:] = bytes(len(part))
        count = os.preadv(fd, parts, step["pos"])
        return {"ret": count, "data": hashlib.sha256(b"".join(parts)[:count]).hexdigest()}
    if kind == "truncate":
        os.ftruncate(fd, step["size"])
        return {"ret": 0}
    if kind == "fallocate":
        if libc.fallocate64(fd, step["bits"], step["pos"], step["len"]) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")
        return {"ret": 0}
    if kind == "seek":
        return {"ret": os.lseek(fd, step["pos"], os.SEEK_DATA if step["whence"] == "DATA" else os.SEEK_HOLE)}
    raise ValueError(kind)


def run_step(path, step):
    try:
        fd = os.open(path, flags_of(step))
        try:
            return run_on(fd, step)
        finally:
            os.close(fd)
    except OSError as error:
        # One number, two names.
        return {"err": "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]}


for line in sys.stdin:
    case = json.loads(line)
    path = os.path.join(mount_point, "case")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
    os.utime(path, ns=(ATIME_NS, MTIME_NS))
    ops = [run_step(path, step) for step in case["op"]]
    stat = os.stat(path)
    times = ("" if stat.st_atime_ns == ATIME_NS else "a") + ("" if stat.st_mtime_ns == MTIME_NS else "m")
    with open(path, "rb") as file:
        content = hashlib.sha256(file.read()).hexdigest()
    os.unlink(path)
    print(json.dumps({"ops": ops, "size": stat.st_size, "times": times, "content": content}), flush=True)
