"""crypt(3), the system's own password hashing, where the system has it.

Called through ctypes because Python no longer wraps it (PEP 594).  Other threads run while it
works: a password that hashes for a millisecond does not hold up the reactor for one.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_PASSWORD_OCTETS", "crypt", "knows"]

MAX_PASSWORD_OCTETS: Final = 511
"""The longest password that crypt(3) takes (CRYPT_MAX_PASSPHRASE_SIZE, less its NUL)."""

_LIBRARIES: Final = ("libcrypt.so.2", "libcrypt.so.1", None)
"""Where crypt_r may live: libxcrypt under its two names, and the C library itself (musl)."""

_DATA_OCTETS: Final = 256 * 1024
"""More than any system's ``struct crypt_data``: 128 KiB in old glibc, 32 KiB in libxcrypt."""

_PROBES: Final = {
    b"$5$": b"$5$rounds=1000$popd$",
    b"$6$": b"$6$rounds=1000$popd$",
    b"$y$": b"$y$j75$popd$",
}
"""For each method that popd has a use for, its cheapest setting."""


@cache
def knows(method: bytes) -> bool:
    """Tell whether this system's crypt(3) has *method*: ``$5$``, ``$6$`` or ``$y$``."""
    try:
        crypt(b"popd", _PROBES[method])
    except OSError:
        return False
    return True


def crypt(password: bytes, setting: bytes) -> bytes:
    """Hash *password* as *setting* says: an earlier hash, or its part before the last ``$``.

    :param password: without NUL, at most `MAX_PASSWORD_OCTETS` long.
    :raises OSError: this system has no crypt(3), or it does not know the method, or it failed.
    """
    function = _crypt_r()
    if function is None:
        raise OSError("this system has no crypt(3)")
    data = ctypes.create_string_buffer(_DATA_OCTETS)
    hashed = function(password, setting, data)
    if hashed is None or hashed.startswith(b"*"):  # how crypt(3) says no
        raise OSError(ctypes.get_errno(), f"crypt(3): {os.strerror(ctypes.get_errno())}")
    return hashed


@cache
def _crypt_r() -> Callable[[bytes, bytes, ctypes.Array[ctypes.c_char]], bytes | None] | None:
    """Find crypt_r, the thread-safe one."""
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, use_errno=True
    )
    for name in _LIBRARIES:
        try:
            return prototype(("crypt_r", ctypes.CDLL(name)))
        except (OSError, AttributeError):
            continue
    return None
