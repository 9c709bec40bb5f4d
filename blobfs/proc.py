"""What the kernel tells of this process, and of threads of any, in /proc (proc(5)).

What is asked of a thread never fails: one that has ended, or is in another PID namespace, does nothing. To
learn which system call a thread is in takes the right to trace its process (ptrace(2)).
"""

import os
import re
from contextlib import suppress
from pathlib import Path

_SIGKILL_BIT = 1 << 8
_UMASK = re.compile(r"^Umask:\s*([0-7]+)$", re.MULTILINE)
_PENDING = re.compile(r"^SigPnd:\s*([0-9a-f]+)$", re.MULTILINE)

# The names of some system calls, by their numbers in /proc/PID/syscall.
_NAMES = {
    "x86_64": {"0": "read", "2": "open", "202": "futex", "257": "openat"},
    "aarch64": {"56": "openat", "63": "read", "98": "futex"},
}.get(os.uname().machine, {})
_PLACE_OF_FLAGS = {"open": 2, "openat": 3}  # among the words of the call
_NOT_TO_READ = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_DIRECTORY | os.O_PATH


def task_of(thread_id: int) -> Path:
    """Return the directory of a thread of any process."""
    return Path(f"/proc/{thread_id}")


def own_task(thread_id: int) -> Path:
    """Return the directory of a thread of this process."""
    return Path(f"/proc/self/task/{thread_id}")


def program(task: Path) -> str:
    """Return the name of the program that a thread runs, as ps(1) shows it; empty if it is unknown."""
    try:
        with open(task / "comm", "rb", buffering=0) as file:
            return os.fsdecode(file.read()).rstrip("\n")
    except OSError:
        return ""


def umask() -> int:
    """Return this process's umask. Not by umask(2), which changes it meanwhile, for all threads."""
    (bits,) = _UMASK.findall(Path("/proc/self/status").read_text(errors="replace"))
    return int(bits, 8)


def is_dying(task: Path) -> bool:
    """Tell whether a thread has SIGKILL pending."""
    try:
        status = (task / "status").read_text(errors="replace")
    except OSError:
        return False
    pending = _PENDING.search(status)
    return pending is not None and bool(int(pending[1], 16) & _SIGKILL_BIT)


def is_opening_to_read(task: Path) -> bool:
    """Tell whether a thread is inside an open(2) of a file for reading."""
    call = _call_of(task)
    place = _PLACE_OF_FLAGS.get(call[0]) if call else None
    return place is not None and not int(call[place], 16) & _NOT_TO_READ


def is_reading(task: Path, path: str) -> bool:
    """Tell whether a thread is inside a read(2) of a file."""
    match _call_of(task):
        case ["read", descriptor, *_]:
            with suppress(OSError):
                return str((task / "fd" / str(int(descriptor, 16))).readlink()) == path
    return False


def lacks_processor_or_lock(task: Path) -> bool:
    """Tell whether a thread would go on if it had a processor, or a lock."""
    return _call_of(task)[:1] in (["running"], ["futex"])


def _call_of(task: Path) -> list[str]:
    """Return the words of the system call that a thread is in, its name first; none if that is unknown."""
    try:
        words = (task / "syscall").read_text().split()
    except OSError:
        return []
    return [_NAMES.get(word, word) for word in words[:1]] + words[1:]
