"""Thunderbird itself, without a screen, told what to do over Marionette (its WebDriver)."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.clients.contract import PopClient
from tests.e2e.launch import free_port
from tests.e2e.server import LIMIT, stored, until

if TYPE_CHECKING:
    from tests.clients.contract import Errand

__all__ = ["Thunderbird"]

SCRIPT: Final = Path(__file__).parent / "scripts" / "thunderbird.js"

PREFERENCES: Final = {
    "mail.serverDefaultStoreContractID": "@mozilla.org/msgstore/maildirstore;1",
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.spotlight.firstRunDone": True,
    "mailnews.start_page.enabled": False,
    "mail.shell.checkDefaultClient": False,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.proxy.type": 0,
    "toolkit.telemetry.enabled": False,
}

METHODS: Final = {"CRAM-MD5": "passwordEncrypted"}
"""What its settings call mechanisms; others are ``passwordCleartext``."""


class Marionette:
    """A line to a program of Mozilla's: JSON with its length in front."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 3 * LIMIT)
        self._file = self._socket.makefile("rb")
        self._serial = 0
        self._read()

    def call(self, name: str, **parameters: Any) -> Any:
        """Call a command and return its result.

        :raises AssertionError: it failed.
        """
        self._serial += 1
        text = json.dumps([0, self._serial, name, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(text), text))
        _, _, error, result = self._read()
        assert error is None, error
        return result

    def _read(self) -> Any:
        size = b""
        while not size.endswith(b":"):
            octet = self._file.read(1)
            assert octet, "Thunderbird is gone"
            size += octet
        return json.loads(self._file.read(int(size[:-1])))

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


class Thunderbird(PopClient):
    """The real one."""

    name, language, packages, program = "Thunderbird", "C++", ("thunderbird",), "thunderbird"
    mechanisms = ("CRAM-MD5",)
    mistypes = True
    remark = "also with a wrong password first, and then the right one"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._profile = home / "profile"
        self._profile.mkdir()
        self._known: set[Path] = set()

    def fetch(self, errand: Errand) -> list[bytes]:
        """See `PopClient.fetch`."""
        port = free_port()
        preferences = {**PREFERENCES, "marionette.port": port}
        (self._profile / "user.js").write_text(
            "".join(
                f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                for name, value in preferences.items()
            ),
            encoding="ascii",
        )
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *(self.program, "--headless", "--marionette", "--remote-allow-system-access"),
                    *("--no-remote", "--profile", str(self._profile)),
                ],
                env=self.environment(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._get_mail(port, errand)
            process.wait(3 * LIMIT)
        finally:
            process.kill()
            process.wait()
        found = {
            path for path in self._profile.glob("Mail/localhost/Inbox/cur/*") if path.is_file()
        }
        new, self._known = found - self._known, self._known | found
        return [path.read_bytes() for path in sorted(new)]

    def _get_mail(self, port: int, errand: Errand) -> None:
        def connected() -> Marionette | None:
            try:
                return Marionette(port)
            except OSError:
                return None

        line: Marionette = until(connected, "Thunderbird does not start", 3 * LIMIT)
        line.call("WebDriver:NewSession")
        line.call("WebDriver:SetTimeouts", script=int(2000 * LIMIT))
        line.call("Marionette:SetContext", value="chrome")
        pem = errand.ca.read_text(encoding="ascii")
        told = {
            "ca": "".join(pem.strip().splitlines()[1:-1]),
            "user": errand.user,
            "password": errand.password,
            "mistyped": errand.mistyped,
            "port": errand.port,
            "implicit": errand.implicit,
            "keep": errand.keep,
            "method": METHODS.get(errand.mechanism, "passwordCleartext"),
        }
        script = SCRIPT.read_text(encoding="ascii")
        status = line.call("WebDriver:ExecuteAsyncScript", script=script, args=[told])["value"]
        assert status == 0, f"Thunderbird says {status!r}"
        line.call("Marionette:Quit", flags=["eForceQuit"])
        line.close()

    def kept(self, message: bytes) -> Any:
        """See `PopClient.kept`."""
        return stored(message)

    def seen(self, message: bytes) -> Any:
        """See `PopClient.seen`: Thunderbird adds to the header."""
        return re.sub(rb"^(?:X-(?:Mozilla-|Account-Key|UIDL)[^\n]*\n)+", b"", stored(message))
