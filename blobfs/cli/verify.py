"""`blobfs verify`: whether a container has what is here, and what it says it has."""

from collections.abc import Sequence
from typing import Any

import click

from blobfs.cli.commands import ConfiguredCommand, switch
from blobfs.cli.copying import carry_out, places_of
from blobfs.cli.cp import OWN_PARAMETERS as COPY_PARAMETERS
from blobfs.cli.options import shared_parameters
from blobfs.settings import CopySettings

SHARED = ("include", "exclude", "jobs", "as_json")

OWN_PARAMETERS: tuple[click.Parameter, ...] = (
    click.Argument(["places"], nargs=-1, required=True, metavar="[LOCAL] REMOTE"),
    switch("--full", text="Read everything, and compare every byte."),
    *(param for param in COPY_PARAMETERS if param.name in SHARED),
)


@click.command(
    cls=ConfiguredCommand,
    params=[*OWN_PARAMETERS, *shared_parameters("timeout")],
    short_help="Compare files with their checksums.",
)
@click.pass_context
def verify(ctx: click.Context, /, places: Sequence[str], **values: Any) -> None:
    """Compare the tree LOCAL with REMOTE, ACCOUNT/CONTAINER/PATH, by checksums that the service has.

    Without LOCAL, read everything in REMOTE and compare it with the checksums that were stored with it.
    Exits with 0 only if everything matches, and --include and --exclude leave something.
    """
    *local, remote = places_of(ctx, places)
    if len(local) > 1:
        raise click.UsageError("More than two places: give LOCAL and REMOTE, or REMOTE alone.")
    if remote.container is None or any(each.container is not None for each in local):
        raise click.UsageError(
            f"{remote.text!r} must be in a container, ACCOUNT/CONTAINER/PATH, and LOCAL here."
        )
    wishes = CopySettings(
        include=tuple(values["include"]),
        exclude=tuple(values["exclude"]),
        jobs=values["jobs"],
        reads_all=values["full"],
    )
    origin = local[0] if local else None
    carry_out(ctx, remote.container, wishes, lambda session: session.check(origin, remote))
