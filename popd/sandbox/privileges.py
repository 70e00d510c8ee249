"""Privileges: those of root, in pieces (capabilities(7)), and the ways to come by them."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

__all__ = ["forbid_new", "renounce"]

_SET_NO_NEW_PRIVS: Final = 38
_CAPBSET_DROP: Final = 24
_CAP_AMBIENT: Final = 47
_CAP_AMBIENT_CLEAR_ALL: Final = 4
_HIGHEST: Final = 63
"""The last capability that there can be."""

_HEADER: Final = struct.pack("=Ii", 0x2008_0522, 0)
"""A ``struct __user_cap_header_struct`` of version 3, about this thread."""

_NONE: Final = bytes(24)
"""Two ``struct __user_cap_data_struct``: effective, permitted and inheritable, all empty."""

_libc = ctypes.CDLL(None, use_errno=True)


def forbid_new() -> None:
    """See to it that no program that is started has more privileges (PR_SET_NO_NEW_PRIVS).

    :raises OSError: that failed.
    """
    _checked(_prctl(_SET_NO_NEW_PRIVS, 1))


def renounce() -> None:
    """Give up all capabilities for good, and the ways to new ones, for this thread and its own.

    Whoever lacks the right to empty the bounding set has no way to come by what is in it, since
    set-user-ID programs and file capabilities count no more.

    :raises OSError: that failed.
    """
    forbid_new()
    for capability in range(_HIGHEST + 1):
        if _prctl(_CAPBSET_DROP, capability) < 0:
            break  # there are no more, or it may not
    _prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    if _has_any():  # else it may be that capset itself is forbidden, as systemd does
        _checked(_libc.capset(_HEADER, _NONE))


def _has_any() -> bool:
    had = ctypes.create_string_buffer(len(_NONE))
    _checked(_libc.capget(_HEADER, had))
    return had.raw != _NONE


def _prctl(option: int, argument: int) -> int:
    zero = ctypes.c_ulong(0)
    result: int = _libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero)
    return result


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
