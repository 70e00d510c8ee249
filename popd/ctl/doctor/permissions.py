"""Whether popd may read and write what it has to, and others may not."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from popd.ctl.doctor.finding import fine, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from popd.ctl.doctor.finding import Finding, Patient

__all__ = ["check_files", "check_maildirs", "check_state"]

_MAILDIRS: Final = 20
"""How many Maildirs are named at most, if there is something wrong with many."""


def check_files(patient: Patient) -> Iterator[Finding]:
    """Popd can read its files; nobody else can read secrets, or write any of them."""
    settings = patient.settings
    keys = settings.private_key or settings.certificate
    passwords = [
        one.partition(":")[2] for one in settings.auth if "popd-passwd:" in one.partition("/")[0]
    ]
    yield from _file(patient, "configuration", patient.config, secret=False)
    for path in keys:
        yield from _file(patient, "private key", path, secret=True)
    for path in settings.certificate if settings.private_key else ():
        yield from _file(patient, "certificate file", path, secret=False)
    for path in passwords:
        yield from _file(patient, "password file", path, secret=True)


def _file(patient: Patient, what: str, path: str, *, secret: bool) -> Iterator[Finding]:
    name = f"{what} {path}"
    try:
        status = Path(path).stat()
    except OSError as error:
        yield problem(name, error.strerror or str(error), "make it, or name another one")
        return
    mode = stat.S_IMODE(status.st_mode)
    owner = _owner(status.st_uid)
    loose = [str(parent) for parent in Path(path).absolute().parents if _is_open(parent)]
    if mode & 0o002 or loose:
        where = loose[0] if loose else path
        yield problem(name, f"everybody may change {where}", f"chmod o-w {where}")
    elif status.st_uid not in {0, patient.uid}:
        yield problem(name, f"it belongs to {owner}", f"chown root {path}")
    elif secret and mode & 0o004:
        yield problem(name, "everybody may read it", f"chmod o-r {path}")
    elif not _may(patient, status, stat.S_IROTH):
        user = _owner(patient.uid)
        yield problem(name, f"{user}, as whom popd runs, may not read it", f"chgrp {user} {path}")
    elif mode & 0o020 and status.st_gid not in {0, *patient.gids}:
        yield warning(name, "a group that is not popd's may change it", f"chmod g-w {path}")
    else:
        yield fine(name, f"{mode:04o}, of {owner}")


def _is_open(directory: Path) -> bool:
    """Tell whether anybody may put another file in the place of one in a directory."""
    try:
        mode = directory.stat().st_mode
    except OSError:
        return False
    return bool(mode & 0o002) and not mode & stat.S_ISVTX


def check_state(patient: Patient) -> Iterator[Finding]:
    """The directories that popd writes to are there, and are its own."""
    directories = {"state directory": Path(patient.settings.state_directory)}
    if patient.settings.guess_table:
        directories["directory of the guess table"] = Path(patient.settings.guess_table).parent
    for what, path in directories.items():
        name = f"{what} {path}"
        user = _owner(patient.uid)
        try:
            status = path.stat()
        except OSError as error:
            text = error.strerror or str(error)
            yield problem(name, text, f"install -d -o {user} -m 750 {path}")
            continue
        if not stat.S_ISDIR(status.st_mode):
            yield problem(name, "it is no directory", f"rm {path}; mkdir {path}")
        elif not _may(patient, status, stat.S_IWOTH | stat.S_IXOTH):
            yield problem(name, f"{user}, as whom popd runs, may not write", f"chown {user} {path}")
        elif status.st_mode & 0o002:
            yield problem(name, "everybody may write to it", f"chmod o-w {path}")
        else:
            yield fine(name, f"{stat.S_IMODE(status.st_mode):04o}, of {_owner(status.st_uid)}")


def check_maildirs(patient: Patient) -> Iterator[Finding]:
    """Popd can read and write the Maildirs, and others cannot read the mail."""
    looked = 0
    wrong: list[Finding] = []
    for user, root in patient.maildirs:
        found = next(_maildir(patient, user, root), None)
        looked += Path(os.fsdecode(root)).is_dir()
        if found:
            wrong.append(found)
    yield from wrong[:_MAILDIRS]
    if len(wrong) > _MAILDIRS:
        text = f"so it is with {len(wrong) - _MAILDIRS} more"
        yield problem("Maildirs", text, "see the lines above")
    if not wrong:
        yield fine("Maildirs", f"permissions of {looked} are right")


def _maildir(patient: Patient, user: str, root: bytes) -> Iterator[Finding]:
    name = f"Maildir of {user}"
    for part in (b"", b"/new", b"/cur"):
        path = os.fsdecode(root + part)
        try:
            status = Path(path).lstat()
        except FileNotFoundError:
            if part:
                yield problem(name, f"{path} is missing", f"install -d -o OWNER -m 700 {path}")
            return
        except OSError as error:
            yield problem(name, f"{path}: {error.strerror}", "look at the disk")
            return
        if not stat.S_ISDIR(status.st_mode):
            yield problem(name, f"{path} is no directory", "popd serves no such Maildir")
            return
        if not _may(patient, status, 0o007):
            owner = _owner(patient.uid)
            text = f"{owner}, as whom popd runs, may not read and write {path}"
            yield problem(name, text, f"chown -R {owner} {os.fsdecode(root)}")
        if status.st_mode & 0o002:
            yield problem(name, f"everybody may write to {path}", f"chmod o-w {path}")
        elif not part and status.st_mode & 0o004:
            yield warning(name, f"everybody may list {path}", f"chmod o-rwx {path}")


def _may(patient: Patient, status: os.stat_result, bits: int) -> bool:
    """Tell whether popd's user has *bits*, which are given as those of others."""
    if patient.uid == 0:
        return True
    if status.st_uid == patient.uid:
        bits <<= 6
    elif status.st_gid in patient.gids:
        bits <<= 3
    return status.st_mode & bits == bits


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
