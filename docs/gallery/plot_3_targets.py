"""
All classes from one forward pass
=================================

What speaks for each of seven emotions in a face, and for one emotion *rather than* another.
"""

# %%
# Eileen Collins smiles. ``targets="all"`` explains every class from one forward pass.

import torch

import camlens
from fer2013.data import photographs
from fer2013.data.faces import CLASSES
from fer2013.networks import weights

model = weights.load()
face = photographs.packaged()[1]
images, picture = photographs.to_images([face]), face.picture[None]
explainer = camlens.GradCAM(model, "blocks.block3")

explanation = explainer(images, targets="all")
print(explanation)

# %%
# The second row has the scores. Each map is divided by *its own* maximum: "disgust" glows as
# brightly as "happy", whose score is far above it.


def drawn(explanation):
    heat = camlens.heatmap.resize(explanation.raw, picture.shape[-2:])
    heat = camlens.heatmap.scale(heat)
    shown = camlens.contours(camlens.overlay(picture, heat), heat)
    nothing = ~explanation.evidence[:, :, None, None, None]
    return shown.where(~nothing, picture[:, None])  # without evidence: the plain photograph


labels = [
    f"{name}\n{score:+.1f}"
    for name, score in zip(CLASSES, explanation.scores[0].tolist(), strict=True)
]
figure = camlens.sheet(drawn(explanation), columns=labels, title="Seven emotions and their scores")

# %%
# Why this class rather than that one?
# ------------------------------------
# A function of the output says what to explain: here differences of two scores.

happy, surprise, neutral = (CLASSES.index(n) for n in ("happy", "surprise", "neutral"))


def rather_than(logits):
    other = torch.stack([logits[:, surprise], logits[:, neutral]], dim=1)
    return logits[:, [happy]] - other  # (N, 2): two scores an image


contrast = explainer(images, targets=rather_than)
figure = camlens.sheet(
    drawn(contrast),
    columns=["rather than\nsurprise", "rather than\nneutral"],
    title="Why happy",
)

# %%
# An independent reference
# ------------------------
# The seven maps in plain PyTorch, with seven backward passes, one after the other.

early = model.blocks[:3]((images - 0.508) / 0.252).detach().requires_grad_()  # (1, 128, 12, 12)
logits = model.head(model.blocks[3](early))
maps = []
for score in logits[0]:
    (slope,) = torch.autograd.grad(score, early, retain_graph=True)
    maps.append((slope.mean(dim=(2, 3), keepdim=True) * early).sum(dim=1).relu())
by_hand = torch.cat(maps)
error = (by_hand - explanation.raw[0]).abs().max() / by_hand.max()
print(f"largest difference: {error:.0e} of the maximum")

# sphinx_gallery_thumbnail_number = 2
