"""How many files this process may have open: each journal in a spool is one."""

import resource


def raise_open_files() -> int:
    """Allow this process as many open files as the system lets it have; return how many (getrlimit(2))."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
