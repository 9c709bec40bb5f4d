"""`blobfs recover`: what a crash left in the spool."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from blobfs.azure.addresses import require_account_name, require_container_name
from blobfs.cli.commands import ConfiguredCommand, said_of_usage, switch
from blobfs.cli.messages import printable, say
from blobfs.cli.options import refuse_large_blocks, service_of, shared_parameters
from blobfs.cli.values import absolute_path
from blobfs.errors import Failure, Incomplete, NotFound
from blobfs.open_files import raise_open_files
from blobfs.settings import ContentSettings, ServiceSettings
from blobfs.spool.directory import directories_of, leftovers_in
from blobfs.spool.leftovers import Leftover, State
from blobfs.store import BlobInfo

SHARED = ("account", "container", "spool_dir", "timeout", "block_size", "file_md5")

ACTIONS = ("commit", "save_to", "discard")

# What is done is only said on the command line: a variable must not turn a listing into a removal.
OWN_PARAMETERS: tuple[click.Parameter, ...] = (
    click.Argument(["names"], nargs=-1),
    switch("--commit", text="Commit what was closed, or all that is named."),
    click.Option(
        ["--save-to"],
        type=absolute_path,
        allow_from_autoenv=False,
        metavar="DIRECTORY",
        help="Save as local files there.",
    ),
    switch("--discard", text="Remove what is named for good."),
    click.Option(["--json", "as_json"], is_flag=True, help="List as JSON."),
)


@click.command(
    cls=ConfiguredCommand,
    params=[*shared_parameters(*SHARED), *OWN_PARAMETERS],
    short_help="Show and use what a crash left.",
)
@click.pass_context
def recover(ctx: click.Context, /, names: Sequence[str], **values: Any) -> None:
    """List what crashed mounts of CONTAINER left in --spool-dir, or do something about it.

    NAMES are names of blobs, as listed. What was closed before the crash is committed by the next
    mount, too; what never was, only by its name. Nothing is replaced that somebody else has written.
    """
    _refuse_impossible(values)
    service = service_of(ctx, values["account"], values["container"])
    content = ContentSettings(
        memory_bytes=values["memory"], block_size_bytes=values["block_size"], file_md5=values["file_md5"]
    )
    if sum(bool(values[action]) for action in ACTIONS) > 1:
        raise click.UsageError("--commit, --save-to and --discard contradict each other.")
    if values["discard"] and not names:
        raise click.UsageError("--discard needs the names of what to remove.")
    with ExitStack() as held:
        leftovers = _selected(values["spool_dir"], service, names, held)
        if not leftovers and not values["as_json"]:
            click.echo("Nothing is left.")
        elif values["commit"]:
            _commit(leftovers, service, content, by_name=bool(names))
        elif values["save_to"]:
            _save(leftovers, service, content, values["save_to"])
        elif values["discard"]:
            _discard(leftovers)
        elif values["as_json"]:
            click.echo(json.dumps([_facts(leftover) for leftover in leftovers], indent=2))
        else:
            _list(leftovers)


def _refuse_impossible(values: Mapping[str, Any]) -> None:
    if values["spool_dir"] is None:
        raise click.UsageError("Missing option '--spool-dir'.")
    refuse_large_blocks(values["block_size"], values["memory"])
    with said_of_usage():  # nothing is left of what cannot exist, and that would be no answer to a slip
        require_account_name(values["account"])
        require_container_name(values["container"])


def _selected(
    spool_dir: Path, service: ServiceSettings, names: Sequence[str], held: ExitStack
) -> list[Leftover]:
    """Take hold of the leftovers of these names, or of all. Raises NotFound, UsageError."""
    leftovers = []
    with said_of_usage():
        directories = directories_of(spool_dir, service.account, service.container)
    raise_open_files()  # each leftover is one
    for leftover in leftovers_in(directories):
        if not names or leftover.name in names:
            held.callback(leftover.close)
            leftovers.append(leftover)
        else:
            leftover.close()
    if missing := set(names) - {leftover.name for leftover in leftovers}:
        raise NotFound(f"nothing of {', '.join(sorted(missing))} is left in {spool_dir}.")
    return sorted(leftovers, key=lambda leftover: leftover.name)


def _commit(
    leftovers: Iterable[Leftover], service: ServiceSettings, content: ContentSettings, *, by_name: bool
) -> None:
    # Only now: it brings the client of the service, and the list needs none.
    from blobfs.recover import recovery_on_command

    asked: list[Leftover] = []
    others: list[Leftover] = []
    for leftover in leftovers:
        (asked if by_name or leftover.state is State.TO_COMMIT else others).append(leftover)
    with recovery_on_command(service, content) as recovery:
        commit = recovery.commit_named if by_name else recovery.commit
        failures = [failure for leftover in asked if (failure := _failure_to_commit(commit, leftover))]
    for leftover in others:
        cure = "; name it to commit it" if leftover.state is State.NEVER_CLOSED else ""
        click.echo(f"{_named(leftover)}: {leftover.state.value}, and still in the spool{cure}.")
    if failures:
        raise Incomplete("not committed, and kept:\n" + "\n".join(failures))


def _failure_to_commit(commit: Callable[[Leftover], BlobInfo], leftover: Leftover) -> str:
    try:
        info = commit(leftover)
    except Failure as failure:
        return str(failure)
    click.echo(f"{printable(info.name)}: committed, {info.size_bytes} bytes.")
    if leftover.has_unclosed_edits:
        click.echo("  edits after that were never closed: they are still in the spool")
    return ""


def _save(
    leftovers: Iterable[Leftover], service: ServiceSettings, content: ContentSettings, directory: Path
) -> None:
    from blobfs.recover import recovery_on_command

    failures: list[str] = []
    with recovery_on_command(service, content) as recovery:
        for leftover in leftovers:
            path = _free_path(directory, leftover.name or leftover.path.name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                missing = recovery.save(leftover, path)
            except Failure as failure:
                failures.append(str(failure))
                continue
            except OSError as error:
                failures.append(f"{_named(leftover)}: {path}: {error.strerror}")
                continue
            click.echo(f"{_named(leftover)}: saved as {printable(str(path))}; it is still in the spool, too.")
            for start, end in missing:
                say(f"  bytes {start} to {end - 1} were in a blob that is gone: zeros")
    if failures:
        raise Incomplete("not saved, and still in the spool:\n" + "\n".join(failures))


def _free_path(directory: Path, name: str) -> Path:
    """Return a path below the directory where nothing is yet, whatever the name is."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    path = first = directory.joinpath(*parts)
    number = 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}.{number}")
    return path


