"""The command group, and the one place where a failure becomes a line on stderr and an exit code."""

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click
from click.exceptions import NoArgsIsHelpError

from blobfs.cli.config import config
from blobfs.cli.cp import cp
from blobfs.cli.doctor import doctor
from blobfs.cli.helper import mount8
from blobfs.cli.messages import say
from blobfs.cli.mount import mount
from blobfs.cli.recover import recover
from blobfs.cli.status import status
from blobfs.cli.sync import sync
from blobfs.cli.umount import umount
from blobfs.cli.verify import verify
from blobfs.cli.warm import warm
from blobfs.errors import Failure

logger = logging.getLogger(__name__)


class Explained(click.ClickException):
    """A failure in words for whoever typed the command; exits with 1."""

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002
        say(f"blobfs: {self.message}")


class Misused(Explained):
    """A command that cannot be meant as it was given; exits with 2."""

    exit_code = 2


class Commands(click.Group):
    """The commands, plus `blobfs SPEC MOUNTPOINT …`, which is how mount.fuse3(8) calls its helper."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if "/" not in args[0]:
            return super().resolve_command(ctx, args)
        return mount.name, mount8, args  # messages send its callers to the help of `mount`

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before the command; print the help and version."""
        if sys.stdout is None:
            raise Misused("standard output is closed. Open it, or write to /dev/null.")
        with _explained(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _explained(ctx):
            return super().invoke(ctx)


@contextmanager
def _explained(ctx: click.Context) -> Iterator[None]:
    """Have output written; explain failures, and what the system says of a file or limit. Others are bugs."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except NoArgsIsHelpError:
        raise  # its message is the help
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else ctx.command_path
        text = error.format_message().rstrip(".")
        stop = "" if text.endswith(("?", "?)")) else "."
        raise Misused(f"{text}{stop} See {command} --help.") from error
    except Failure as failure:
        logger.debug("failed", exc_info=True)
        raise Explained(str(failure)) from failure
    except BrokenPipeError:
        raise  # click ends without a word
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            cure = "Raise the limit on open files (ulimit -n), then run the command again."
            raise Explained(f"{error.strerror}. {cure}") from error
        if error.filename is None:
            raise
        logger.debug("failed", exc_info=True)
        raise Explained(f"{error.filename}: {error.strerror}") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="blobfs", prog_name="blobfs")
def blobfs() -> None:
    """Mount an Azure Blob container as a POSIX directory."""


blobfs.add_command(cp)
blobfs.add_command(config)
blobfs.add_command(doctor)
blobfs.add_command(mount)
blobfs.add_command(recover)
blobfs.add_command(status)
blobfs.add_command(sync)
blobfs.add_command(umount)
blobfs.add_command(verify)
blobfs.add_command(warm)
