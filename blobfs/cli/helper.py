"""How mount(8) calls us.

`mount -t fuse.blobfs` arrives through mount.fuse3(8) as ``blobfs SPEC MOUNTPOINT -o LIST``,
`mount -t blobfs` as ``mount.blobfs SPEC MOUNTPOINT [-sfnv] [-N NS] [-o LIST] [-t TYPE]``
(mount(8), "External helpers"). SPEC is ACCOUNT/CONTAINER or ACCOUNT/CONTAINER/PREFIX.
"""

from collections.abc import Sequence

import click

from blobfs.cli.mount import mount


@click.command(hidden=True)
@click.argument("spec")
@click.argument("mountpoint")
@click.option("-o", "lists", multiple=True)
@click.option("-f", "fake", is_flag=True, help="Do everything except mounting.")
@click.option("-s", "-n", "-v", is_flag=True, expose_value=False, help="Accepted; they change nothing here.")
@click.option("-N", "-t", multiple=True, expose_value=False, help="Accepted; mount(8) has acted on them.")
@click.pass_context
def mount8(ctx: click.Context, spec: str, mountpoint: str, lists: Sequence[str], fake: bool) -> None:
    """Mount SPEC for mount(8). Even with `-s` unknown options are errors: a typo must not weaken a mount."""
    mount_ctx = mount.make_context("mount", mount_arguments(spec, mountpoint, lists), parent=ctx.parent)
    if not fake:
        with mount_ctx:
            mount.invoke(mount_ctx)


def mount_arguments(spec: str, mountpoint: str, lists: Sequence[str]) -> list[str]:
    """Return the arguments of `blobfs mount` that say the same."""
    account, _, path = spec.partition("/")
    container, _, prefix = path.partition("/")
    options = [f"-o{mount_list}" for mount_list in lists]
    if prefix:
        options.append(f"--prefix={prefix}")
    return [*options, "--", account, container, mountpoint]
