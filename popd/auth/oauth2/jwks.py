"""A provider's public keys (RFC 7517), read from a file or fetched, and fetched again when due."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from popd.auth.interfaces import AuthUncertainError
from popd.auth.oauth2.settings import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from popd.auth.oauth2.https import HttpsClient

__all__ = ["KEEP", "MAX_KEYS", "REFRESH", "FileKeys", "Key", "KeySource", "RemoteKeys", "read_keys"]

_log = Logger()

MAX_KEYS: Final = 64
"""How many keys a provider may have: a token that names none is tried with all that could fit."""

REFRESH: Final = 900.0
"""Seconds after which keys are fetched again, so that one that was withdrawn counts no longer."""

KEEP: Final = 86400.0
"""Seconds that keys count while the provider cannot be reached."""

_MAX_FILE: Final = 256 << 10

_RSA_BITS: Final = range(2048, 8193)
"""The sizes of RSA keys that are safe (RFC 7518 section 3.3) and quickly used (0.4 ms)."""

_MAX_EXPONENT: Final = 1 << 32

_KINDS: Final[dict[str, Any]] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}


@dataclass(frozen=True, slots=True)
class Key:
    """A public key.

    :param kid: its name, None if it has none.
    :param kind: ``RSA``, ``EC`` or ``OKP``.
    :param curve: of the latter two.
    :param algorithm: the only one that it is for; None for all that there are for such keys.
    :param public: the key, as *cryptography* has it.
    """

    kid: str | None
    kind: str
    curve: str
    algorithm: str | None
    public: Any

    def fits(self, algorithm: str, kid: str | None) -> bool:
        """Tell whether a token may be signed with this key that says so in its header."""
        return (
            ALGORITHMS.get(algorithm) == (self.kind, self.curve)
            and self.algorithm in (None, algorithm)
            and kid in (None, self.kid)
        )


def read_keys(document: object) -> tuple[Key, ...]:
    """Return the keys in a JWK set that tokens may be signed with; others in it do not matter.

    :raises ValueError: there are none, or too many.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"no JWK set with at most {MAX_KEYS} keys")
    keys = tuple(key for entry in entries if (key := _read_key(entry)) is not None)
    if not keys:
        raise ValueError("no key for signatures that popd can verify")
    return keys


def _read_key(entry: object) -> Key | None:
    if not isinstance(entry, dict) or not _is_for_signatures(entry):
        return None
    kid, kind, algorithm = entry.get("kid"), str(entry.get("kty")), entry.get("alg")
    curve = "" if kind == "RSA" else str(entry.get("crv"))
    named = isinstance(kid, str | None) and isinstance(algorithm, str | None)
    if not named or (kind, curve) not in ALGORITHMS.values():
        return None
    try:
        public = _KINDS[kind].from_jwk(entry)
    except Exception:  # noqa: BLE001 - PyJWT's own, and whatever cryptography says of bad numbers
        return None
    if isinstance(public, RSAPublicKey) and not _is_sound(public):
        return None
    return Key(kid, kind, curve, algorithm, public)


def _is_for_signatures(entry: dict[str, Any]) -> bool:
    """Tell whether a key is for verifying, and not a private one that should not be there."""
    uses = entry.get("key_ops", ["verify"])
    fits = isinstance(uses, list) and "verify" in uses
    return fits and entry.get("use", "sig") == "sig" and "d" not in entry


def _is_sound(key: RSAPublicKey) -> bool:
    return key.key_size in _RSA_BITS and key.public_numbers().e < _MAX_EXPONENT


class KeySource(Protocol):
    """Where keys come from."""

    async def current(self) -> tuple[Key, ...]:
        """Return the keys.

        :raises AuthUncertainError: there are none to be had now.
        """

    async def renewed(self) -> tuple[Key, ...]:
        """Return the keys, after having looked for new ones if that was not done just now.

        :raises AuthUncertainError: that cannot be done now.
        """


