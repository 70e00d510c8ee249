"""A process of its own that asks PAM, one question after the other; see `popd.auth.pam`.

It is run as a script, without popd and without site-packages: modules of PAM may hang, fork, crash,
and are not always fit for threads.  Questions and answers are lines of JSON on a socket whose
descriptor is the first argument; the second is the PAM service; the third, if any, a directory
with the service's file, in place of ``/etc/pam.d``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from typing import Any, Final

SUCCESS: Final = 0
_BUF_ERR: Final = 5
_CONV_ERR: Final = 19

_PROMPT_ECHO_OFF: Final = 1
_ERROR_MSG: Final = 3
_TEXT_INFO: Final = 4

_USER: Final = 2
_TTY: Final = 3
_RHOST: Final = 4
_FAIL_DELAY: Final = 10

_DISALLOW_NULL_AUTHTOK: Final = 1
_SILENT: Final = 0x8000

_MAX_MESSAGES: Final = 32  # PAM_MAX_NUM_MSG
_PR_SET_PDEATHSIG: Final = 1


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_Converse = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)

_Delay = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class _Conversation(ctypes.Structure):
    _fields_ = (("converse", _Converse), ("data", ctypes.c_void_p))


_no_delay = _Delay(lambda *_: None)
"""What is called in place of a pause after a failure: how long that is, popd decides."""


class Pam:
    """The PAM library of this machine.

    :param service: the PAM service.
    :param directory: where its file is; empty for where the library looks.
    :raises OSError: there is no such library, or it cannot look elsewhere.
    """

    def __init__(self, service: bytes, directory: bytes = b"") -> None:
        self._service = service
        self._directory = directory
        self._library: Any = ctypes.CDLL("libpam.so.0")
        self._library.pam_strerror.restype = ctypes.c_char_p
        if directory and not hasattr(self._library, "pam_start_confdir"):
            raise OSError("libpam before 1.4 cannot look for services in a directory of choice")
        self._libc: Any = ctypes.CDLL(None)
        self._libc.calloc.restype = ctypes.c_void_p
        self._libc.strdup.restype = ctypes.c_void_p

    def check(self, user: bytes, password: bytes, host: bytes) -> dict[str, Any]:
        """Ask whether a password is right, and the user may log in from *host*.

        :return: ``stage`` is what was asked last, ``authenticate`` or ``account``, ``code`` and
            ``text`` what came of it, ``user`` who it is in PAM's words by then.
        """
        library, handle = self._library, ctypes.c_void_p()
        converse = _Converse(lambda *told: self._answer(password, *told))
        conversation = _Conversation(converse, None)
        reference = ctypes.byref(handle)
        if self._directory:
            code = library.pam_start_confdir(
                self._service, user, ctypes.byref(conversation), self._directory, reference
            )
        else:
            code = library.pam_start(self._service, user, ctypes.byref(conversation), reference)
        if code != SUCCESS:
            return {"stage": "start", "code": code, "text": "PAM cannot start", "user": ""}
        stage = "authenticate"
        try:
            library.pam_set_item(handle, _TTY, b"popd")
            library.pam_set_item(handle, _FAIL_DELAY, _no_delay)
            if host:
                library.pam_set_item(handle, _RHOST, host)
            code = library.pam_authenticate(handle, _SILENT | _DISALLOW_NULL_AUTHTOK)
            if code == SUCCESS:
                stage = "account"
                code = library.pam_acct_mgmt(handle, _SILENT)
            text = library.pam_strerror(handle, code) or b""
            name = ctypes.c_char_p()
            library.pam_get_item(handle, _USER, ctypes.byref(name))
            shown = (name.value or b"").decode("latin-1")
        finally:
            library.pam_end(handle, code)
        return {"stage": stage, "code": code, "text": text.decode("latin-1"), "user": shown}

    def _answer(
        self, password: bytes, count: int, messages: Any, answers: Any, _data: object
    ) -> int:
        """Be the user: who is asked for a password says it, and nothing else."""
        if not 0 < count <= _MAX_MESSAGES:
            return _CONV_ERR
        styles = [messages[n].contents.style for n in range(count)]
        if not {*styles} <= {_PROMPT_ECHO_OFF, _ERROR_MSG, _TEXT_INFO}:
            return _CONV_ERR
        memory = self._libc.calloc(count, ctypes.sizeof(_Response))
        if not memory:
            return _BUF_ERR
        responses = ctypes.cast(memory, ctypes.POINTER(_Response))
        for n, style in enumerate(styles):
            if style == _PROMPT_ECHO_OFF:
                responses[n].text = self._libc.strdup(password)
        answers[0] = responses
        return SUCCESS


def serve(pam: Pam, channel: socket.socket) -> None:
    """Answer questions until there are no more."""
    with channel.makefile("rwb") as lines:
        for line in lines:
            question = {key: text.encode("latin-1") for key, text in json.loads(line).items()}
            lines.write(json.dumps(pam.check(**question)).encode("ascii") + b"\n")
            lines.flush()


def main() -> None:
    """Be a helper."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # also where a module hangs
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)  # it is none of the business of what modules run
    service, *directory = map(os.fsencode, sys.argv[2:])
    serve(Pam(service, *directory), socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main()
