"""The command line: arguments to `MountSettings`, a process in the background, exit codes.

From the top down:

    main        the commands as one, and the one place where a failure becomes a line and an exit code
    helper      how mount(8) calls us
    mount       refuse early what cannot work, then serve
    recover     what a crash left
    status      what mounts do, once or as it changes; in the words of a report
    report      a mount's status as a table
    warm        files into a mount's cache
    sync        a barrier, for the last line of a job
    umount      commit, unmount, and wait until the process is gone
    doctor      what may keep a mount from working
    config      what would hold for a mount, and why
    cp          copies without a mount
    verify      compares without one
    copying     what those two have in common
    commands    commands with options, and the places where one may be written
    options     every option of a mount
    config_file the file that may set them
    mountpoint  where a container may be mounted
    looks       asking mounts without waiting for one that is stuck
    progress    who watches a copy
    bar         how far it is, on a terminal
    control     how a command talks to a mount
    daemon      from a command to a process in the background
    logs        where log lines go
    values      the kinds of value an option takes
    messages    what commands say, without secrets and what a terminal would obey
    output      standard output that cannot be written
    machine     how much memory a mount takes if it is not told
"""
