"""What metrics of the same images have in common, whichever maps they judge."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


class SharedPasses:
    """Keeps what does not depend on the maps, so that several calls of metrics compute it once.

    Given as ``shared=`` to calls of metrics for the same images, whether of one metric or several:
    the scores of the unchanged images, and of the images without the random subsets of
    :func:`mu_fidelity` and :func:`infidelity`. Values are those of calls on their own. What is kept
    counts as the same for the same objects, so change no model and no tensor in between. It is
    kept, with the images, for as long as this object is.

    Example:
        >>> import torch
        >>> from camlens.faithfulness import mu_fidelity
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)).eval()
        >>> images, shared = torch.rand(2, 3, 4, 4), SharedPasses()
        >>> for maps in torch.rand(5, 2, 1, 4, 4):  # 101 forward passes, not 505
        ...     found = mu_fidelity(model, images, maps, targets=1, floors=(), shared=shared)
    """

    def __init__(self) -> None:
        self._results: dict[Hashable, tuple[Sequence[object], Any]] = {}

    def once(self, what: str, given: Sequence[object], compute: Callable[[], _T]) -> _T:
        """Return what ``compute`` returned when it was first called for the same arguments.

        Args:
            what: names the result.
            given: what decides it: numbers, texts and tuples of them, which are the same if they
                are equal, and other objects, such as tensors, which are only the same as
                themselves.
            compute: called without arguments, unless the result is known.
        """
        key = what, tuple(map(_identity, given))
        if key not in self._results:
            # What was given is kept, since the id of an object that is gone may become another's.
            self._results[key] = given, compute()
        result: _T = self._results[key][1]
        return result


def _identity(value: object) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    return value if isinstance(value, (int, float, str)) else ("object", id(value))
