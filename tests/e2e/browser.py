"""A real browser for end-to-end tests: Chromium without a window, told what to do over a pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.server import LIMIT

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["CHROMIUM", "CONTRAST", "Browser"]

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or ""
"""Its path; empty if there is none."""

CONTRAST: Final = """
(() => {
  const channel = (value) =>
    (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) =>
    0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const paper = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const [one, other] = [parse(getComputedStyle(element).color), paper(element)]
      .map(light).sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) bad.push(`${element.outerHTML.slice(0, 80)}: ${ratio.toFixed(2)}`);
  }
  return bad;
})()
"""
"""Returns what text has less contrast than WCAG asks for (1.4.3, level AA)."""


def _high(descriptor: int) -> int:
    """Return the descriptor under a number that is not wanted for anything else."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return high


class Browser:
    """Chromium with one page, spoken to in the DevTools protocol.  A context manager.

    The messages are JSON with a NUL behind each, on file descriptors 3 and 4 of the browser.
    """

    def __enter__(self) -> Self:
        """Start it, and open an empty page."""
        self._directory = tempfile.TemporaryDirectory(prefix="popd-browser-")
        theirs_in, self._out = map(_high, os.pipe())
        self._in, theirs_out = map(_high, os.pipe())
        command = [
            *(CHROMIUM, "--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu"),
            *("--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking"),
            *("--hide-scrollbars", f"--user-data-dir={self._directory.name}", "about:blank"),
        ]
        # The shell gives the pipes the numbers that Chromium looks for.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "browser", *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._serial = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        """What the page told of itself."""
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            answer = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = answer["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self._end()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)
        os.close(self._in)
        os.close(self._out)
        for _ in range(50):  # its children may write a little longer
            try:
                self._directory.cleanup()
            except OSError:
                time.sleep(0.1)
            else:
                break

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method and return what it returns."""
        self._serial += 1
        message = {"id": self._serial, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._serial:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], LIMIT)
            assert ready, "the browser says nothing"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the next event of this name."""
        while True:
            answer = self._receive()
            self.events.append(answer)
            if answer.get("method") == event:
                return answer

    def show(
        self,
        url: str,
        *,
        width: int = 1280,
        height: int = 800,
        dark: bool = False,
        script: bool = True,
    ) -> None:
        """Load a page in a window of this size, with or without scripts."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page, or of the promise that it is."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a picture of all of the page to *path*."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def told(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of all events of this name."""
        return [event["params"] for event in self.events if event.get("method") == method]
