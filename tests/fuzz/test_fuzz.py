"""Some thousand hostile inputs, and whether the targets would notice if popd were wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from popd.protocol import commands
from popd.protocol.lines import LineBuffer
from popd.protocol.sasl.exchange import Failed
from tests.fuzz.__main__ import TARGETS, by_chance, load

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = {"session": 2_500, "config": 400}
SEED = 20


class FuzzTests(SynchronousTestCase):
    """No input leads to a traceback, an answer too many or too few, an echo or a long line."""


def _test(name: str) -> Callable[[FuzzTests], None]:
    def test(_: FuzzTests) -> None:
        by_chance(load(name), INPUTS.get(name, 1_500), SEED)

    test.__doc__ = f"So it is with {name}."
    return test


for _name in TARGETS:
    setattr(FuzzTests, f"test_{_name}", _test(_name))


class SkippingBuffer(LineBuffer):
    """Takes empty lines for nothing."""

    __slots__ = ()

    def next(self) -> Any:
        """Return the next line that is not empty."""
        while (line := super().next()) == b"":
            pass
        return line


def echoing(phase: Any, table: Any, line: bytes) -> Any:
    """Say what the unknown command is, as other servers do."""
    try:
        return commands.execute(phase, table, line)
    except commands.UnknownCommandError:
        text = line.decode("ascii", "backslashreplace")
        raise commands.BadCommandError(f"unknown command {text}") from None


def trusting(word: bytes | None, _count: int) -> int:
    """Read a number as Python would, which is how other servers delete the wrong message."""
    return int(word or b"") - 1


class PlantedTests(SynchronousTestCase):
    """What other servers do wrong is found here within the inputs of the tests above."""

    def found(self, name: str, *places: str, by: Any, error: type[Exception]) -> None:
        """Check that the target notices if what stands at *places* is replaced."""
        patches = [mock.patch(place, by) for place in places]
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)
        problem = self.assertRaises(error, by_chance, load(name), INPUTS.get(name, 1_500), SEED)
        self.assertIn(f"of seed {SEED}", problem.__notes__[0])

    def test_echo(self) -> None:
        """A reply that repeats the command."""
        places = ("popd.protocol.authorization.execute", "popd.protocol.transaction.execute")
        self.found("session", *places, by=echoing, error=AssertionError)

    def test_no_answer(self) -> None:
        """A line without a reply."""
        self.found(
            "session", "popd.protocol.session.LineBuffer", by=SkippingBuffer, error=AssertionError
        )

    def test_numbers(self) -> None:
        """A number that is none."""
        self.found(
            "session", "popd.protocol.transaction.message_number", by=trusting, error=Exception
        )

    def test_long_reply(self) -> None:
        """A reply of 513 octets."""
        long = b"+OK " + b"x" * 507 + b"\r\n"
        self.found("session", "popd.protocol.session._READY.data", by=long, error=AssertionError)

    def test_sasl_echo(self) -> None:
        """A mechanism that says what it could not read."""

        def step(_: object, response: bytes | None) -> Failed:
            return Failed(repr(response))

        self.found("sasl", "popd.protocol.sasl.passwords.Plain.step", by=step, error=AssertionError)

    def test_names(self) -> None:
        """A unique-id of 71 octets."""
        longer = re.compile(rb"[!-~]{1,71}")
        self.found("names", "popd.maildrop.uidl._PLAIN", by=longer, error=AssertionError)

    def test_proxy(self) -> None:
        """A port that is not looked at."""
        self.found("proxy", "popd.protocol.proxy._is_port", by=bool, error=ValueError)

    def test_xclient(self) -> None:
        """An address that is taken as it is."""
        self.found("xclient", "popd.protocol.xclient.ip_address", by=str, error=Exception)

    def test_passwd(self) -> None:
        """A password in what is said of its line."""
        self.found("passwd", "popd.auth.schemes.parse", by=_quoting, error=AssertionError)

    def test_app(self) -> None:
        """The same with an app password."""
        self.found("app", "popd.auth.account.Account.read", by=_quoting, error=AssertionError)

    def test_config(self) -> None:
        """A mistake that is told in two lines."""
        self.found("config", "popd.config._hint", by="{}\n".format, error=AssertionError)


def _quoting(*said: object) -> Any:
    raise ValueError(str(said))
