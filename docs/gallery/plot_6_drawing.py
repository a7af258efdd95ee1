"""
Drawing
=======

Colormaps, transparency, contour lines, several heatmaps a picture, and what a map without evidence
looks like.
"""

# %%
import torch

import camlens
from fer2013.data import photographs
from fer2013.data.faces import CLASSES
from fer2013.networks import weights

model = weights.load()
face = photographs.packaged()[0]
images, pictures = photographs.to_images([face]), face.picture[None]
explanation = camlens.GradCAM(model, "blocks.block4")(images)
heat = camlens.heatmap.scale(camlens.heatmap.resize(explanation.raw, pictures.shape[-2:]))

drawn = {
    "turbo (default)": camlens.overlay(pictures, heat),
    "viridis": camlens.overlay(pictures, heat, colormap="viridis"),
    "alpha=0.25": camlens.overlay(pictures, heat, alpha=0.25),
    "contour at 0.5": camlens.contours(pictures, heat),
    "lines at 0.3, 0.6, 0.9": pictures,
    "heat only": camlens.overlay(torch.zeros_like(pictures), heat, colormap="inferno", alpha=1.0),
}
lines = pictures
for level in (0.3, 0.6, 0.9):
    lines = camlens.contours(lines, heat, level=level, width=1.0)
drawn["lines at 0.3, 0.6, 0.9"] = lines

figure = camlens.sheet(
    torch.cat([one.view(1, 1, 3, *pictures.shape[-2:]) for one in drawn.values()], dim=1),
    columns=list(drawn),
    title="One heatmap, six ways to show it",
)

# %%
# *turbo* is easy to tell apart, but its brightness does not rise with the value. For print in
# grey, or for readers who are colour-blind, take *viridis* or *inferno*, or contour lines.
#
# No evidence
# -----------
# A map without positive values is zero, and its ``evidence`` is False, as for Grad-CAM of "fear" in
# a happy face at an early block. An overlay of zero is a dark veil that looks like a little heat
# everywhere, so show the plain picture instead.

other = photographs.packaged()[1]
empty = camlens.GradCAM(model, "blocks.block1")(
    photographs.to_images([other]), targets=CLASSES.index("fear")
)
print("evidence:", empty.evidence.item(), " largest value:", empty.heatmaps.max().item())

pictures = other.picture[None]
veil = camlens.overlay(pictures, empty.heatmaps)
plain = veil.where(empty.evidence[:, :, None, None, None], pictures[:, None])
figure = camlens.sheet(
    torch.cat([veil, plain], dim=1),
    columns=["overlay of zero", "better"],
    title="A map without evidence",
)

# sphinx_gallery_thumbnail_number = 2
