"""How many files and connections a process may have open."""

import resource


def allow_all() -> int:
    """Raises this process's soft limit to its hard one, which its children inherit; returns it.

    The usual soft limit of 1024 is meant for programs that still call select(2); thousands of clients need more.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
