"""Which versions of files are there, to see that another one has been put in their place."""

from pathlib import Path

#: One entry a file; files that cannot be looked at have none together.
Versions = tuple[tuple[int, int, int], ...]


def versions(*paths: Path) -> Versions:
    """The versions that are there now.

    A link that leads elsewhere, as Kubernetes swaps them, is another version; so is a file with other permissions,
    which may be readable now.
    """
    try:
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) for stat in (path.stat() for path in paths))
    except OSError:
        return ()
