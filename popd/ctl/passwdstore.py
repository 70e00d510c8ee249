"""The accounts in a password file, and the app passwords in the file beside it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from popd.auth.account import FIELDS
from popd.auth.appfile import SUFFIX, check_app
from popd.auth.passwdline import SCRAM_FIELDS, Entry
from popd.ctl.editfile import locked, read_lines, write_lines
from popd.ctl.store import (
    AppPassword,
    NoSuchUserError,
    RefusedError,
    User,
    UserExistsError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from popd.ctl.store import Hashes

__all__ = ["PasswdStore"]

_COLUMNS = 8
_SWITCHES = frozenset({"disabled", "nologin"})


class PasswdStore:
    """A `popd.ctl.store.UserStore` of a password file.

    Lines of other users, comments and what popd does not know stay as they are.

    :param argument: the path of the file.
    :raises RefusedError: it is empty.
    """

    def __init__(self, argument: str) -> None:
        if not argument:
            raise RefusedError("popd-passwd needs a file: popd-passwd:FILE")
        # Behind a link, so that it is the file that is replaced and not the link.
        self._path = Path(argument).resolve()
        self._apps = self._path.with_name(self._path.name + SUFFIX)

    def users(self) -> Iterator[User]:
        """See `UserStore`; a user with several lines is as the first says, which counts."""
        seen = set()
        for line in read_lines(self._path):
            name = _name(line)
            if name and name not in seen:
                seen.add(name)
                yield _user(Entry.parse(_text(line)[0]))

    def add(self, name: str, hashes: Hashes, fields: Mapping[str, str]) -> None:
        """See `UserStore`; makes the file, if there is none."""
        if ":" in name or name.startswith("#"):
            raise RefusedError(f"{name}: a password file cannot hold a name like this")
        for key, value in fields.items():
            if any(character.isspace() for character in value):
                raise RefusedError(f"{key}: a password file cannot hold a value with spaces")
        given = {**fields, "scram_sha_256": hashes.scram_sha_256}
        line = _line(name, hashes.password, given)
        with locked(self._path):
            lines = read_lines(self._path, missing_ok=True)
            if any(_name(other) == name for other in lines):
                raise UserExistsError(f"{name}: there is such a user already")
            self._drop_apps(name)
            _append(lines, line)
            write_lines(self._path, lines)

    def set_password(self, name: str, hashes: Hashes) -> None:
        """See `UserStore`."""

        def change(columns: list[str]) -> None:
            columns[1] = hashes.password
            extras = [extra for extra in columns[7].split() if _key(extra) not in SCRAM_FIELDS]
            columns[7] = " ".join([*extras, f"scram_sha_256={hashes.scram_sha_256}"])

        self._change(name, change, first_only=True)

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """See `UserStore`.  Written as ``nologin``, which Dovecot heeds too.

        Lines that repeat the user are changed too: one of them counts if the first is broken.
        """

        def change(columns: list[str]) -> None:
            if _is_disabled(columns) is not disabled:
                extras = [extra for extra in columns[7].split() if _key(extra) not in _SWITCHES]
                columns[7] = " ".join([*extras, "nologin"] if disabled else extras)

        self._change(name, change)

    def delete(self, name: str) -> None:
        """See `UserStore`."""
        with self._lines_of(name) as lines:
            # First, so that nothing is left behind for a namesake if the second half is missing.
            self._drop_apps(name)
            write_lines(self._path, [line for line in lines if _name(line) != name])

    def app_passwords(self, name: str) -> list[AppPassword]:
        """See `UserStore`; broken lines are left out."""
        if not any(_name(line) == name for line in read_lines(self._path)):
            raise _no_such(name)
        return [app for _, app in self._apps_of(name, read_lines(self._apps, missing_ok=True))]

    def add_app_password(self, name: str, app_password: AppPassword) -> None:
        """See `UserStore`."""
        fields = {"app": app_password.name, **app_password.fields}
        line = _line(name, app_password.digest, fields)
        try:
            check_app(Entry.parse(line))
        except ValueError as reason:
            raise RefusedError(f"{app_password.name}: {reason}") from None
        with self._lines_of(name):
            lines = read_lines(self._apps, missing_ok=True)
            if any(app.name == app_password.name for _, app in self._apps_of(name, lines)):
                raise UserExistsError(f"{name} has an app password {app_password.name} already")
            _append(lines, line)
            write_lines(self._apps, lines, like=self._path)

    def revoke_app_password(self, name: str, app: str) -> None:
        """See `UserStore`."""
        with self._lines_of(name):
            lines = read_lines(self._apps, missing_ok=True)
            gone = {number for number, each in self._apps_of(name, lines) if each.name == app}
            if not gone:
                raise NoSuchUserError(f"{name} has no app password {app}")
            left = [line for number, line in enumerate(lines) if number not in gone]
            write_lines(self._apps, left, like=self._path)

    @contextmanager
    def _lines_of(self, name: str) -> Iterator[list[bytes]]:
        """Hold the lock, over all lines of the file.

        :raises NoSuchUserError: none is for the user called *name*.
        """
        with locked(self._path):
            lines = read_lines(self._path)
            if not any(_name(line) == name for line in lines):
                raise _no_such(name)
            yield lines

    def _change(
        self, name: str, change: Callable[[list[str]], None], *, first_only: bool = False
    ) -> None:
        """Change the columns of a user's lines; leave the file alone if they stay as they were."""
        with self._lines_of(name) as lines:
            new = list(lines)
            for number, line in enumerate(lines):
                if _name(line) == name:
                    text, end = _text(line)
                    columns = text.split(":", _COLUMNS - 1)
                    columns += [""] * (_COLUMNS - len(columns))
                    before = list(columns)
                    change(columns)
                    if columns != before:
                        new[number] = (":".join(columns) + end).encode()
                    if first_only:
                        break
            if new != lines:
                write_lines(self._path, new)

    def _drop_apps(self, name: str) -> None:
        lines = read_lines(self._apps, missing_ok=True)
        left = [line for line in lines if _name(line) != name]
        if left != lines:
            write_lines(self._apps, left, like=self._path)

    @staticmethod
    def _apps_of(name: str, lines: list[bytes]) -> Iterator[tuple[int, AppPassword]]:
        for number, line in enumerate(lines):
            if _name(line) == name:
                entry = Entry.parse(_text(line)[0])
                fields = entry.fields
                yield number, AppPassword(fields.pop("app", ""), entry.password, fields)


