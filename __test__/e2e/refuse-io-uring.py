"""Runs a command whose io_uring system calls (425 to 427) fail with EPERM, as under a container's seccomp profile."""
import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_GREATER_OR_EQUAL, RETURN = 0x20, 0x35, 0x06
ALLOW, ERRNO_EPERM = 0x7FFF0000, 0x00050001

instructions = [
    (LOAD_WORD, 0, 0, 0),
    (JUMP_IF_GREATER_OR_EQUAL, 0, 2, 425),
    (JUMP_IF_GREATER_OR_EQUAL, 1, 0, 428),
    (RETURN, 0, 0, ERRNO_EPERM),
    (RETURN, 0, 0, ALLOW),
]
code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
buffer = ctypes.create_string_buffer(code, len(code))
program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(buffer))

libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
    sys.exit("no_new_privs is refused")
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program, len(program)), 0, 0) != 0:
    sys.exit("seccomp is refused")
os.execvp(sys.argv[1], sys.argv[1:])
