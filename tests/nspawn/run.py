"""Boots a small Debian with popd in it, and looks whether systemd and popd get along.

Run as root, where there are debootstrap and systemd-nspawn:  python tests/nspawn/run.py

What is looked at is in ``checks.py``, which runs inside.  The container has no network but its own
loopback; what it needs is downloaded before.  Nothing is left behind, also not after Control-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]

PROGRAMS: Final = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
}
"""What has to be there, and the Debian packages that it is in."""

SUITE: Final = "bookworm"

PACKAGES: Final = "systemd-sysv,python3-venv,curl,openssl"

MACHINE: Final = f"popd-{os.getpid()}"

NSPAWN: Final = (
    # Without a systemd out here, which would want to know of it.
    *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit"),
    *("--private-network", "--machine", MACHINE),
    "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
)

ALONE: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
"""The beginning of a command whose mounts, and whatever it starts, end with it."""

LIMIT: Final = 240.0
"""Seconds that all of it may take."""

BOOT_LIMIT: Final = 60.0


def missing() -> str:
    """Return why nothing can be looked at here; nothing if it can."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    absent = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
    if absent:
        return f"apt install {' '.join(absent)}"
    return ""


def run(*command: object) -> str:
    """Run a command; return what it says.

    :raises SystemExit: it failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise SystemExit(f"FAILED: {' '.join(words)}")
    return done.stdout


def build_tree(tree: Path) -> None:
    """Make the Debian; where there is one in ``POPD_DEBIAN``, copy that."""
    ready = os.environ.get("POPD_DEBIAN")
    if ready and Path(ready, "bin").exists():
        run("cp", "--archive", "--reflink=auto", ready, tree)
        return
    run(*ALONE, "debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, tree)


def collect_wheels(tree: Path, wheels: Path, work: Path) -> None:
    """Build popd's wheel, and download those of what it needs, for the Python in *tree*."""
    source = work / "source"  # setuptools would pack what an older build left in the tree
    ignored = shutil.ignore_patterns(".git", "build", ".venv*", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, source)
    (wheel,) = wheels.iterdir()
    probe = "import os, sys; print(*sys.version_info[:2], os.confstr('CS_GNU_LIBC_VERSION'))"
    major, minor, _, glibc = run("chroot", tree, "python3", "-c", probe).split()
    machine = os.uname().machine
    kinds = [f"manylinux_2_{n}" for n in range(5, int(glibc.partition(".")[2]) + 1)]
    platforms = [f"--platform={kind}_{machine}" for kind in ("manylinux2014", *kinds)]
    run(
        *(*pip, "download", "--only-binary=:all:", f"--python-version={major}.{minor}"),
        *(*platforms, "--dest", wheels, wheel),
    )


def install(tree: Path, wheels: Path) -> None:
    """Install popd as its manual says, without a network."""
    shutil.copytree(wheels, tree / "root/wheels")
    etc = ROOT / "etc"
    system = tree / "etc/systemd/system"
    for unit in ("popd.service", "popd.socket"):
        shutil.copy(etc / "systemd" / unit, system)
    for kind in ("sysusers.d", "tmpfiles.d"):
        (tree / "etc" / kind).mkdir(exist_ok=True)
        shutil.copy(etc / kind / "popd.conf", tree / "etc" / kind)
    shutil.copy(Path(__file__).with_name("checks.py"), tree / "root")
    script = """
        set -eu
        python3 -m venv /opt/popd
        /opt/popd/bin/pip install -q --no-index --find-links /root/wheels popd
        /opt/popd/bin/twistd --help >/dev/null # finds the plugins, once and for all
    """
    run(
        *(*NSPAWN, "--as-pid2", "--directory", tree, "sh", "-c", script),
    )


@contextmanager
def booted(tree: Path, log: Path) -> Iterator[int]:
    """Boot; give the process id that the container's first process has out here."""
    with log.open("wb") as file:
        nspawn = subprocess.Popen(
            [
                *(*NSPAWN, "--boot", "--link-journal=no", "--console=pipe"),
                *("--directory", str(tree)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Control-C is for this script, which tidies up
        )
    try:
        yield wait_for_boot(nspawn)
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace")[-4000:])
        raise
    finally:
        nspawn.terminate()
        try:
            nspawn.wait(15)
        except subprocess.TimeoutExpired:
            nspawn.kill()  # and with it, by the kernel, all that is inside
            nspawn.wait()


def wait_for_boot(nspawn: subprocess.Popen[bytes]) -> int:
    """Wait until the container is up; return the process id of its first process."""
    deadline = time.monotonic() + BOOT_LIMIT
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    while time.monotonic() < deadline and nspawn.poll() is None:
        for child in children.read_text().split():
            state = subprocess.run(
                [*entering(int(child)), "systemctl", "is-system-running"],
                capture_output=True,
                text=True,
                check=False,
            ).stdout.strip()
            if state in {"running", "degraded"}:
                return int(child)
        time.sleep(0.3)
    raise SystemExit("FAILED: the container does not boot")


def entering(leader: int) -> tuple[str, ...]:
    """Return the beginning of a command that is run inside."""
    return ("nsenter", "--target", str(leader), "--all", "--")


def main() -> int:
    """Do it; return the exit status."""
    reason = missing()
    if reason:
        print(f"skipped: {reason}")  # noqa: T201
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, lambda number, _: sys.exit(f"FAILED: signal {number}"))
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {what}", flush=True)  # noqa: T201

    work = Path(tempfile.mkdtemp(prefix="popd-nspawn-"))
    tree, wheels = work / "tree", work / "wheels"
    wheels.mkdir()
    try:
        build_tree(tree)
        say("a Debian")
        collect_wheels(tree, wheels, work)
        say("popd's wheel and those of what it needs")
        install(tree, wheels)
        say("popd installed")
        with booted(tree, work / "console") as leader:
            say("booted")
            checks = [*entering(leader), "/opt/popd/bin/python", "/root/checks.py", *sys.argv[1:]]
            status = subprocess.run(
                checks, stdin=subprocess.DEVNULL, check=False, start_new_session=True
            ).returncode
        say("all is well" if status == 0 else "FAILED")
        return status
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Never beyond this file system, should something still be mounted in it.
        propagated = Path("/run/systemd/nspawn/propagate") / MACHINE
        subprocess.run(["rm", "-rf", "--one-file-system", work, propagated], check=False)


if __name__ == "__main__":
    sys.exit(main())
