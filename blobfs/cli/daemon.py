"""The step from a command to a process in the background, taken before there is any thread."""

import os
import select
import signal
import sys
from collections.abc import Callable, Sequence, Set
from typing import NoReturn

from blobfs.cli.messages import announce
from blobfs.errors import Ended

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def detach(*, keep: int | None = None) -> Callable[[str], None]:
    """Go on in a new process, in a session of its own; return the function to call once it serves.

    The process that was started waits for that call, prints its message and exits with 0. If the
    new process ends before, it exits with that one's code, or raises Ended; until then they share
    one stderr. A signal that would end the waiting process ends the new one. Of the descriptors
    above stderr, the new process has only `keep`.
    """
    reader, writer = os.pipe()
    # One that comes before the waiting process is ready for it would end that one alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    pid = os.fork()
    if pid:
        os.close(writer)
        _follow(pid, reader)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    os.chdir("/")
    _close_all_above_stderr({writer} if keep is None else {writer, keep})
    _silence(0, 1)

    def ready(message: str) -> None:
        _silence(2)
        try:
            os.write(writer, message.encode(errors="backslashreplace"))
        except BrokenPipeError:
            # Nobody waits any more: whoever killed the command does not expect a mount.
            os.kill(os.getpid(), signal.SIGTERM)
        os.close(writer)

    return ready


def _follow(pid: int, reader: int) -> NoReturn:
    """Exit as the process in the background lets us. Raises Ended if a signal killed it."""
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker)
    passed_on = _pass_on_signals(pid)
    message = _read_to_end(reader, woken).decode()
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # they come too late
    if message and not passed_on:
        announce(message)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    if exit_code < 0 or passed_on:
        name = signal.Signals(passed_on[0] if passed_on else -exit_code).name
        raise Ended(f"ended by {name} before the mount answered; nothing is mounted.")
    sys.exit(exit_code or 1)


def _read_to_end(reader: int, woken: int) -> bytes:
    """Return all that comes from a pipe. Signals are handled meanwhile, as each is told by a byte in `woken`.

    One that arrived just before a read began would be handled after it otherwise, that is, never.
    """
    pieces: list[bytes] = []
    while True:
        ready, _, _ = select.select((reader, woken), (), ())
        if woken in ready:
            os.read(woken, select.PIPE_BUF)
        if reader in ready:
            piece = os.read(reader, select.PIPE_BUF)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)


def _pass_on_signals(pid: int) -> Sequence[int]:
    """Have signals end that process instead of this one; return a list that they will be in.

    As SIGTERM, by which it ends without a word now and by unmounting later. What is ignored (nohup)
    stays so.
    """
    received: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        received.append(number)
        os.kill(pid, signal.SIGTERM)

    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    return received


def _close_all_above_stderr(keep: Set[int]) -> None:
    """Let go of what the shell had open, such as a lock or a pipe that others wait on."""
    start = 3
    for descriptor in sorted(keep):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _silence(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    if null not in descriptors:
        os.close(null)
