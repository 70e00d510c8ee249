"""A real OpenID provider for end-to-end tests: npm's certified ``oidc-provider``."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.trial.unittest import SkipTest

from tests.e2e.launch import free_port
from tests.e2e.server import LIMIT

if TYPE_CHECKING:
    from tests.e2e.server import Site

__all__ = ["OidcProvider"]

_SOURCE: Final = Path(__file__).parent / "oidc"

_NODE_VERSION: Final = 20

_CLIENT: Final = base64.b64encode(b"mail-app:secret-of-mail-app").decode("ascii")


@functools.cache
def _node_version() -> int:
    if shutil.which("node") is None:
        return 0
    output = subprocess.check_output(["node", "--version"], text=True)
    return int(output.lstrip("v").partition(".")[0])


def _modules() -> Path:
    """Return where the provider's packages are installed.

    :raises SkipTest: they are not.
    """
    modules = Path(os.environ.get("POPD_OIDC_PROVIDER") or _SOURCE / "node_modules")
    if _node_version() < _NODE_VERSION or not (modules / "oidc-provider").is_dir():
        raise SkipTest(
            "needs Node.js 20 and oidc-provider: npm ci in tests/e2e/oidc, or in a copy of it whose"
            " node_modules POPD_OIDC_PROVIDER names"
        )
    return modules.absolute()


class OidcProvider:
    """A provider on this machine, which gives tokens for any user.

    :param site: whose certificate it has.
    :raises SkipTest: it is not installed.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._port = free_port()
        self.issuer = f"https://localhost:{self._port}"
        self._root = site.root / "provider"
        modules = _modules()
        self._root.mkdir()
        shutil.copy(_SOURCE / "provider.js", self._root)
        shutil.copy(_SOURCE / "package.json", self._root)
        # Node.js looks for a module's packages beside it.
        (self._root / "node_modules").symlink_to(modules)
        self._process: subprocess.Popen[bytes] | None = None
        self.secret = site.root / "provider-secret"
        self.secret.write_text("secret: of popd & co.\n", encoding="ascii")

    def start(self, keys: str = "first") -> None:
        """Start it, with new keys.

        :param keys: what the names of the keys begin with.
        """
        options = {
            "issuer": self.issuer,
            "port": self._port,
            "certificate": str(self._site.certificate),
            "key": str(self._site.private_key),
            "keys": keys,
        }
        process = subprocess.Popen(
            ["node", "provider.js", json.dumps(options)],
            cwd=self._root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._process = process
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            self.stop()
            raise AssertionError("the provider does not start")

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def token(self, user: str = "alice", *, alg: str = "RS256", **form: Any) -> str:
        """Return a token.

        :param alg: how it is signed; empty for one that is not.
        :param form: what is different from a token that popd takes, see ``provider.js``.
        """
        claims = {"email": f"{user}@example.org", **form.pop("claims", {})}
        form = {"user": user, "alg": alg, "audience": "popd", "scope": "mail", **form}
        form |= {"grant_type": "urn:popd:test", "claims": json.dumps(claims)}
        request = urllib.request.Request(  # noqa: S310 - it is https
            f"{self.issuer}/token",
            urllib.parse.urlencode(form).encode(),
            {"Authorization": f"Basic {_CLIENT}"},
        )
        context = self._site.client_context()
        with urllib.request.urlopen(request, timeout=LIMIT, context=context) as answer:  # noqa: S310
            token: str = json.load(answer)["access_token"]
            return token
