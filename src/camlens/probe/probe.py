"""Runs the model during one call of an explainer, and captures layers and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..intercept import Interception
from ..layouts import read
from ..model import layer, unwrap
from ..targets import PerImage, Selection, Targets, select
from ..targets.per_image import select_rows
from .captures import Capture, Replacement, Severed
from .derivatives import remedy
from .hooks import Call, Enter, See, run_hooked
from .inputs import Followers, each_tensor, follow, possible_followers
from .passes import Pass, Site


class Probe:
    """One call of an explainer: a model, its inputs and the targets to explain.

    A method calls :meth:`run` for captured layers and gradients, and :meth:`scores` for the scores
    of changed images.

    Args:
        model: the module to run; wrappers such as ``DataParallel`` are removed.
        images: (N, C, *size), its first input.
        inputs: its further positional inputs.
        keywords: its keyword inputs.
        targets: what to explain, see :func:`camlens.targets.select`. Changed images are scored
            for the classes of the unchanged ones.
        create_graph: whether gradients will be differentiated again.
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
            images: (N, C, *size) to run on; None: the probe's images.
            sites: layers to capture.
            start: where the autograd graph starts. ``"sites"``: at the first site that runs, so
                that a backward pass covers only the part after it. ``"images"``: at a copy of the
                images. ``"parameters"``: where the model's own graph starts. None: no gradients.
            mode: function mode that intercepts the model's calls, such as a backward rule of its
                ReLUs.
            replaced: tensor that replaces the output of the only site, see
                :class:`camlens.probe.Tail`.
            batch: dimension of the images in ``replaced``.
            severed: whether each site passes on its output without a graph, so that the sites'
                graphs are disjoint. With ``start=None`` graphs start where the mode starts them.

        Returns:
            The pass, with the captured layers and the selected scores.

        Raises:
            LookupError: a site did not run.
            TypeError: a site returns no floating-point tensor, or the output holds no scores.
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
            # gradient mode around the run. Run again, with that mode enabled.
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
            outputs: the model's output for the images.
            n: number of images.
            changed: whether they are changed images, which are scored for the classes of the
                unchanged ones.

        Raises:
            ValueError: the number of scores does not fit the number of images.
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
        """Return what to explain in changed images: the unchanged images' classes, or a callable.

        Classes have a row for each unchanged image; :meth:`fixed_rows` selects those needed.
        """
        if callable(self.targets) and not isinstance(self.targets, PerImage):
            return self.targets
        unchanged = self.unchanged()
        return self._fixed or unchanged.classes

    def fixed_rows(self, source: Tensor) -> Targets:
        """Return the rows of :meth:`fixed_targets` for changed images.

        Args:
            source: (m,) int64, the image that each was made from.
        """
        fixed = self.fixed_targets()
        if isinstance(fixed, PerImage):
            return fixed.rows(source)
        return select_rows(fixed, source) if isinstance(fixed, Tensor) else fixed

    def unchanged(self) -> Selection:
        """Return the scores of the unchanged images, from the first pass that ran on them."""
        if self._unchanged is None:
            self.run(start="parameters" if self.create_graph else None)
        selection = self._unchanged
        if selection is None:
            raise RuntimeError("a pass on the unchanged images stored no selection")
        return selection

    def changed(self, images: Tensor, source: Tensor) -> Probe:
        """Return a probe of changed images.

        Args:
            images: (m, C, *size), the changed images.
            source: (m,) int64, the image of this probe that each was made from. It is scored for
                that image's classes, with that image's further inputs.
        """
        targets = self.fixed_rows(source)
        followers = self.followers()
        n = len(self.images)
        inputs, keywords = follow(self.inputs, self.keywords, source, followers, n)
        probe = Probe(self.model, images, inputs, keywords, targets, create_graph=self.create_graph)
        probe._measured_followers = followers
        return probe

    @torch.no_grad()
    def selections(
        self, make: Callable[[slice], Tensor], source: Tensor, *, batch_size: int = 64
    ) -> Iterator[Selection]:
        """Score M changed images in batches, without gradients.

        Args:
            make: returns the changed images of a slice of the M, (m, C, *size).
            source: (M,) int64, the image of this probe that each was made from, see
                :meth:`changed`.
            batch_size: number of images in a batch.

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
            make: returns the changed images of a slice of the M, (m, C, *size).
            source: (M,) int64, the image of this probe that each was made from.
            batch_size: number of images in a batch.
        """
        parts = self.selections(make, source, batch_size=batch_size)
        return torch.cat([part.scores for part in parts])

    def cell_gradients(self, site: Site, images: Tensor, cells: Tensor, signs: Tensor) -> Tensor:
        """Return the gradients of one cell's signed sum over the channels, one for each image.

        Args:
            site: the layer, with its layout.
            images: (R, C, *size).
            cells: (R, d) int64, a cell of the layer's grid for each image.
            signs: (R, channels).

        Returns:
            (R, C, *size); zero if a cell does not depend on its image.
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
        """Run the model, passing each layer's output to ``see`` and its inputs to ``enter``.

        Returns:
            The model's output, and whether gradients were recorded at the end of the run.
        """
        given = self.images if images is None else images
        layers = {name: layer(self.model, name) for name in names}
        # Copies, which a model may write to (to normalise its images, say), or empty if they are
        # dictionaries.
        arguments = tuple(each_tensor(value, torch.clone) for value in (given, *self.inputs))
        keywords = each_tensor(self.keywords, torch.clone)
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
        # A user's forward hook registers a hook on a tensor, which then needs gradients.
        try:
            return run_hooked(call, layers, see, gradients=True, mode=mode, enter=enter)
        except RuntimeError as error:
            hooked = [n for n, m in self.model.named_modules() if m._forward_hooks]
            raise ValueError(
                f"one of your forward hooks, on one of {hooked}, registers a hook on a tensor that "
                "needs no gradient; remove it while you explain"
            ) from error

    def followers(self) -> Followers:
        """Return which further inputs have a row for each image, measured at the first use.

        Raises:
            ValueError: the measurement gives no answer.
        """
        if self._measured_followers is None:
            self._measured_followers = self._measure_followers()
        return self._measured_followers

    def _measure_followers(self) -> Followers:
        n = len(self.images)
        choices = possible_followers(self.inputs, self.keywords, n)
        if len(choices) == 1:
            return choices[0]
        # With images and following inputs in another order, each image must keep its scores.
        rows = (
            torch.arange(n - 1, -1, -1, device="cpu")
            if n > 1
            else torch.zeros(2, dtype=torch.int64, device="cpu")
        )
        expected, targets = self.unchanged().scores.detach()[rows], self.fixed_rows(rows)
        images = self.images[rows.to(self.images.device)]
        for followers in choices:
            inputs, keywords = follow(self.inputs, self.keywords, rows, followers, n)
            try:
                part = Probe(self.model, images, inputs, keywords, targets)
                scores = part.run(start=None).scores
            except (RuntimeError, ValueError, IndexError):  # the shapes do not match
                continue
            if scores.shape == expected.shape and torch.allclose(
                scores, expected, rtol=1e-3, atol=1e-5 * expected.abs().amax().item()
            ):
                return followers
        raise ValueError(
            f"cannot tell which of the model's further inputs hold a row for each of the {n} "
            "images: with the images in another order the scores change. Explain the images "
            "one by one"
        )
