"""`blobfs cp`: copies without a mount."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from blobfs.blocks import KiB
from blobfs.cli.commands import ConfiguredCommand, said_of_usage, switch
from blobfs.cli.copying import carry_out, places_of
from blobfs.cli.options import shared_parameters
from blobfs.cli.values import NumberBetween, scheduler_address, size_between
from blobfs.copying.places import require_direction, seen_from_anywhere
from blobfs.settings import CopySettings

if TYPE_CHECKING:
    from blobfs.copy_session import Session

_DEFAULTS = CopySettings()

MOST_JOBS = 256


OWN_PARAMETERS: tuple[click.Parameter, ...] = (
    click.Argument(["places"], nargs=-1, required=True, metavar="SRC… DST"),
    switch("-r", "-R", "--recursive", text="Copy directories with everything in them."),
    click.Option(
        ["--include"],
        multiple=True,
        allow_from_autoenv=False,
        metavar="GLOB",
        help="Only what matches, as in .gitignore: '*.nc', 'run/**/out'.",
    ),
    click.Option(
        ["--exclude"],
        multiple=True,
        allow_from_autoenv=False,
        metavar="GLOB",
        help="Nothing that matches, or is below what does; stronger than --include.",
    ),
    switch("-n", "--no-clobber", text="Leave what is there already as it is."),
    switch("-u", "--update", text="Leave what is there with the same size and time of change."),
    switch("--checksum", text="Leave what is there with the same MD5."),
    switch("--delete", "deletes", text="Afterwards, remove from DST what SRC does not have (with -r)."),
    switch("--dry-run", text="Only say what would be done."),
    click.Option(
        ["--preserve/--no-preserve", "preserves"],
        default=True,
        allow_from_autoenv=False,
        help="Keep modes, owners, times and extended attributes.  [default: preserve]",
    ),
    click.Option(
        ["--symlinks"],
        type=click.Choice(["keep", "follow", "skip"]),
        default=_DEFAULTS.symlinks,
        show_default=True,
        help="What to do with symbolic links; those in a container cannot be followed.",
    ),
    click.Option(
        ["-j", "--jobs"],
        type=NumberBetween(1, MOST_JOBS),
        default=_DEFAULTS.jobs,
        show_default=True,
        help="How many files are copied at once.",
    ),
    click.Option(
        ["--limit-rate"],
        type=size_between(1 * KiB, 1024**5),
        metavar="SIZE",
        help="Move at most so much in a second.  [default: no limit]",
    ),
    click.Option(
        ["--tier"],
        type=click.Choice(["Hot", "Cool", "Cold", "Archive"], case_sensitive=False),
        help="Access tier of new blobs.  [default: the account's]",
    ),
    click.Option(
        ["--content-type"],
        metavar="TYPE",
        help="Content type of new blobs.  [default: guessed from the name]",
    ),
    click.Option(
        ["--scheduler"],
        type=scheduler_address,
        metavar="ADDRESS",
        help="Have the workers of a Dask cluster copy: tcp://HOST:PORT, or local for one of this machine.",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="A line of JSON for each file, and a summary."),
)


@click.command(
    cls=ConfiguredCommand,
    params=[*OWN_PARAMETERS, *shared_parameters("timeout", "block_size", "file_md5", "verify")],
    short_help="Copy to, from or within a container.",
)
@click.pass_context
def cp(ctx: click.Context, /, places: Sequence[str], **values: Any) -> None:
    """Copy SRC… to DST, one of which is in a container: ACCOUNT/CONTAINER or ACCOUNT/CONTAINER/PATH.

    Between two places in one account the service copies. Something that is called ACCOUNT in the
    working directory makes it a local path; https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH never is
    one, and ./PATH always. - is standard input or output. What is copied into, and what is
    overwritten, is as for cp(1).
    """
    *sources, destination = places_of(ctx, places)
    if not sources:
        raise click.UsageError("Missing argument 'DST'.")
    with said_of_usage():
        require_direction(sources, destination)
    container = destination.container or sources[0].container
    assert container is not None
    wishes = _wishes(values)
    is_upload, is_download = sources[0].container is None, destination.container is None
    _refuse_contradictions(wishes, is_upload=is_upload, is_download=is_download)
    if destination.is_stream or sources[0].is_stream:
        _refuse_with_stream(wishes)
        if sources[0].is_stream and sys.__stdin__ is None:
            raise click.UsageError("-: standard input is closed. Open it, or give a path.")
        if values["as_json"] and destination.is_stream:
            raise click.UsageError("--json and a copy to standard output would mix.")
    scheduler = values["scheduler"]
    if scheduler:
        _refuse_with_scheduler(values, has_stream=destination.is_stream or sources[0].is_stream)

    def copy(session: "Session") -> None:
        if not scheduler:
            session.copy(sources, destination)
            return
        from blobfs.cluster import cluster

        *origins, end = (seen_from_anywhere(place, os.getcwd()) for place in [*sources, destination])
        with cluster(scheduler, session) as workers:
            session.copy(origins, end, workers)

    carry_out(ctx, container, wishes, copy)


def _wishes(values: dict[str, Any]) -> CopySettings:
    return CopySettings(
        recursive=values["recursive"],
        no_clobber=values["no_clobber"],
        update=values["update"],
        checksum=values["checksum"],
        deletes=values["deletes"],
        dry_run=values["dry_run"],
        preserves=values["preserves"],
        symlinks=values["symlinks"],
        include=tuple(values["include"]),
        exclude=tuple(values["exclude"]),
        jobs=values["jobs"],
        limit_bytes_per_second=values["limit_rate"] or 0,
        tier=values["tier"] or "",
        content_type=values["content_type"] or "",
    )


def _refuse_with_stream(wishes: CopySettings) -> None:
    given = {
        "--recursive": wishes.recursive,
        "--no-clobber": wishes.no_clobber,
        "--update": wishes.update,
        "--checksum": wishes.checksum,
        "--dry-run": wishes.dry_run,
    }
    if options := " and ".join(option for option, is_given in given.items() if is_given):
        raise click.UsageError(f"{options}: not with standard input or output (-).")


def _refuse_with_scheduler(values: dict[str, Any], *, has_stream: bool) -> None:
    if find_spec("distributed") is None:
        raise click.UsageError(
            "--scheduler needs Dask, which is not installed; "
            "in the clone of blobfs: pip install '.[cluster]'."
        )
    if has_stream:
        raise click.UsageError(
            "--scheduler: not with standard input or output (-), which only this machine has."
        )
    if values["limit_rate"]:
        raise click.UsageError("--limit-rate is for one machine, and --scheduler for several.")


def _refuse_contradictions(wishes: CopySettings, *, is_upload: bool, is_download: bool) -> None:
    if wishes.deletes and not wishes.recursive:
        raise click.UsageError("--delete is about directories: it needs -r.")
    if wishes.deletes and wishes.no_clobber:
        raise click.UsageError("--delete and --no-clobber contradict each other.")
    if not is_upload and wishes.symlinks == "follow":
        raise click.UsageError(
            "--symlinks follow is for links on this machine: keep or skip those of a blob."
        )
    if not is_upload and (wishes.tier or wishes.content_type):
        raise click.UsageError("--tier and --content-type are for uploads.")
    if not (is_upload or is_download or wishes.preserves):
        raise click.UsageError(
            "--no-preserve: not between containers, where the service copies all of a blob."
        )
