"""The processes that make one run together. What they add up is what one of them alone would have added up.

Each of R ranks has its part of every batch. Whoever sums over a batch does it through ``Ranks``, which is the identity
where there is one rank, so there is one way to write a training whether it is cut or not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


class RankLost(Exception):
    """Another rank has ended, so that nothing can be added up any more: what it said of why, if it said anything."""


class Ranks(ABC):
    """All ranks of a run, as one of them sees them. All call the same methods in the same order, or they wait for ever.
    Each of them raises ``RankLost`` where one has ended, or the ``DitrError`` that was that one's reason.

    A rank that has nothing in a batch takes part all the same, with something that is not to count: see ``idle``.
    """

    index: int
    """0..R-1."""
    count: int
    """R."""

    @property
    def leads(self) -> bool:
        """Whether this rank writes what the run leaves: the record, the state, the views."""
        return self.index == 0

    def share(self, count: int) -> range:
        """Which of so many things are this rank's: one stretch, as long as those of others; the last may be empty."""
        size, more = divmod(count, self.count)
        first = self.index * size + min(self.index, more)
        return range(first, first + size + (self.index < more))

    def in_turn(self, work: Callable[[], T]) -> T:
        """On the rank that leads first: what that makes for all of them the others find."""
        done = [work()] if self.leads else []
        self.tell(None)
        return done[0] if done else work()

    def any(self, flag: bool) -> bool:
        """Whether one rank says so."""
        return self.most([int(flag)])[0] > 0

    @abstractmethod
    def report(self, error: Exception) -> None:
        """Says why this rank ends: what the others that wait for it raise then."""

    @abstractmethod
    def idle(self) -> AbstractContextManager[object]:
        """While entered, what this rank gives to a sum is nothing, gradients included, whatever it gives."""

    @abstractmethod
    def total(self, values: Tensor) -> Tensor:
        """The sum of what all ranks give, on every rank; gradients of all ranks flow back to what each gave."""

    @abstractmethod
    def gathered(self, values: Tensor) -> Tensor:
        """(R, ...) what each rank gives, zeros of an idle one; without gradients."""

    @abstractmethod
    def add_up(self, weights: Iterable[nn.Parameter]) -> None:
        """Gradients become the sums of all ranks' in place; one that no rank has stays None."""

    @abstractmethod
    def equalise(self, model: nn.Module) -> None:
        """Weights and buffers become those of the rank that leads."""

    @abstractmethod
    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Of numbers of the host."""

    @abstractmethod
    def most(self, numbers: Sequence[int]) -> list[int]:
        """The largest of each number of the host."""

    @abstractmethod
    def collect(self, part: T) -> list[T]:
        """Every rank's, in their order, on every rank."""

    @abstractmethod
    def tell(self, text: str | None) -> str | None:
        """What the rank that leads says, whatever the others do."""


class Alone(Ranks):
    """One rank: every sum is what it gives."""

    index, count = 0, 1

    def report(self, error: Exception) -> None:
        """Nobody waits."""

    def idle(self) -> AbstractContextManager[object]:
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        return values

    def gathered(self, values: Tensor) -> Tensor:
        return values.unsqueeze(0)

    def add_up(self, weights: Iterable[nn.Parameter]) -> None:
        """Nothing is added."""

    def equalise(self, model: nn.Module) -> None:
        """They are equal."""

    def sums(self, numbers: Sequence[float]) -> list[float]:
        return list(numbers)

    def most(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers)

    def collect(self, part: T) -> list[T]:
        return [part]

    def tell(self, text: str | None) -> str | None:
        return text


ALONE = Alone()
