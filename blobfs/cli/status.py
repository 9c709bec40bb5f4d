"""`blobfs status`: what mounts do, once or as it changes."""

import json
import os
from pathlib import Path

import click

from blobfs.cli.control import read_receipt
from blobfs.cli.looks import Looks
from blobfs.cli.mountpoint import our_mount_of, real_path
from blobfs.cli.values import absolute_path, seconds_between
from blobfs.errors import Incomplete

SAMPLE_SECONDS = 0.5  # between the two readings that throughput is worked out from


@click.command(short_help="Say what mounts do.")
@click.argument("mountpoint", type=absolute_path, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with an object for each mount.")
@click.option("--watch", is_flag=True, help="Go on showing it until interrupted.")
@click.option(
    "--interval",
    type=seconds_between(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
def status(mountpoint: Path | None, *, as_json: bool, watch: bool, interval: float) -> None:
    """Say what the mount on MOUNTPOINT does, or all mounts of blobfs that you may ask.

    Of a file in a mount it prints, as JSON, what the service has acknowledged of it. Exits with 1 if a
    mount is dead or stuck, or if not all of the file is committed.
    """
    if as_json and watch:
        raise click.UsageError("--json and --watch contradict each other: run --json again and again.")
    if mountpoint is not None and _is_mounted_file(mountpoint):
        click.echo(json.dumps(read_receipt(mountpoint), indent=2))
        return
    # Only now: what draws tables costs the other commands time.
    from blobfs.cli.report import print_tables, show_tables

    looks = Looks(mountpoint)
    if watch:
        show_tables(looks, interval)
        return
    looks.take(SAMPLE_SECONDS)
    if as_json:
        click.echo(json.dumps(looks.facts(), indent=2))
    else:
        print_tables(looks)
    if looks.troubles:
        raise Incomplete("\n".join(looks.troubles))


def _is_mounted_file(path: Path) -> bool:
    return our_mount_of(path) not in (None, real_path(path)) and os.path.isfile(path)
