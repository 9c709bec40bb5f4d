"""What `blobfs cp` and `blobfs verify` have in common: settings, and what they say at the end."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from blobfs.cli.commands import said_of_usage
from blobfs.cli.logs import warnings_on_stderr
from blobfs.cli.messages import printable, say
from blobfs.cli.options import DEFAULTS, default_block_bytes, refuse_large_blocks, service_of
from blobfs.cli.progress import display
from blobfs.cli.values import name_without_secret, spell_rounded
from blobfs.copying.interruption import Interruption
from blobfs.copying.places import Container, Place, at_endpoints, place_of
from blobfs.copying.report import Outcome, Report, Verdict
from blobfs.errors import Failure
from blobfs.open_files import raise_open_files
from blobfs.settings import ContentSettings, CopySettings, SessionSettings

if TYPE_CHECKING:
    from blobfs.copy_session import Session

INTERRUPTED = 130  # as shells say it of SIGINT


def places_of(ctx: click.Context, texts: Sequence[str]) -> list[Place]:
    """Return what arguments name. Raises UsageError."""
    with said_of_usage():
        places = [place_of(os.path.expanduser(text), _is_here) for text in texts]
        for place in places:
            if place.container is not None:
                name_without_secret(place.text)
        return at_endpoints(places, ctx.params["endpoint"])


def _is_here(path: str) -> bool:
    """Tell whether the name is taken here, be it by a mount whose process has died."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


@dataclass(slots=True)
class CommandRun:
    """One command at work, and how it ended."""

    report: Report
    began_at: float
    trouble: str = ""  # what stopped all of it
    was_interrupted: bool = False


def carry_out(
    ctx: click.Context, container: Container, wishes: CopySettings, action: Callable[["Session"], None]
) -> None:
    """Do it, say what became of it, and exit with 1 unless all went well, with 130 if interrupted.

    Raises UsageError for what cannot be meant.
    """
    service = service_of(ctx, container.account, container.name, container.endpoint)
    settings = SessionSettings(service, _content_settings(ctx), wishes)
    as_json = ctx.params["as_json"]
    interruption = Interruption()
    with display(as_json=as_json, lists=wishes.dry_run) as watcher:
        run = CommandRun(Report(watcher), time.monotonic())
        with _ended(run, interruption), warnings_on_stderr():
            # Only now: it brings the client of the service, which help and errors do not need.
            from blobfs.copies import session

            raise_open_files()  # each job may have some
            with session(settings, run.report, interruption) as opened:
                action(opened)
    _say(run, as_json=as_json, was_dry=wishes.dry_run)
    if run.was_interrupted:
        ctx.exit(INTERRUPTED)
    if run.trouble or not run.report.is_clean:
        ctx.exit(1)


def _content_settings(ctx: click.Context) -> ContentSettings:
    values = ctx.params
    block_size_bytes = values.get("block_size", default_block_bytes(values["memory"]))
    refuse_large_blocks(block_size_bytes, values["memory"])
    return ContentSettings(
        memory_bytes=values["memory"],
        block_size_bytes=block_size_bytes,
        file_md5=values.get("file_md5", DEFAULTS.content.file_md5),
        verify=values.get("verify", DEFAULTS.content.verify),
    )


@contextmanager
def _ended(run: CommandRun, interruption: Interruption) -> Iterator[None]:
    try:
        with said_of_usage():
            yield
    except KeyboardInterrupt:
        interruption.set()
        run.was_interrupted = True
    except Failure as failure:
        run.trouble = str(failure)
    except BrokenPipeError:
        run.trouble = "nobody reads standard output any more"
    except OSError as error:
        run.trouble = f"{error.filename or 'standard input'}: {error.strerror}"  # all else says its name


def _say(run: CommandRun, *, as_json: bool, was_dry: bool) -> None:
    if as_json:
        click.echo(json.dumps({"summary": _summary(run)}))
    else:
        for outcome in run.report.bad:
            say(f"blobfs: {_line_of(outcome)}")
        if run.report.counts or not (run.trouble or run.was_interrupted):
            say(f"{'in a dry run: ' if was_dry else ''}{_spelled(run)}")
    if run.trouble:
        say(f"blobfs: ended early: {run.trouble}")
    if run.was_interrupted:
        say("blobfs: interrupted; the same command goes on from here.")


def _line_of(outcome: Outcome) -> str:
    """Say what became of an entry and why; where it was to go as well, because the fault may be there."""
    text = f"{printable(outcome.source or outcome.target)}: {outcome.verdict.value}: {outcome.reason}"
    if outcome.verdict is Verdict.FAILED and outcome.source and outcome.target:
        return f"{text} (target: {printable(outcome.target)})"
    return text


def _summary(run: CommandRun) -> dict[str, Any]:
    return {
        **{verdict.value: count for verdict, count in run.report.counts.items()},
        "copied_bytes": run.report.copied_bytes,
        "seconds": round(time.monotonic() - run.began_at, 3),
        "interrupted": run.was_interrupted,
        "trouble": run.trouble,
    }


def _spelled(run: CommandRun) -> str:
    counts = run.report.counts
    parts = [f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict]]
    moved = f", {spell_rounded(run.report.copied_bytes)}" if counts[Verdict.COPIED] else ""
    return f"{', '.join(parts) or 'nothing to do'}{moved}, in {time.monotonic() - run.began_at:.1f} s"
