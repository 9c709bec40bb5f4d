"""The program `blobfs`, also as `python -m blobfs` and, for mount(8), as `mount.blobfs`."""

import signal


def main() -> None:
    """Run the command line of this process and exit: 0, 1 for a failure, 2 for wrong usage."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # not for a job in the background, which ignores it
        # Until there is something to put in order, Ctrl-C just ends the process.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from blobfs.address_space import reserve_little
    from blobfs.cli.main import blobfs
    from blobfs.cli.output import name_output

    signal.signal(signal.SIGINT, handler)
    name_output()
    reserve_little()
    blobfs(prog_name="blobfs")


if __name__ == "__main__":
    main()
