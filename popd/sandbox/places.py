"""Where things are that a process needs: files that may be replaced, Python, the libraries' own."""

from __future__ import annotations

import glob
import os
import re
import site
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["DEVICES", "SYSTEM", "around", "interpreter", "python", "socket_directory"]

SYSTEM: Final = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib"),
    *("/usr/share", "/usr/local/share", "/sys/devices/system/cpu"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/crypto-policies"),
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"),
    *("/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf"),
    *("/etc/services", "/etc/protocols", "/etc/passwd", "/etc/group"),
)
"""What libraries read: code, zones, authorities, and how names are looked up."""

DEVICES: Final = ("/dev/null", "/dev/urandom", "/dev/random")

_LOADERS: Final = ("/lib/ld-*", "/lib64/ld-*")
"""What the kernel starts a program with."""

_MAX_LINKS: Final = 40
_UNIX: Final = re.compile(r"unix:(?:address=)?((?:[^:\\]|\\.)+)")


def around(path: str) -> set[str]:
    """Return the directories in which it is decided what a file is that may be replaced.

    That is the one that it is in; and if there are links on the way, those that the links' targets
    are in, so that a link may later lead to such a target's neighbour.  The root directory is never
    among them; a file that is there, or at home, stands for itself alone.
    """
    found: set[str] = set()
    here = os.path.abspath(path)
    for _ in range(_MAX_LINKS):
        directory = os.path.dirname(here)
        found.add(here if directory in {"/", os.path.expanduser("~")} else directory)
        link, rest = _first_link(here)
        if not link:
            break
        target = os.path.join(os.path.dirname(link), os.readlink(link))
        here = os.path.normpath(os.path.join(target, rest))
        if os.path.dirname(link) != "/":  # such as /lib
            found.add(os.path.dirname(os.path.normpath(target)))
    return found - {"/"}


def _first_link(path: str) -> tuple[str, str]:
    """Return the first part of a path that is a link, and what follows it."""
    parts = path.split("/")
    for count in range(2, len(parts) + 1):
        head = "/".join(parts[:count])
        if os.path.islink(head):
            return head, "/".join(parts[count:])
    return "", ""


def python() -> Iterator[str]:
    """Yield where Python and its packages are, also those that are loaded later."""
    wide = {"/", "/usr", "/usr/local"}  # of which `SYSTEM` has what is needed
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    packages = {path for path in sys.path if path.endswith(("-packages", ".zip"))}
    homes = (prefixes - wide) | packages | {site.getusersitepackages()} & set(sys.path)
    yield from homes
    yield from in_place()


def in_place() -> Iterator[str]:
    """Yield the packages and modules that are loaded and not installed."""
    known = (*(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix), *SYSTEM)
    for module in list(sys.modules.values()):
        paths = getattr(module, "__path__", None) or [getattr(module, "__file__", None)]
        for path in list(paths):
            if isinstance(path, str) and path.startswith("/") and not _is_installed(path, known):
                yield path


def _is_installed(path: str, known: Iterable[str]) -> bool:
    return "-packages/" in path or path.startswith(tuple(f"{one.rstrip('/')}/" for one in known))


def interpreter() -> Iterator[str]:
    """Yield what has to be executed so that this program may be started anew."""
    yield os.path.realpath(sys.executable)
    yield os.path.abspath(sys.argv[0])
    for pattern in _LOADERS:
        yield from glob.iglob(pattern)


def socket_directory(endpoint: str) -> str:
    """Return the directory of an endpoint's UNIX socket; empty if it has none."""
    match = _UNIX.match(endpoint)
    path = re.sub(r"\\(.)", r"\1", match[1]) if match else ""
    return os.path.dirname(os.path.abspath(path)) if path else ""
