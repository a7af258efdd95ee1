"""Runs the model during one explainer call, and captures layers and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..intercept import Interception
from ..layouts import read
from ..model import layer, unwrap
from ..targets import PerImage, Selection, Targets, select
from .captures import Capture, Replacement, Severed
from .derivatives import remedy
from .hooks import Call, Enter, See, run_hooked
from .inputs import Followers, follow, possible_followers
from .passes import Pass, Site


class Probe:
    """One call of an explainer: a model, its inputs and what to explain.

    Args:
        model: the module to run, without wrappers.
        images: (N, C, *size), its first input.
        inputs: its further positional inputs.
        keywords: its keyword inputs.
        targets: what to explain, see :func:`camlens.targets.select`. Changed images are scored
            for the classes of the unchanged ones.
        create_graph: whether gradients are to be differentiated in turn.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        inputs: Sequence[Any] = (),
        keywords: Mapping[str, Any] | None = None,
        targets: Targets = None,
        *,
        create_graph: bool = False,
    ) -> None:
        self.model = unwrap(model)
        self.images = images
        self.inputs = tuple(inputs)
        self.keywords = dict(keywords or {})
        self.targets = targets
        self.create_graph = create_graph
        self._unchanged: Selection | None = None
        self._fixed: PerImage | None = None
        self._measured_followers: Followers | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """The images' spatial size in pixels."""
        return tuple(self.images.shape[2:])

    def run(
        self,
        images: Tensor | None = None,
        *,
        sites: Sequence[Site] = (),
        start: Literal["sites", "images", "parameters"] | None = "sites",
        mode: Interception | None = None,
        replaced: Tensor | None = None,
        batch: int = 0,
        severed: bool = False,
    ) -> Pass:
        """Run the model once and capture the sites.

        Args:
            images: (N, C, *size) to run on; None: the probe's own.
            sites: layers to capture.
            start: where the graph of gradients begins. ``"sites"``: the first site to run, so
                that a backward pass costs no more than the part behind it. ``"images"``: a copy
                of the images. ``"parameters"``: wherever the model's own graph does. None: no
                gradients.
            mode: what is intercepted of the model's calls, such as a backward rule of its ReLUs.
            replaced: put in the place of what the one site returns, see
                :class:`camlens.probe.Tail`.
            batch: the dimension of what is replaced that holds the images.
            severed: whether each site hands on its output without the graph that led to it, so
                that the sites' graphs are disjoint. With ``start=None`` a graph begins where the
                mode begins one.

        Raises:
            LookupError: a site did not run.
            TypeError: a site gives no floating-point tensor, or the output holds no scores.
            ValueError: a shape does not fit.
        """
        given = self.images if images is None else images
        leaf = None
        if start == "images":
            leaf = given.detach().clone().requires_grad_()
            given = leaf.clone()
        names = [site.name for site in sites]
        record = start is not None
        capture = Capture(record=record)
        if replaced is not None:
            capture = Replacement(replaced, record=record, batch=batch)
        elif severed:
            capture = Severed()
        everywhere = start in ("images", "parameters")
        outputs, recording = self.execute(names, capture, given, gradients=everywhere, mode=mode)
        capture.check_ran(names, self.model)
        if mode is not None:
            mode.check_used()
        if record and names and replaced is None and (capture.interrupted or not recording):
            # The model runs a part of itself under no_grad, and leaving that block restored the
            # mode around the run. Once more, with gradients as that mode.
            capture = Capture(record=True)
            outputs, _ = self.execute(names, capture, given, gradients=True, mode=mode)
        with torch.set_grad_enabled(start is not None):
            n = len(given) if replaced is None else replaced.shape[batch]
            selection = self.select(outputs, n, changed=images is not None)
        if images is None and self._unchanged is None:
            self._unchanged = selection
        return Pass(
            outputs,
            selection,
            capture.captured,
            sites,
            model=self.model,
            leaf=leaf,
            mode=mode,
        )

    def select(self, outputs: Any, n: int, *, changed: bool = False) -> Selection:
        """Select the scores of ``n`` images to explain.

        Args:
            outputs: what the model returned for them.
            n: how many there are.
            changed: whether they are changed images, scored for the unchanged images' classes.

        Raises:
            ValueError: the scores are of another number of images.
        """
        targets = self.targets
        if changed:
            targets = self.fixed_targets()
        elif isinstance(targets, PerImage):
            if self._fixed is None:
                self._fixed = targets.fixed(outputs)
            targets = self._fixed
        selection = select(outputs, targets)
        if len(selection.scores) != n:
            raise ValueError(
                f"expected one row of scores for each of {n} images, got "
                f"{tuple(selection.scores.shape)}"
            )
        return selection

    def fixed_targets(self) -> Targets:
        """Return the targets of changed images: the unchanged images' classes, or a callable."""
        if callable(self.targets) and not isinstance(self.targets, PerImage):
            return self.targets
        unchanged = self.unchanged()
        return self._fixed or unchanged.classes

    def fixed_rows(self, source: Tensor) -> Targets:
        """Return the targets of changed images that were each made from one of these.

        Args:
            source: (m,) int64: from which.
        """
        fixed = self.fixed_targets()
        if isinstance(fixed, PerImage):
            return fixed.rows(source)
        return fixed[_on(source, fixed)] if isinstance(fixed, Tensor) else fixed

    def unchanged(self) -> Selection:
        """Return the scores of the unchanged images, from the first pass that ran on them."""
        if self._unchanged is None:
            self.run(start="parameters" if self.create_graph else None)
        selection = self._unchanged
        if selection is None:
            raise RuntimeError("a pass on the unchanged images kept no selection")
        return selection

    def changed(self, images: Tensor, source: Tensor) -> Probe:
        """Return a probe of changed images.

        Args:
            images: (m, C, *size).
            source: (m,) int64: which of this probe's images each was made from. It is scored for
                that image's classes, and beside that image's further inputs.
        """
        targets = self.fixed_rows(source)
        followers = self.followers()
        inputs, keywords = follow(self.inputs, self.keywords, source, followers)
        part = Probe(self.model, images, inputs, keywords, targets, create_graph=self.create_graph)
        part._measured_followers = followers
        return part

    @torch.no_grad()
    def selections(
        self, make: Callable[[slice], Tensor], source: Tensor, *, batch_size: int = 64
    ) -> Iterator[Selection]:
        """Score M changed images, a batch at a time, without gradients.

        Args:
            make: from a slice of the M changed images to the images, (m, C, *size).
            source: (M,) int64: which of the probe's images each was made from, see
                :meth:`changed`.
            batch_size: how many images run at once.

        Yields:
            The selection of each batch.

        Raises:
            ValueError: a shape does not fit.
        """
        for first in range(0, len(source), batch_size):
            rows = slice(first, first + batch_size)
            yield self.changed(make(rows), source[rows]).run(start=None).selection

    def scores(
        self, make: Callable[[slice], Tensor], source: Tensor, *, batch_size: int = 64
    ) -> Tensor:
        """Return the (M, K) scores of M changed images, without gradients.

        Args:
            make: as :meth:`selections` takes it.
            source: as :meth:`selections` takes it.
            batch_size: how many images run at once.
        """
        parts = self.selections(make, source, batch_size=batch_size)
        return torch.cat([part.scores for part in parts])

    def cell_gradients(self, site: Site, images: Tensor, cells: Tensor, signs: Tensor) -> Tensor:
        """Return the gradient by each image of the signed sum over the channels of one cell.

        Args:
            site: the layer, with its layout.
            images: (R, C, *size).
            cells: (R, d) int64: of each image, a cell of the layer's grid.
            signs: (R, channels).

        Returns:
            (R, C, *size); zero where nothing of an image reaches its cell.
        """
        leaf = images.detach().clone().requires_grad_()
        capture = Capture(record=True)
        self.execute([site.name], capture, leaf.clone(), gradients=True)
        capture.check_ran([site.name], self.model)
        maps = read(capture.captured[site.name], site.layout, site.name, len(images))
        rows = torch.arange(len(images), device=maps.device)
        with torch.enable_grad():
            values = (maps.movedim(1, -1)[rows, *cells.unbind(1)] * signs).sum()
        (gradient,) = torch.autograd.grad(values, [leaf], allow_unused=True)
        return torch.zeros_like(leaf) if gradient is None else gradient

    def execute(
        self,
        names: Sequence[str],
        see: See,
        images: Tensor | None = None,
        *,
        gradients: bool = False,
        mode: Interception | None = None,
        enter: Enter | None = None,
    ) -> tuple[Any, bool]:
        """Run the model and show ``see`` what each layer returns, and ``enter`` what it is given.

        Returns:
            The model's outputs, and whether gradients were being recorded when it ended.
        """
        given = self.images if images is None else images
        layers = {name: layer(self.model, name) for name in names}
        # Copies: a model may write to its input, such as to normalise it in place.
        arguments = tuple(_copy(value) for value in (given, *self.inputs))
        keywords = {name: _copy(value) for name, value in self.keywords.items()}
        call = Call(self.model, arguments, keywords)
        if self.create_graph:
            mode = mode or Interception()
            mode.create_graph = True
        try:
            return run_hooked(call, layers, see, gradients=gradients, mode=mode, enter=enter)
        except RuntimeError as error:
            if text := remedy(error):
                raise ValueError(text) from error
            if gradients or "register a hook on a tensor" not in str(error):
                raise
        # A forward hook of the user's registers a hook on a tensor, which then needs gradients.
        try:
            return run_hooked(call, layers, see, gradients=True, mode=mode, enter=enter)
        except RuntimeError as error:
            hooked = [n for n, m in self.model.named_modules() if m._forward_hooks]
            raise ValueError(
                f"a forward hook of yours on one of {hooked} registers a hook on a tensor that "
                "needs no gradient; remove it while you explain"
            ) from error

    def followers(self) -> Followers:
        """Return which further inputs hold a row for each image, measured at the first use.

        Raises:
            ValueError: it cannot be told.
        """
        if self._measured_followers is None:
            self._measured_followers = self._measure_followers()
        return self._measured_followers

    def _measure_followers(self) -> Followers:
        n = len(self.images)
        choices = possible_followers(self.inputs, self.keywords, n)
        if len(choices) == 1:
            return choices[0]
        # The images in another order, with those inputs in the same order, have the same scores.
        rows = torch.arange(n).flip(0) if n > 1 else torch.zeros(2, dtype=torch.int64)
        expected, targets = self.unchanged().scores.detach()[rows], self.fixed_rows(rows)
        images = self.images[rows.to(self.images.device)]
        for followers in choices:
            inputs, keywords = follow(self.inputs, self.keywords, rows, followers)
            try:
                part = Probe(self.model, images, inputs, keywords, targets)
                scores = part.run(start=None).scores
            except (RuntimeError, ValueError, IndexError):  # shapes that do not go together
                continue
            if scores.shape == expected.shape and torch.allclose(
                scores, expected, rtol=1e-3, atol=1e-5 * expected.abs().amax().item()
            ):
                return followers
        raise ValueError(
            f"cannot tell which of the model's further inputs hold a row for each of the {n} "
            "images: with the images in another order the scores are others. Explain the images "
            "one by one"
        )


def _on(rows: Tensor, other: Tensor) -> Tensor:
    """Return rows on the device of another tensor."""
    return rows if rows.device == other.device else rows.to(other.device)


def _copy(value: Any) -> Any:
    """Return a copy of a tensor that is not part of a graph yet; of others nothing is copied."""
    return value.clone() if isinstance(value, Tensor) and not value.requires_grad else value
