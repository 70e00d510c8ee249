"""What popd is told to do: options and a configuration file, merged and checked.

A configuration file is TOML and has the names of the command line's options.  Nothing here opens
anything but that file; whether a certificate or a template is any good is seen when it is used.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

from popd.auth.cache import DEFAULT_TTL
from popd.maildrop.files import Durability
from popd.maildrop.ground import Missing
from popd.maildrop.snapshots import DEFAULT_CACHE_SIZE, DEFAULT_CLOCK_SKEW
from popd.maildrop.user import UserName
from popd.sandbox.confinement import Sandboxing
from popd.serve import DRAIN_TIMEOUT
from popd.server.factory import CleartextLogin
from popd.server.limits import IDLE_TIMEOUT, LOGIN_TIMEOUT, PER_ADDRESS, SESSIONS
from popd.server.networks import Networks
from popd.server.note import LogFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULTS",
    "REPEATABLE",
    "ConfigError",
    "Layer",
    "Settings",
    "checked",
    "read_file",
    "settle",
]

Value: TypeAlias = "str | float | int | bool | tuple[str, ...]"
"""What an option can be."""

Layer: TypeAlias = "Mapping[str, Value]"
"""Checked values by option name, from one source: a file, the command line."""


class ConfigError(ValueError):
    """A setting that popd cannot work with.  The text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that popd can be told.  An option's name has ``-`` for ``_``.

    :param listen: endpoints that speak cleartext with STLS.
    :param listen_tls: endpoints that speak TLS from the first octet.
    :param certificate: paths of PEM files, one for each kind of key.
    :param private_key: paths of PEM files, in the order of *certificate*; none means that each of
        those holds its key as well.
    :param certificate_dir: path of a directory with certificates for other host names, or empty.
    :param auth: checkers as ``TYPE:ARGUMENT``, in the order in which they are asked, each with
        what its answers lead to in front (`Policy`) if that is not as usual.
    :param sasl: names of the only mechanisms that are offered, with commas between them; empty for
        all that there can be.
    :param apop: whether APOP is offered.
    :param client_ca: path of a PEM file with the authorities that vouch for clients; empty if
        clients are not asked for certificates.
    :param guess_table: path of the file that keeps what is known of guesses; empty for none.
    :param state_directory: path of the directory with what has to outlast popd: the last uses of
        app passwords, and of what keys are made up for users who have none.
    :param control: path of the socket where ``popctl`` is answered; empty for the usual one if that
        can be had, ``none`` for none.
    :param maildrop: a template of where the users' maildrops are.
    :param mail_root: path of the directory beneath which all maildrops have to be, with no links in
        between; empty for the template's part before its first placeholder.
    :param default_domain: completes a bare user name.
    :param cleartext_login: who may log in without TLS.
    :param missing_maildrop: what a user has who has no maildrop yet.
    :param workers: how many processes serve; ``auto`` is one for each processor.
    :param auth_cache_ttl: seconds that verified credentials count without being verified again.
    :param cache_size: megabytes for the maildrops that were opened lately, in each process.
    :param drain_timeout: seconds that sessions may go on when popd is to stop.
    :param log_format: what lines of the log are, for people or for programs.
    :param clock_skew: seconds that the clocks of machines that share the mail may differ.
    :param durability: what QUIT waits for when it has removed messages.
    :param max_sessions: how many connections there may be; for this and what follows 0 is no limit.
    :param max_sessions_per_ip: how many from one IPv4 address, or IPv6 /64.
    :param max_sessions_per_user: how many one user may have.
    :param login_timeout: seconds from the connection until a client must be logged in.
    :param idle_timeout: seconds without a command until a client that is logged in is let go.
    :param max_download_per_day: megabytes after which a user gets no more messages on that day.
    :param proxy_protocol: networks of proxies that begin each connection with a PROXY header, with
        commas between them; ``none`` if there are none for sure; empty if nothing is known.
    :param xclient: networks of proxies that say with XCLIENT for whom they speak, likewise.
    :param status: an endpoint of this machine that says over HTTP how popd is; empty for none.
    :param sandbox: whether Landlock keeps processes that serve from everything that they do not
        need: if the kernel can, in no case, or else popd does not start.
    """

    listen: tuple[str, ...] = ("tcp:110",)
    listen_tls: tuple[str, ...] = ("tcp:995",)
    certificate: tuple[str, ...] = ()
    private_key: tuple[str, ...] = ()
    certificate_dir: str = ""
    auth: tuple[str, ...] = ()
    sasl: str = ""
    apop: bool = False
    client_ca: str = ""
    guess_table: str = ""
    state_directory: str = "/var/lib/popd"
    control: str = ""
    maildrop: str = ""
    mail_root: str = ""
    default_domain: str = ""
    cleartext_login: CleartextLogin = "never"
    missing_maildrop: Missing = "empty"
    workers: str = "auto"
    auth_cache_ttl: float = DEFAULT_TTL
    cache_size: float = DEFAULT_CACHE_SIZE
    clock_skew: float = DEFAULT_CLOCK_SKEW
    durability: Durability = "full"
    drain_timeout: float = DRAIN_TIMEOUT
    max_sessions: int = SESSIONS
    max_sessions_per_ip: int = PER_ADDRESS
    max_sessions_per_user: int = 0
    login_timeout: float = LOGIN_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT
    max_download_per_day: float = 0.0
    proxy_protocol: str = ""
    xclient: str = ""
    log_format: LogFormat = "text"
    status: str = ""
    sandbox: Sandboxing = "auto"


DEFAULTS: Final = {field.name.replace("_", "-"): field.default for field in fields(Settings)}
"""What each option is unless it is given: `Settings` by the options' names."""

