"""What ``--auth popd-sql:ARGUMENT`` means: a URL, or a TOML file that has more to say."""

from __future__ import annotations

import logging
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from popd.auth.cache import DEFAULT_TTL
from popd.auth.sqlquery import DEFAULT_QUERY

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings", "read"]

_log = logging.getLogger(__name__)

_URL: Final = re.compile(r"(sqlite|postgresql|postgres|mysql|mariadb):(.*)", re.DOTALL)
_DRIVERS: Final = {"postgres": "postgresql", "mariadb": "mysql"}
_FORBIDDEN: Final = frozenset({"password", "passwd"})


@dataclass(frozen=True, slots=True)
class Settings:
    """A database and how to ask it.

    :param driver: ``sqlite``, ``postgresql``, ``mysql``, or the name of a DB-API module.
    :param connect: what the driver's ``connect`` is given.
    :param query: finds a user.
    :param timeout: seconds that an answer may take.
    :param connections: how many there may be in each process.
    :param cache: seconds for which a password that was verified is not hashed again, as long as the
        database has the same hash of it; 0 hashes every time.
    :param plain_passwords: whether passwords that are stored as ``{PLAIN}`` may be used for
        CRAM-MD5 and APOP.
    """

    driver: str
    connect: Mapping[str, Any] = field(default_factory=dict, repr=False)
    query: str = DEFAULT_QUERY
    timeout: float = 5.0
    connections: int = 4
    cache: float = DEFAULT_TTL
    plain_passwords: bool = False


def read(argument: str) -> Settings:
    """Return what *argument* means.

    :raises OSError: a file cannot be read.
    :raises ValueError: something is wrong.  The text repeats nothing that may be secret.
    """
    if match := _URL.match(argument):
        driver = _DRIVERS.get(match[1], match[1])
        return Settings(driver, _from_url(driver, argument, match[2]))
    if "://" in argument:
        raise ValueError("the URL is none that begins with sqlite:, postgresql:// or mysql://")
    return _from_file(Path(argument))


def _from_url(driver: str, url: str, rest: str) -> dict[str, Any]:
    """Return what to connect with.

    :raises ValueError: there is a password in it, which others could see in the list of processes.
    """
    if driver == "sqlite":
        return {"database": rest}
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    if parts.password is not None or _FORBIDDEN.intersection(options):
        raise ValueError("a password does not belong into a command line; put it into a TOML file")
    if driver == "postgresql":
        return {"conninfo": url}
    try:
        port = {"port": parts.port} if parts.port else {}
    except ValueError:
        raise ValueError("the URL's port is no number") from None
    given = {
        "host": parts.hostname,
        "user": parts.username and unquote(parts.username),
        "database": unquote(parts.path.lstrip("/")),
    }
    return {**{key: value for key, value in given.items() if value}, **port, **options}


def _from_file(path: Path) -> Settings:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:  # UnicodeDecodeError, too; neither repeats more than a character
        raise ValueError(f"{path}: {error}") from None
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if key not in _KEYS:
            raise ValueError(f"{path}: {key} is none of {', '.join(_KEYS)}")
        kinds, low, high = _KEYS[key]
        if type(value) not in kinds or (
            isinstance(value, int | float) and not low <= value <= high
        ):
            raise ValueError(f"{path}: {key} must be {_wanted(key)}")
        values[name] = value
    if "driver" not in values:
        raise ValueError(f'{path}: says no driver, such as driver = "postgresql"')
    values["connect"] = _secrets(path, values.get("connect", {}))
    return Settings(**values)


def _secrets(path: Path, connect: dict[str, Any]) -> dict[str, Any]:
    """Return *connect* with the password that it says where to find."""
    if "password" in connect:
        _warn_if_public(path)
    source = connect.get("password-file")
    if source is None:
        return connect
    file = Path(str(source))
    _warn_if_public(file)
    rest = {key: value for key, value in connect.items() if key != "password-file"}
    return {**rest, "password": file.read_text("utf-8").rstrip("\r\n")}


def _warn_if_public(path: Path) -> None:
    if path.stat().st_mode & 0o007:
        _log.warning("%s holds a password and may be read by anybody; chmod o= %s", path, path)


_KEYS: Final[dict[str, tuple[tuple[type, ...], float, float]]] = {
    "driver": ((str,), 0, 0),
    "connect": ((dict,), 0, 0),
    "query": ((str,), 0, 0),
    "timeout": ((int, float), 0.1, 10),  # the chain waits no longer
    "connections": ((int,), 1, 100),
    "cache": ((int, float), 0, 86400),
    "plain-passwords": ((bool,), 0, 1),
}
"""What the file may say: the types of each value, and its range if it is a number."""


def _wanted(key: str) -> str:
    kinds, low, high = _KEYS[key]
    if kinds == (str,):
        return "text in quotes"
    if kinds == (dict,):
        return f"a table: [{key}]"
    return "true or false" if kinds == (bool,) else f"a number from {low:g} to {high:g}"
