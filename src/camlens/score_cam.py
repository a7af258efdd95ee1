"""Score-CAM: a layer's channels as masks of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

from torch import Tensor, nn

from . import heatmap
from .changed_scores import read_all
from .explainers import Attribution, LayerExplainer, at_least_float32
from .layouts import Layout
from .methods import perturbation
from .options import integer
from .perturbations import exact
from .probe import Probe
from .registration import Registration, place
from .targets import Selection, probabilities

__all__ = ["ScoreCAM"]


@final
class ScoreCAM(LayerExplainer):
    """Score-CAM (Wang et al. 2020), see :func:`camlens.methods.perturbation.score_cam`.

    One forward pass of the whole model for each channel of the layer that is not constant, for
    any number of targets: a model explained at a layer of 512 channels runs 512 times an image.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: see :class:`LayerExplainer`.
        weights: ``"paper"``: the softmax over the channels of the scores that ``targets`` select.
            Of logits that differ by several units it leaves few channels. ``"authors"``: as the
            authors' code does, each channel's probability of the class, without a softmax over the
            channels; of a model with a single output or a callable's score, the score itself.
        layout: see :class:`LayerExplainer`.
        registration: see :class:`LayerExplainer`; masks lie where the cells are drawn.
        batch_size: how many masked images run at once.
        progress: whether a progress bar is shown. None: where standard error is a terminal.
    """

    cost = "F for each channel"

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module | Sequence[str | nn.Module] | None = None,
        *,
        weights: Literal["paper", "authors"] = "paper",
        layout: Layout | None = None,
        registration: Literal["stretched", "measured"] = "stretched",
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> None:
        super().__init__(model, layer, layout=layout, registration=registration)
        if weights not in ("paper", "authors"):
            raise ValueError(f'expected weights "paper" or "authors", got {weights!r}')
        self.weights = weights
        self.batch_size = integer("batch_size", batch_size)
        self._progress = progress

    def attribute(self, probe: Probe) -> Attribution:
        """Run the model once for its activations, and once for each channel."""
        traced = probe.run(sites=self.sites(probe), start=None)
        registration = self.placed(probe, traced)
        maps = [
            self._map(probe, at_least_float32(activations), registration)
            for activations in traced.activations()
        ]
        return self.attribution(probe, traced, heatmap.fuse(maps))

    def _map(self, probe: Probe, activations: Tensor, registration: Registration | None) -> Tensor:
        images, channels = probe.images, activations.flatten(2)
        alive = channels.amax(dim=2) > channels.amin(dim=2)  # (N, C)
        source, channel = alive.nonzero(as_tuple=True)

        def make(rows: slice) -> Tensor:
            some = activations[source[rows], channel[rows]].unsqueeze(1)
            if registration is None or some.shape[2:] != registration.grid:
                some = heatmap.resize(some, probe.size)
            else:
                some = place(some, registration)
            return images[source[rows]] * perturbation.unit_masks(some).to(images.dtype)

        k = probe.unchanged().scores.shape[1]
        scores = activations.new_zeros(*alive.shape, k)
        if len(source):
            found = read_all(
                probe,
                make,
                source,
                self._read,
                batch_size=self.batch_size,
                label=type(self).__name__,
                progress=self._progress,
            )
            scores = scores.index_put((source, channel), found.to(scores.dtype))
        with exact(images):
            return perturbation.score_cam(
                activations, scores, alive, normalized=self.weights == "paper"
            )

    def _read(self, selection: Selection) -> Tensor:
        logits = selection.logits
        if self.weights == "paper" or selection.class_count < 2 or logits is None:
            return selection.scores
        # Selection.check judges the range.
        classes = selection.classes.clamp(0, selection.class_count - 1)
        return probabilities(logits).gather(1, classes)
