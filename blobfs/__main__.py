"""The program `blobfs`, also as `python -m blobfs` and, for mount(8), as `mount.blobfs`."""

from blobfs.cli.main import blobfs


def main() -> None:
    """Run the command line of this process and exit: 0, 1 for a failure, 2 for wrong usage."""
    blobfs(prog_name="blobfs")


if __name__ == "__main__":
    main()
