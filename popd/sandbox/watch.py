"""The disk of the mail, which may be mounted after workers have got their rules.

Landlock's rules are about directories and not about names.  What is mounted on, or above, one that
may be reached hides it, and cannot be reached itself.  (What is mounted beneath it can.)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from popd.maildrop.mounts import Mounts
from popd.sandbox.confinement import OUT_OF_REACH

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from popd.sandbox.confinement import Confinement

__all__ = ["INTERVAL", "MountWatch"]

INTERVAL: Final = 5.0
"""Seconds between two looks at the table of mounts."""


class MountWatch(Service):
    """Has workers replaced that cannot reach the disk that is mounted now.

    :param clock: what time is measured with.
    :param confinement: returns what holds for those who serve.
    :param reload: has them replaced.
    :param mounts: the kernel's table.
    """

    _log: ClassVar = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        confinement: Callable[[], Confinement],
        reload: Callable[[], object],
        mounts: Mounts | None = None,
    ) -> None:
        self._confinement = confinement
        self._reload = reload
        self._mounts = mounts or Mounts()
        self._before: object = None
        self._looks = LoopingCall(self._look)
        self._looks.clock = clock

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._before = self._above()
        self._looks.start(INTERVAL, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._looks.running:
            self._looks.stop()

    def _above(self) -> object:
        return self._mounts.above(os.fsencode(self._confinement().mail))

    def _look(self) -> None:
        before, self._before = self._before, self._above()
        confinement = self._confinement()
        if self._before == before or not confinement.version:
            return
        if confinement.entered:
            self._log.critical(
                "{mail}: something was mounted or unmounted there, and {text}",
                mail=confinement.mail,
                text=OUT_OF_REACH,
            )
        else:
            self._log.info(
                "{mail}: something was mounted or unmounted there; new workers will reach it",
                mail=confinement.mail,
            )
            self._reload()