REPEATABLE: Final = frozenset(key for key in DEFAULTS if isinstance(DEFAULTS[key], tuple))
"""The options that may be given several times; in a file, with a list."""

_CHOICES: Final = {
    "cleartext-login": get_args(CleartextLogin),
    "missing-maildrop": get_args(Missing),
    "log-format": get_args(LogFormat),
    "durability": get_args(Durability),
    "sandbox": get_args(Sandboxing),
}

_NUMBERS: Final = frozenset(key for key in DEFAULTS if isinstance(DEFAULTS[key], float))
"""The options that are numbers, 0 or more."""

_WHOLE: Final = frozenset(key for key in DEFAULTS if type(DEFAULTS[key]) is int)
"""The options that are whole numbers, 0 or more."""

_NETWORKS: Final = frozenset({"proxy-protocol", "xclient"})
"""The options that are networks."""

_SWITCHES: Final = frozenset(key for key in DEFAULTS if isinstance(DEFAULTS[key], bool))
"""The options that are on or off."""

_MAX_WORKERS: Final = 64

_MAX_DIGITS: Final = 9

_MAX_NUMBER: Final = 10**18
"""Beyond it numbers may be such that Python refuses to show them."""


def checked(key: str, value: object, shown: str) -> Value:
    """Return *value* if the option *key* can have it.

    A single text is as good as a list of one, and for `REPEATABLE` options ``none`` is an empty
    list.

    :param shown: what error texts call the option.
    :raises ConfigError: it has the wrong type, is empty, or is none of the choices.
    """
    if isinstance(value, int) and abs(value) > _MAX_NUMBER:
        raise ConfigError(f"{shown} is too large")
    for keys, check in (
        (REPEATABLE, _checked_list),
        (_NUMBERS, _checked_number),
        (_WHOLE, _checked_whole),
        (_SWITCHES, _checked_switch),
        ({"workers"}, _checked_workers),
    ):
        if key in keys:
            return check(value, shown)
    if not isinstance(value, str):
        raise ConfigError(f"{shown} must be a text in quotes, not {value!r}")
    choices = _CHOICES.get(key)
    if choices and value not in choices:
        raise ConfigError(f"{shown} must be one of {', '.join(choices)}, not {value!r}")
    if key == "default-domain" and not _is_domain(value.lower()):
        raise ConfigError(f"{shown} must be a domain like example.org, not {value!r}")
    if not value:
        raise ConfigError(f"{shown} is empty: give it a value or leave it out")
    if key in _NETWORKS:
        _check_networks(value, shown)
    if key == "mail-root" and not value.startswith("/"):
        raise ConfigError(f"{shown} must be an absolute path, like /srv/mail, not {value!r}")
    return value


def _check_networks(value: str, shown: str) -> None:
    if value == "none":
        return
    try:
        Networks.parse(value)
    except ValueError as error:
        raise ConfigError(
            f"{shown} must be none, or networks like 192.0.2.0/24,2001:db8::1: {error}"
        ) from None


def _checked_whole(value: object, shown: str) -> int:
    text = str(value)
    if not (
        type(value) in {int, str} and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    ):
        raise ConfigError(f"{shown} must be a whole number, 0 or more, not {value!r}")
    return int(text)