def _name(line: bytes) -> str:
    """Return the canonical name of whom a line is for; ``""`` if for nobody."""
    if line.startswith(b"#") or not line.strip():
        return ""
    try:
        return Entry.parse(_text(line)[0]).name
    except ValueError:
        return ""


def _text(line: bytes) -> tuple[str, str]:
    """Return a line's text and its end.

    :raises ValueError: it is not UTF-8.
    """
    text = line.decode()
    bare = text.rstrip("\r\n")
    return bare, text[len(bare) :]


def _key(extra: str) -> str:
    return extra.partition("=")[0].lower()


def _is_disabled(columns: list[str]) -> bool | None:
    """Tell whether the switches in a line keep the user out; None if they mean nothing."""
    fields = Entry.parse(":".join(columns)).fields
    try:
        return any(FIELDS[key][1](fields[key]) for key in _SWITCHES & fields.keys())
    except ValueError:
        return None


def _line(name: str, password: str, fields: Mapping[str, str]) -> str:
    extras = " ".join(f"{key}={value}" if value else key for key, value in fields.items())
    return f"{name}:{password}::::::{extras}"


def _append(lines: list[bytes], line: str) -> None:
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    lines.append(line.encode() + b"\n")


def _user(entry: Entry) -> User:
    fields = {key: value for key, value in entry.fields.items() if key in FIELDS}
    try:
        schemes = tuple(stored.scheme for stored in entry.check())
        disabled = entry.account(entry.name).disabled
    except ValueError as reason:
        return User(entry.name, False, (), fields, str(reason))
    problem = "" if schemes and entry.password else "there is no password"
    return User(entry.name, disabled, schemes, fields, problem)


def _no_such(name: str) -> NoSuchUserError:
    return NoSuchUserError(f"{name}: there is no such user")
