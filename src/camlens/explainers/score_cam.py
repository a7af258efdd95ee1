"""Score-CAM: channels weighted by the score of the image masked with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

from torch import Tensor, nn

from .. import heatmap
from ..layouts import Layout
from ..methods import perturbation
from ..options import integer
from ..probe import Probe
from ..registration import Registration, place
from ..targets import Selection, probabilities
from .base import Attribution, at_least_float32, without_autocast
from .changed_scores import read_all
from .layer_explainer import LayerExplainer

__all__ = ["ScoreCAM"]


@final
class ScoreCAM(LayerExplainer):
    r"""Score-CAM (Wang et al. 2020): channels weighted by the score of the image masked with them.

    .. math:: L = \mathrm{ReLU}\Big(\sum_c \alpha_c A_c\Big), \quad
              \alpha_c = \frac{e^{f(x \odot H_c)}}{\sum_b e^{f(x \odot H_b)}}

    A is the layer's output, (N, C, *grid), f the explained score, x the image and :math:`H_c`
    channel c at the image's size, scaled to [0, 1]. The whole model runs forward once for each
    channel that is not constant, for any number of targets: 512 passes per image at a layer of 512
    channels.

    Source: Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks", CVPR Workshops 2020 (arXiv:1910.01279), equations 4 to 6 and algorithm 1. As a
    function of tensors: :func:`camlens.methods.perturbation.score_cam`.

    Args:
        model: any module whose output, or part of it, is a score for each image.
        layer: the layer to explain, by name or as a module; the maps of several are averaged. None:
            the default layer.
        weights: ``"paper"``: the softmax of the explained scores over the channels, as above. If
            logits differ by several units, a few channels get all the weight. ``"authors"``: as in
            the authors' code, the probability of the class for each channel's mask, without a
            softmax over the channels; for a model with a single output or a callable target, the
            score itself.
        layout: see :class:`LayerExplainer`.
        registration: see :class:`LayerExplainer`; it also places the masks.
        batch_size: number of masked images in a batch.
        progress: whether to show a progress bar. None: if standard error is a terminal.

    Raises:
        ValueError: an option is unknown or out of range.
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

    def _map(self, probe: Probe, activations: Tensor, registration: Registration) -> Tensor:
        images, channels = probe.images, activations.flatten(2)
        registration = registration.of_grid(tuple(activations.shape[2:]))
        alive = channels.amax(dim=2) > channels.amin(dim=2)  # (N, C)
        source, channel = alive.nonzero(as_tuple=True)

        def make(rows: slice) -> Tensor:
            masks = activations[source[rows], channel[rows]].unsqueeze(1)
            masks = place(masks, registration)
            return images[source[rows]] * perturbation.unit_masks(masks).to(images.dtype)

        k = probe.unchanged().scores.shape[1]
        scores = activations.new_zeros(*alive.shape, k)
        if len(source):
            masked_scores = read_all(
                probe,
                make,
                source,
                self._read,
                batch_size=self.batch_size,
                label=type(self).__name__,
                progress=self._progress,
            )
            scores = scores.index_put((source, channel), masked_scores.to(scores.dtype))
        with without_autocast(images):
            return perturbation.score_cam(
                activations, scores, alive, normalized=self.weights == "paper"
            )

    def _read(self, selection: Selection) -> Tensor:
        logits = selection.logits
        if self.weights == "paper" or selection.class_count < 2 or logits is None:
            return selection.scores
        # Selection.check reports classes out of range.
        classes = selection.classes.clamp(0, selection.class_count - 1)
        return probabilities(logits).gather(1, classes)
