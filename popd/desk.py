"""What operators may ask of popd: of one process, and of all of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import maybeDeferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from popd.server.factory import POP3Factory

__all__ = ["Alone", "Crew", "Desk"]


class Crew(Protocol):
    """All processes that serve, be they one or many."""

    def ask(self, what: str, about: Any = None) -> Deferred[list[Any]]:
        """Ask each; return the answers of those that gave one in time (see `Desk.answer`)."""


class Desk:
    """Answers for the process that it is in.

    :param factory: what the process serves with.
    """

    def __init__(self, factory: POP3Factory) -> None:
        self.factory = factory
        self._answers: dict[str, Callable[[Any], Any]] = {"count": self._count}

    def answer(self, what: str, about: Any) -> Any:
        """Answer a question.

        :param what: which: ``count`` returns how many sessions there are.
        :param about: what JSON can say; what it is depends on the question.
        :return: what JSON can say in at most 65,535 octets, or a Deferred of it.
        :raises KeyError: there is no such question.
        """
        return self._answers[what](about)

    def _count(self, _about: object) -> int:
        return len(self.factory.visits)


class Alone:
    """A crew of one: this process.

    :param desk: answers for it.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def ask(self, what: str, about: Any = None) -> Deferred[list[Any]]:
        """See `Crew`."""
        return maybeDeferred(self._desk.answer, what, about).addCallback(lambda answer: [answer])
