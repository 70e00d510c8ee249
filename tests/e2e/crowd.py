"""Clients that come and go while something else is tested."""

from __future__ import annotations

import threading
from typing import Self


class Crowd:
    """Threads that run for as long as a block does; a context manager.

    A subclass puts them into `threads`, and each ends soon when `stop` is set.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
