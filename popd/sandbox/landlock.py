"""Landlock: a process takes rights from itself, and from all that it starts, for good.

See landlock(7).  Nobody has to be root for that, and no library is needed.  A thread that runs
already keeps its rights, so it is done before there are any.

Landlock says what may be opened, executed, made and removed beneath which directories, and in later
versions whether TCP ports may be used.  It has nothing to say about what is open already, about
UNIX sockets that have names, and about looking whether something is there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING, Final

from popd.sandbox.privileges import forbid_new

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CREATE", "Access", "Rules", "abi", "restrict"]

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_RULE_PATH: Final = 1

_PATH: Final = struct.Struct("=Qi")
"""A ``struct landlock_path_beneath_attr``."""
_libc = ctypes.CDLL(None, use_errno=True)


class Access(IntFlag):
    """What may be done to files (LANDLOCK_ACCESS_FS)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15

    READ = READ_FILE | READ_DIR
    CHANGE = READ | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE


CREATE: Final = Access.MAKE_DIR | Access.MAKE_SOCK | Access.MAKE_SYM
"""What is made beside files, where a socket has its name."""

_OF_FILES: Final = Access(
    Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
)
"""What can be allowed of something that is no directory."""

_KNOWN: Final = (
    (1, Access(Access.REFER - 1)),
    (2, Access.REFER),
    (3, Access.TRUNCATE),
    (5, Access.IOCTL_DEV),
)
"""Since which version there is what."""

_BIND: Final = 1 << 0
_CONNECT: Final = 1 << 1
_NET_SINCE: Final = 4
_SCOPES_SINCE: Final = 6
_SCOPES: Final = 0b11  # abstract UNIX sockets, signals


@dataclass(frozen=True)
class Rules:
    """What is allowed; all else is not.

    :param paths: what may be done beneath directories, and to files; what is not there is left out.
    :param connect: whether to connect to any TCP port.
    :param bind: whether to bind any TCP port.
    :param signals: whether to send signals to processes outside, and to connect to abstract UNIX
        sockets of theirs.
    """

    paths: Mapping[str, Access] = field(default_factory=dict)
    connect: bool = False
    bind: bool = False
    signals: bool = False


def abi() -> int:
    """Return the version of Landlock that the kernel has, 0 if it has none."""
    version: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    return max(0, version)


def restrict(rules: Rules) -> None:
    """Take from this process, which must have one thread, all that *rules* do not allow.

    What the kernel does not know yet is left out.

    :raises OSError: that failed; all is as it was, but that no new privileges can be had.
    """
    if threading.active_count() > 1:
        raise OSError(errno.EBUSY, "there are other threads, which would keep their rights")
    version = abi()
    handled = Access(0)
    for since, accesses in _KNOWN:
        if version >= since:
            handled |= accesses
    net = 0
    if version >= _NET_SINCE:
        net = (0 if rules.connect else _CONNECT) | (0 if rules.bind else _BIND)
    scopes = _SCOPES if version >= _SCOPES_SINCE and not rules.signals else 0
    attributes = struct.pack("=QQQ", handled, net, scopes)
    if version < _SCOPES_SINCE:
        attributes = attributes[: 16 if version >= _NET_SINCE else 8]
    ruleset = _checked(
        _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    )
    try:
        for path, access in rules.paths.items():
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _allow(ruleset, path, access & handled)
        forbid_new()
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: Access) -> None:
    with _opened(path) as (descriptor, is_directory):
        if not is_directory:
            access &= _OF_FILES
        if access:
            rule = _PATH.pack(access, descriptor)
            _checked(_libc.syscall(_ADD_RULE, ruleset, _RULE_PATH, rule, 0))


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, bool]]:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor, os.path.isdir(descriptor)
    finally:
        os.close(descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, _REASONS.get(number) or os.strerror(number))
    return result


_REASONS: Final = {
    errno.ENOSYS: "this kernel has no Landlock",
    errno.EOPNOTSUPP: "Landlock is turned off in this kernel",
}
