"""How fast, how cheap and how large: blobfs beside other programs, in one run on one machine.

``scripts/bench`` runs it. From the top down:

    __main__    the command line
    report      tables, JSON and the document
    plots       pictures
    runner      takes turns among systems, and measures each run
    catalogue   which systems there are
    mounting    systems that mount a container
    copying     systems that copy without a mount
    zeros       a mount with no service behind it
    services    what they all run against, and the network models
    workloads   what is done
    access      the ways of reading and writing that no common program has
    cells       the values that pass between these
"""
