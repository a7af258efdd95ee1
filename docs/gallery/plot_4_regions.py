"""
Is the claim true?
==================

Turn "it looks at the mouth" into a number, compare it with chance, and test the score without it.
"""

# %%
# The regions of a face, from a template for crops like these; for other photographs see
# :doc:`/howto/regions`. Look at the outlines before you believe a number.

import torch

import camlens
from camlens import regions
from fer2013.data import photographs
from fer2013.data.faces import CLASSES
from fer2013.networks import weights

model = weights.load()
faces = photographs.packaged()
images = photographs.to_images(faces)
pictures = torch.stack([face.picture for face in faces])
names = [face.name for face in faces]

face = camlens.faces.face_template(48)
features = face.pick("brows", "eyes", "nose", "mouth")
outlined = features.draw(pictures)

layer = "blocks.block3"  # one block before the default; see below
explanation = camlens.GradCAM(model, layer)(images)
heat = camlens.heatmap.resize(explanation.raw, pictures.shape[-2:])
overlaid = features.draw(camlens.overlay(pictures, camlens.heatmap.scale(heat)))
found = [CLASSES[c] for c in explanation.targets[:, 0]]
figure = camlens.sheet(
    torch.cat([outlined, overlaid], dim=1),
    rows=[f"{name}\n{emotion}" for name, emotion in zip(names, found, strict=True)],
    columns=["regions", "Grad-CAM"],
    title="Brows, eyes, nose and mouth",
)

# %%
# ``density`` is a region's share of the heat divided by its share of the area: 1 is what a uniform
# map has. ``excess`` is what the score loses when the region is blurred, beyond what the same blur
# costs on average at random places of the face, and in brackets the share of these places that cost
# less: a region that matters exceeds nearly all of them, an arbitrary one any share.

scores = regions.score(explanation, face)
ablation = camlens.faithfulness.ablate_regions(model, images, face, targets=explanation)
for n, name in enumerate(names):
    print(f"{name}, {found[n]}")
    for r, region in enumerate(face.names):
        density, excess = scores.density[n, 0, r], ablation.excess[n, 0, r]
        exceeds = ablation.exceeds[n, 0, r]
        print(f"  {region:12} density {density:4.1f}   excess {excess:+5.2f} ({exceeds:.0%})")

# %%
# The chart shows what the map claims from left to right, and what the score needs from bottom to
# top. If the claims were true, the points would rise from left to right. ``agreement`` is the rank
# correlation of the two over the regions of a map.

from matplotlib.figure import Figure  # noqa: E402

chart = Figure(figsize=(7.5, 3.4), layout="constrained")
for axes, n in zip(chart.subplots(1, 2, sharey=True), range(2), strict=True):
    x, y = scores.density[n, 0], ablation.excess[n, 0]
    axes.scatter(x, y, color="#0072B2")
    for r, region in enumerate(face.names):
        axes.annotate(region, (x[r], y[r]), (4, 3), textcoords="offset points", fontsize=8)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.margins(x=0.18)
    agreement = regions.agreement(scores, ablation)[n, 0]
    axes.set(
        title=f"{names[n]}, {found[n]}: agreement {agreement:+.2f}", xlabel="density of the heat"
    )
    axes.title.set_fontsize(9)
chart.axes[0].set_ylabel("loss of the score beyond chance")

# %%
# The layer is part of the claim. This is not the default layer: it shows a map that the score
# contradicts, with the second face's heat on one eye. At the default layer, which has cells of the
# same size, that face's heat is on nose, mouth and cheeks:

default = camlens.GradCAM(model)(images)
scores_of_default = regions.score(default, face)
for n, agreement in enumerate(regions.agreement(scores_of_default, ablation)[:, 0]):
    density, names_by_density = scores_of_default.density[n, 0].sort(descending=True)
    hottest = ", ".join(face.names[r] for r in names_by_density[:3])
    print(f"{names[n]}: hottest on {hottest}; agreement {agreement:+.2f}")

# %%
# Two faces are an anecdote, and each has eight points. With 3,589 faces, intervals and corrected
# tests: :doc:`/fer2013`.
#
# An independent reference
# ------------------------
# The density of the nose, by hand.

nose = face.masks[0, face.names.index("nose")]
heatmap = explanation.heatmaps[0, 0]
by_hand = (heatmap * nose).sum() / heatmap.sum() / nose.mean()
print(torch.isclose(by_hand, scores.density[0, 0, face.names.index("nose")]).item())