def _checked_switch(value: object, shown: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{shown} must be true or false, not {value!r}")
    return value


def _checked_number(value: object, shown: str) -> float:
    try:
        number = -1.0 if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < inf:
        raise ConfigError(f"{shown} must be a number, 0 or more, not {value!r}")
    return number


def _checked_workers(value: object, shown: str) -> str:
    text = str(value)
    if text != "auto" and not (
        isinstance(value, int | str)
        and text.isascii()
        and text.isdigit()
        and 1 <= int(text[:9]) <= _MAX_WORKERS
    ):
        raise ConfigError(f"{shown} must be auto or a number from 1 on, not {value!r}")
    return text


def _is_domain(value: str) -> bool:
    return UserName.parse(f"user@{value}") == UserName("user", value)


def _checked_list(value: object, shown: str) -> tuple[str, ...]:
    items = tuple(value) if isinstance(value, list | tuple) else (value,)
    if items == ("none",):
        return ()
    for item in items:
        if not isinstance(item, str):
            raise ConfigError(f"{shown} must be a text in quotes or a list of them, not {value!r}")
        if not item:
            raise ConfigError(f"{shown} is empty: give it a value or leave it out")
        if item == "none":
            raise ConfigError(f"{shown} is both none and something: leave one of them out")
    return items


def read_file(path: str) -> Layer:
    """Return what the configuration file *path* says.

    :raises ConfigError: it cannot be read, or is wrong.
    """
    try:
        content: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at octet {error.start}, as TOML has to be") from error
    except (ValueError, RecursionError) as error:  # which Python has of its own for the absurd
        raise ConfigError(f"{path}: {error}; texts stand in quotes, like key = 'text'") from error
    for key in sorted(content.keys() - DEFAULTS.keys()):
        raise ConfigError(f"{path}: there is no {key!r}; {_hint(key)}")
    return {key: checked(key, value, f"{path}: {key}") for key, value in content.items()}


def _hint(wrong: str) -> str:
    near = get_close_matches(wrong.replace("_", "-"), DEFAULTS, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DEFAULTS)}"


def settle(*layers: Layer) -> Settings:
    """Return the settings that *layers* amount to, where a later layer wins over an earlier one.

    Without a certificate there is no TLS, so that port 995 is left out if only the default asks
    for it; but then someone must be allowed to log in without.

    :raises ConfigError: something is missing, or one setting contradicts another.
    """
    chosen: dict[str, Any] = {}
    for layer in layers:
        chosen.update(layer)
    if not chosen.get("certificate"):
        _check_without_certificate(chosen)
        chosen["listen-tls"] = ()
    elif chosen.get("private-key") and len(chosen["private-key"]) != len(chosen["certificate"]):
        raise ConfigError(
            "give --private-key for each --certificate, in the same order, or for none, where each"
            " is in its certificate's file"
        )
    settings = Settings(**{key.replace("-", "_"): value for key, value in chosen.items()})
    if not settings.auth:
        raise ConfigError(
            "how do users log in? give --auth, such as --auth popd-passwd:/etc/popd/passwd"
        )
    if not settings.maildrop:
        raise ConfigError(
            "where is the mail? give --maildrop, such as --maildrop 'maildir:/home/{local}/Maildir'"
        )
    if not settings.listen and not settings.listen_tls:
        raise ConfigError("nowhere to listen: give --listen or --listen-tls an endpoint")
    _check_proxies(settings)
    return settings


def _check_proxies(settings: Settings) -> None:
    """Refuse endpoints that put something in between, so that nobody would look for a header."""
    if settings.proxy_protocol in {"", "none"}:
        return
    for endpoint in settings.listen + settings.listen_tls:
        kind = endpoint.partition(":")[0]
        if kind in {"haproxy", "ssl"}:
            raise ConfigError(
                f"{endpoint}: --proxy-protocol goes with tcp: endpoints, not with {kind}: ones; say"
                " tcp: in --listen or --listen-tls"
            )


def _check_without_certificate(chosen: dict[str, Any]) -> None:
    if chosen.get("private-key"):
        raise ConfigError("--private-key without its certificate: give --certificate as well")
    if chosen.get("certificate-dir"):
        raise ConfigError(
            "--certificate-dir needs one for clients that name no host: give --certificate as well"
        )
    if chosen.get("client-ca"):
        raise ConfigError("--client-ca needs TLS: give --certificate PEM as well")
    if chosen.get("listen-tls"):
        raise ConfigError("--listen-tls needs a certificate: give --certificate PEM")
    if chosen.get("cleartext-login", Settings().cleartext_login) == "never":
        raise ConfigError(
            "without TLS nobody may log in: give --certificate PEM, or --cleartext-login local"
        )
