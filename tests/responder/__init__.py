"""A Blob service in memory, in a process of its own, for tests and benchmarks.

It keeps the rules of the real service, as far as this project uses them, and breaks them on
demand. `control.Responder` starts one and commands it; ``python -m responder --help`` is the
same from a shell. From the top down:

    control     the commanding side: start, stop, faults, ready-made blobs, counters
    __main__    the process
    measure     how fast the responder itself is
    server      connections: receive a request, suffer what a rule orders, reply
    commands    requests to the responder rather than to the service
    recipes     blobs without an upload
    routes      which operation a request is
    batches     requests within a request
    access      what a credential allows
    listing     List Blobs
    reads       operations that change nothing
    writes      operations that change something
    conditions  If-Match and its relatives
    account     containers and blobs: the state, and what keeps it consistent
    faults      rules that delay, refuse and damage
    wire        bytes to and from a socket, at a set speed
    messages    requests and replies as values
    refusals    the service's error codes
    memory      what blobs are made of
"""