def _discard(leftovers: Iterable[Leftover]) -> None:
    for leftover in leftovers:
        leftover.discard()
        click.echo(f"{_named(leftover)}: removed from the spool.")


def _list(leftovers: Iterable[Leftover]) -> None:
    for leftover in leftovers:
        facts = _facts(leftover)
        base = f"changes version {facts['base']}" if facts["base"] else "a new file"
        age_seconds = max(0.0, time.time() - leftover.modified_ns / 10**9)
        click.echo(
            f"{_named(leftover)}: {facts['state']}, {facts['size_bytes']} bytes, {base}; "
            f"{facts['journal_bytes']} bytes in the journal, {_spell_age(age_seconds)} old"
        )
        if note := _note_on(leftover):
            click.echo(f"  {printable(note)}")


def _named(leftover: Leftover) -> str:
    return printable(leftover.name or str(leftover.path))


def _note_on(leftover: Leftover) -> str:
    if leftover.state is State.TO_COMMIT and leftover.has_unclosed_edits:
        closed_bytes = leftover.requested_image().size_bytes
        return f"closed with {closed_bytes} bytes; edits after that never were: name it to commit them"
    return _reason_of(leftover)


def _reason_of(leftover: Leftover) -> str:
    lost = leftover.lost_edits and f"edits after its last close() are lost: {leftover.lost_edits}"
    return leftover.conflict or leftover.damage or lost


def _facts(leftover: Leftover) -> Mapping[str, Any]:
    modified = datetime.fromtimestamp(leftover.modified_ns / 10**9, timezone.utc)
    return {
        "name": leftover.name,
        "state": leftover.state.value,
        "reason": _reason_of(leftover),
        "size_bytes": leftover.image().size_bytes,
        "has_unclosed_edits": leftover.has_unclosed_edits,
        "base": leftover.target.expected_etag,
        "modified": modified.isoformat(timespec="seconds"),
        "journal": str(leftover.path),
        "journal_bytes": leftover.journal_bytes,
    }


def _spell_age(seconds: float) -> str:
    for unit, unit_seconds in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * unit_seconds:
            return f"{seconds // unit_seconds:.0f} {unit}"
    return f"{seconds:.0f} seconds"
