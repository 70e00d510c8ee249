"""The load generator: ``load.c`` where there is a C compiler, else `slow_load`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE: Final = Path(__file__).parent
_PATIENCE: Final = 900.0
_FLAGS: Final = ("-O2", "-std=gnu11")


class LoadError(Exception):
    """A server gave a wrong answer, or none."""


class Load:
    """Makes sessions.

    :param folder: where the compiled program goes.
    """

    def __init__(self, folder: Path) -> None:
        self._slow = [sys.executable, str(_HERE / "slow_load.py")]
        self._plain, self._tls = self._slow, self._slow
        compiler = shutil.which("cc")
        if compiler is None:
            return
        program = str(folder / "load")
        build = [compiler, *_FLAGS, "-o", program, str(_HERE / "load.c")]
        with_tls = [*build, "-DTLS", "-lssl", "-lcrypto"]
        if subprocess.run(with_tls, capture_output=True, check=False).returncode == 0:
            self._plain = self._tls = [program]
        elif subprocess.run(build, capture_output=True, check=False).returncode == 0:
            self._plain = [program]

    @property
    def method(self) -> str:
        """What makes the load, in words."""
        if self._tls is not self._slow:
            return "load.c"
        return "slow_load.py" if self._plain is self._slow else "load.c, for TLS slow_load.py"

    def run(self, **options: object) -> dict[str, Any]:
        """Run sessions; see ``load.c`` for the options.

        :raises LoadError: an answer was wrong.
        """
        command = self._command(options)
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise LoadError("the load generator does not come to an end") from None
        if ran.returncode:
            raise LoadError(ran.stderr.strip())
        result: dict[str, Any] = json.loads(ran.stdout)
        return result

    @contextmanager
    def held(self, **options: object) -> Iterator[None]:
        """Keep sessions while the block runs: idle ones, or such as stop reading.

        :raises LoadError: an answer was wrong.
        """
        with self._started({"work": "hold", **options}) as process:
            if process.stdout is not None and not process.stdout.readline():
                raise LoadError(process.communicate(timeout=_PATIENCE)[1].decode().strip())
            yield
            if process.communicate(timeout=_PATIENCE)[1]:
                raise LoadError("the sessions did not end well")

    @contextmanager
    def beside(self, **options: object) -> Iterator[None]:
        """Go on with sessions while the block runs.

        :raises LoadError: an answer was wrong.
        """
        with self._started({"seconds": _PATIENCE, **options}) as process:
            yield
            if process.poll() is not None:
                raise LoadError(process.communicate()[1].decode().strip())

    @contextmanager
    def _started(self, options: dict[str, object]) -> Iterator[subprocess.Popen[bytes]]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(self._command(options), stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _command(self, options: dict[str, object]) -> list[str]:
        program = self._tls if options.get("tls") else self._plain
        return [*program, *(f"{key}={value}" for key, value in options.items())]
