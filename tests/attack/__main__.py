"""Attack popd in full: ``python -m tests.attack NAME [COUNT]``."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.attack import churn, idle, memory
from tests.attack.adversary import Adversary
from tests.attack.crowd import KINDS
from tests.attack.footprint import MB, raise_limit
from tests.e2e.server import RunningServer, Site

if TYPE_CHECKING:
    from collections.abc import Callable


def _alone(site: Site, count: int) -> bool:
    """Attackers, one kind after the other."""
    raise_limit(count + 200)
    good = True
    for kind in KINDS:
        memory.prepare(site, kind, count)
        with RunningServer(site, *memory.OPTIONS) as server:
            cost = memory.alone(server, kind, count)
        print(cost, flush=True)
        good &= cost.octets <= cost.limit
    return good


def _idle(site: Site, count: int) -> bool:
    raise_limit(count + 200)
    users = idle.users(site, count)
    with RunningServer(site, *idle.OPTIONS, workers="2") as server:
        time.sleep(2)  # until both workers are there
        result = idle.hold(server, users)
    print(result, flush=True)
    return result.octets <= max(count * idle.LIMIT, 100 * MB)


def _churn(site: Site, count: int) -> bool:
    with RunningServer(site, *churn.OPTIONS) as server:
        return _flat(churn.churn(server, count))


def _names(site: Site, count: int) -> bool:
    names = site.root / "names"
    names.mkdir()
    (names / "localhost.pem").write_bytes(
        site.certificate.read_bytes() + site.private_key.read_bytes()
    )
    options = (*churn.OPTIONS, "--certificate-dir", str(names))
    with RunningServer(site, *options) as server:
        return _flat(churn.random_names(server, count))


def _adversary(_: Site, count: int) -> bool:
    done: Counter[str] = Counter()
    logging.getLogger("popd.maildrop").addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        for seed in range(max(1, count // 10_000)):
            ground = Path(directory, str(seed))
            adversary = Adversary(ground, seed, done)
            for _step in range(min(count, 10_000)):
                adversary.step()
            shutil.rmtree(ground)
    print(f"{done.total()} operations: {dict(done.most_common())}", flush=True)
    return True


def _flat(left: churn.Left) -> bool:
    print(left, flush=True)
    return left.octets <= churn.GROWTH and left.files <= 0


ATTACKS: Final[dict[str, tuple[Callable[[Site, int], bool], int]]] = {
    "memory": (_alone, 200),
    "together": (memory.together, 1_000),
    "idle": (_idle, 10_000),
    "churn": (_churn, 100_000),
    "names": (_names, 10_000),
    "adversary": (_adversary, 1_000_000),
}
"""The attacks, and how many of what they take unless it is said."""


def main() -> int:
    """Do it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("name", choices=[*ATTACKS])
    parser.add_argument("count", type=int, nargs="?")
    options = parser.parse_args()
    attack, usual = ATTACKS[options.name]
    with tempfile.TemporaryDirectory(prefix="popd-attack-") as root:
        Path(root).chmod(0o755)
        return 0 if attack(Site(Path(root)), options.count or usual) else 1


if __name__ == "__main__":
    sys.exit(main())