class FileKeys:
    """Keys in a file, which is read again when it has changed.

    :raises OSError: it cannot be read.
    :raises ValueError: there are no keys in it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: object = None
        self._lost = False
        self._keys: tuple[Key, ...] = ()
        self._read()

    async def current(self) -> tuple[Key, ...]:
        """Return the keys; those read last, if the file has become useless."""
        try:
            self._read()
        except (OSError, ValueError) as error:
            if not self._lost:
                _log.error("{error}; the keys read before remain", error=error)
            self._lost = True
        else:
            self._lost = False
        return self._keys

    renewed = current

    def _read(self) -> None:
        status = os.stat(self._path)  # noqa: PTH116 - half the time
        seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if seen == self._seen:
            return
        with open(self._path, "rb") as file:  # noqa: PTH123 - likewise
            content = file.read(_MAX_FILE)
        try:
            self._keys = read_keys(json.loads(content))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self._path}: {error}") from error
        self._seen = seen


class RemoteKeys:
    """Keys that a provider publishes.

    However many log-ins want them, one request is under way at a time; and however many tokens
    name a key that there is not, one is made for that in *interval* seconds.

    :param http: makes requests.
    :param issuer: the provider, in whose OpenID configuration stands where the keys are.
    :param url: where they are; empty for what stands there.
    :param interval: see `JwtSettings.refetch`.
    :param clock: tells the time in seconds; must never go back.
    """

    def __init__(
        self,
        http: HttpsClient,
        issuer: str,
        url: str = "",
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._issuer = issuer
        self._url = url
        self._interval = interval
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fetched = self._asked = 0.0
        self._error: BaseException | None = None
        self._waiting: list[Deferred[None]] | None = None

    async def current(self) -> tuple[Key, ...]:
        """See `KeySource.current`."""
        age = self._clock() - self._fetched
        if not self._keys or age >= KEEP:
            await self._fetch()
        elif age >= REFRESH:
            self._begin()  # what is there counts until there is better
        return self._keys

    async def renewed(self) -> tuple[Key, ...]:
        """See `KeySource.renewed`."""
        due = self._clock() >= self._asked + self._interval
        if due or self._waiting is not None or self._error is not None:
            await self._fetch()
        return self._keys

    async def _fetch(self) -> None:
        self._begin()
        if self._waiting is not None:
            arrival: Deferred[None] = Deferred()
            self._waiting.append(arrival)
            await arrival
        if self._error is not None:
            raise AuthUncertainError(str(self._error)) from self._error

    def _begin(self) -> None:
        if self._waiting is None:
            self._waiting = []
            self._asked = self._clock()
            Deferred.fromCoroutine(self._load()).addBoth(self._loaded)

    async def _load(self) -> tuple[Key, ...]:
        url = self._url or await self._discover()
        status, document = await self._http.get(url)
        if not document:
            raise ValueError(f"{url}: the answer is {status}")
        try:
            return read_keys(document)
        except ValueError as error:
            raise ValueError(f"{url}: {error}") from error

    async def _discover(self) -> str:
        """Return where the keys are (OpenID Connect Discovery 1.0, section 4)."""
        url = f"{self._issuer.removesuffix('/')}/.well-known/openid-configuration"
        status, document = await self._http.get(url)
        if not document:
            raise ValueError(f"{url}: the answer is {status}")
        if document.get("issuer") != self._issuer:
            raise ValueError(f"{url} is about another issuer")
        where = document.get("jwks_uri")
        if not isinstance(where, str) or not where.startswith("https://") or not where.isascii():
            raise ValueError(f"{url} has no jwks_uri with https")
        return where

    def _loaded(self, result: tuple[Key, ...] | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        if isinstance(result, Failure):
            if self._error is None:
                error = result.value
                _log.error("No keys from {issuer}: {error}", issuer=self._issuer, error=error)
            self._error = result.value
        else:
            if self._keys != result:
                _log.info("{count} keys from {issuer}", count=len(result), issuer=self._issuer)
            self._keys, self._fetched, self._error = result, self._clock(), None
        for arrival in waiting:
            arrival.callback(None)
