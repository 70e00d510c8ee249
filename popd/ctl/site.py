"""Which accounts popctl works on, as the configuration or the command line says."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from popd.auth.apppass import DIRECTORY, LastUse
from popd.ctl.remote import Remote
from popd.ctl.store import STORES, UnusableError, open_store
from popd.operate.place import DEFAULT

if TYPE_CHECKING:
    from popd.auth.apppass import Use
    from popd.ctl.store import UserStore

__all__ = ["CONFIG", "STATE", "Site"]

CONFIG: Final = "/etc/popd/popd.toml"
"""Where the configuration is, unless the command line says otherwise."""

STATE: Final = "/var/lib/popd"
"""Where popd writes down what has to outlast it, unless something says otherwise."""

_POLICY: Final = re.compile(r"\[[^\]]*\]\s*")
"""What may stand before a checker, about what its answers lead to."""


@dataclass
class Site:
    """What popctl was told with its options; the configuration is read when something needs it.

    :param config: the path of popd's configuration file.
    :param auth: checkers as for ``--auth``, instead of those in the configuration.
    :param control: the path of the control socket, instead of where the configuration says.
    :param state: where the last uses of app passwords are, instead of where the configuration says.
    """

    config: str = CONFIG
    auth: tuple[str, ...] = ()
    state: str = ""
    control: str = ""

    @cached_property
    def _layer(self) -> dict[str, Any]:
        from popd import config  # noqa: PLC0415 - brings in Twisted, which takes its time

        try:
            return dict(config.read_file(self.config))
        except config.ConfigError as error:
            hint = "" if Path(self.config).exists() else "; give --config FILE or --auth TYPE:ARG"
            raise UnusableError(f"{error}{hint}") from error

    @property
    def descriptions(self) -> list[str]:
        """All links of the chain, ``TYPE:ARGUMENT``.

        :raises UnusableError: the configuration cannot be read, or has none.
        """
        found = [_POLICY.sub("", one, count=1) for one in self.auth or self._layer.get("auth", ())]
        if not found:
            raise UnusableError(f"{self.config}: there is no auth in it; give --auth TYPE:ARGUMENT")
        return found

    @property
    def default_domain(self) -> str:
        """What completes a bare user name at log-in."""
        return "" if self.auth else str(self._layer.get("default-domain", "")).lower()

    @property
    def default_domain_if_known(self) -> str:
        """The same; empty if the configuration cannot be read."""
        try:
            return self.default_domain
        except UnusableError:
            return ""

    def remote(self) -> Remote:
        """Return the popd that runs, or should.

        :raises UnusableError: its configuration, which was named, cannot be read.
        """
        path = self.control
        if not path:
            try:
                path = str(self._layer.get("control", ""))
            except UnusableError:
                if self.config != CONFIG:
                    raise
        if path == "none":
            raise UnusableError(f"{self.config}: popd is told to have no control socket")
        return Remote(path or DEFAULT)

    @property
    def maildrop(self) -> str:
        """The template of where the mail is.

        :raises UnusableError: the configuration cannot be read, or does not say.
        """
        found = str(self._layer.get("maildrop", ""))
        if not found:
            raise UnusableError(f"{self.config}: there is no maildrop in it")
        return found

    def setting(self, key: str) -> Any:
        """Return what the configuration says, or else what is so by default.

        :raises UnusableError: the configuration cannot be read.
        """
        from popd.config import DEFAULTS  # noqa: PLC0415 - see above

        return self._layer.get(key, DEFAULTS[key])

    @property
    def guess_table(self) -> str:
        """The file in which popd remembers wrong guesses; empty if it does so in memory.

        :raises UnusableError: the configuration cannot be read.
        """
        return str(self._layer.get("guess-table", ""))

    @cached_property
    def _last_use(self) -> LastUse:
        state = self.state or ("" if self.auth else self._layer.get("state-directory", ""))
        return LastUse(Path(state or STATE) / DIRECTORY)

    def last_use_of(self, user: str, program: str) -> Use | None:
        """Return when and from where an app password was used last, as far as is known.

        :raises UnusableError: that cannot be found out.
        """
        try:
            return self._last_use.read(user, program)
        except OSError as error:
            raise UnusableError(f"{error.filename}: {error.strerror}") from error

    def forget(self, user: str, program: str) -> None:
        """Forget the uses of an app password that is no more, if that can be done."""
        with suppress(OSError):
            self._last_use.forget(user, program)

    def store(self) -> UserStore:
        """Return the store that the first link has which popctl can change.

        :raises StoreError: there is none, or it cannot be opened.
        """
        links = self.descriptions
        return open_store(next((one for one in links if one.partition(":")[0] in STORES), links[0]))
