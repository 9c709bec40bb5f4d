"""The step from a command to a process in the background, taken before there is any thread."""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import click

from blobfs.errors import Unavailable


def detach() -> Callable[[str], None]:
    """Go on in a new process, in a session of its own; return the function to call once it serves.

    The process that was started waits for that call, prints its message and exits with 0. If the
    new process ends before, it exits with that one's code; until then they share one stderr.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        _follow(pid, reader)
    os.setsid()
    os.chdir("/")
    _close_all_above_stderr(keep=writer)
    _silence(0, 1)

    def ready(message: str) -> None:
        _silence(2)
        os.write(writer, message.encode(errors="backslashreplace"))
        os.close(writer)

    return ready


def _follow(pid: int, reader: int) -> NoReturn:
    """Exit as the process in the background lets us. Raises Unavailable if a signal killed it."""
    try:
        with open(reader, encoding="utf-8") as pipe:
            message = pipe.read()
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        raise
    if message:
        click.echo(message)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        raise Unavailable(f"the mounting process was ended by {name} before the mount answered")
    sys.exit(exit_code or 1)


def _close_all_above_stderr(keep: int) -> None:
    """Let go of what the shell had open, such as a lock or a pipe that others wait on."""
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _silence(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    if null not in descriptors:
        os.close(null)
