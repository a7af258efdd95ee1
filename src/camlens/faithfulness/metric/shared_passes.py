"""Reuse forward passes between metrics of the same images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


class SharedPasses:
    """Stores forward passes that do not depend on the maps, for several metrics of the same images.

    Pass the same object as ``shared=`` to several calls, of one metric or of several. It stores the
    scores of the unchanged images, and those of the images without the random subsets of
    :func:`mu_fidelity` and :func:`infidelity`. The metrics' values do not change. Stored passes are
    looked up by object identity, so do not change the model or a tensor between the calls. They
    are kept in memory, with the images, as long as this object exists.

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
        """Return the result of ``compute``, which is called only once for the same arguments.

        Args:
            what: the result's name.
            given: the values that determine it. Numbers, strings and tuples of them are compared
                by value, other objects, such as tensors, by identity.
            compute: called without arguments if the result is not stored.
        """
        key = what, tuple(map(_identity, given))
        if key not in self._results:
            # The arguments are kept, since Python may reuse the id of a deleted object.
            self._results[key] = given, compute()
        result: _T = self._results[key][1]
        return result


def _identity(value: object) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    return value if isinstance(value, (int, float, str)) else ("object", id(value))
