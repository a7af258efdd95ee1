"""
Two faces, 23 methods
=====================

Every method is called in the same way and returns the same kind of result. The other four of the
27 methods are for transformers (:doc:`/howto/timm_hugging_face_clip`).
"""

# %%
# The network and the two faces, cut out of their photographs: ``images`` is what the network takes,
# (2, 1, 48, 48), ``pictures`` what a person looks at.

import torch

import camlens
from fer2013.data import photographs
from fer2013.data.faces import CLASSES
from fer2013.networks import weights

model = weights.load()
faces = photographs.packaged()
images = photographs.to_images(faces)
pictures = torch.stack([face.picture for face in faces])
names = [face.name for face in faces]

with torch.no_grad():
    probabilities = model(images).softmax(dim=1)
for name, row in zip(names, probabilities, strict=True):
    best = row.argmax()
    print(f"{name}: {CLASSES[best]}, {row[best]:.0%}")

# %%
# Class activation maps
# ---------------------
# At the network's last block, whose grid is 12 x 12; a white line encloses what has at least half
# of a map's maximum.

layer = "blocks.block4"
explainers = {
    "CAM": camlens.CAM(model, layer),
    "Grad-CAM": camlens.GradCAM(model, layer),
    "Grad-CAM++": camlens.GradCAMPlusPlus(model, layer),
    "HiResCAM": camlens.HiResCAM(model, layer),
    "LayerCAM": camlens.LayerCAM(model, layer),
    "XGrad-CAM": camlens.XGradCAM(model, layer),
    "Eigen-CAM": camlens.EigenCAM(model, layer),
    "EigenGrad-CAM": camlens.EigenGradCAM(model, layer),
    "Ablation-CAM": camlens.AblationCAM(model, layer),
    "Ablation of cells": camlens.AblationCAM(model, layer, ablate="cells"),
    "Layer IG": camlens.LayerIntegratedGradients(model, layer),
}


def enlarged(explanation):
    """Heatmaps at the pictures' size instead of the network's 48 x 48."""
    return camlens.heatmap.scale(camlens.heatmap.resize(explanation.raw, pictures.shape[-2:]))


drawn = []
for explainer in explainers.values():
    heat = enlarged(explainer(images))
    drawn.append(camlens.contours(camlens.overlay(pictures, heat), heat)[:, 0])
columns = torch.stack(drawn, dim=1)  # (faces, methods, 3, H, W)
upper, lower = (
    camlens.sheet(
        columns[:, some],
        rows=names,
        columns=list(explainers)[some],
        title="Class activation maps",
    )
    for some in (slice(6), slice(6, None))
)

# %%
# CAM, Grad-CAM, HiResCAM, XGrad-CAM and layer integrated gradients must be *the same* here: only a
# mean over the grid and a linear layer follow this block, so a channel's gradient is the same at
# every cell (:doc:`/theory/hires_cam`), and a cell contributes exactly what the score loses without
# it. For any other head, CAM raises an error. Eigen-CAM ignores the class.
#
# Concepts
# --------
# The same block's activations as a sum of a few directions, each with its own map and colour. The
# legend says how the predicted class's score changes without it.

factorize = camlens.DeepFeatureFactorization(model, layer, concepts=4, signed=True)
figure = factorize(images).show(pictures, classes=CLASSES)

# %%
# Gradients with respect to the image
# -----------------------------------
# These maps have the resolution of the network's input. Grey is zero, light is positive, dark is
# negative. LRP distributes the score itself over the pixels, layer by layer.

gradients = {
    "saliency": camlens.Saliency(model),
    "Deconvnet": camlens.Deconvnet(model),
    "guided backprop": camlens.GuidedBackprop(model),
    "guided Grad-CAM": camlens.GuidedGradCAM(model, layer),
    "LRP": camlens.LRP(model),
}
signed = [camlens.render.signed(e(images).gradients)[:, 0] for e in gradients.values()]
figure = camlens.sheet(
    torch.stack(signed, dim=1),
    rows=names,
    columns=list(gradients),
    title="Gradients, and relevance, by the image",
    scale=4,
)

full = camlens.FullGrad(model)(images)
gap = full.measures["completeness_gap"].flatten()
print(f"FullGrad's gradients miss the score by up to {gap.max():.1f}")

# %%
# FullGrad's gap says that its map leaves something out. Here, it is a constant that is not the bias
# of a layer: the network itself subtracts a mean from the image.

# %%
# Perturbations
# -------------
# These methods use no gradient: they change the image and measure the score. Here they explain
# probabilities, from a softmax after the network. Hidden parts are grey.

likely = torch.nn.Sequential(model, torch.nn.Softmax(dim=1)).eval()
grey = 0.508  # the mean of the training set
perturbations = {
    "Occlusion": camlens.Occlusion(likely, window=8, stride=2, baseline=grey),
    "RISE": camlens.RISE(likely, masks=1000, center=True, baseline=grey),
    "Score-CAM": camlens.ScoreCAM(likely, f"0.{layer}"),
}
explanations = [explainer(images) for explainer in perturbations.values()]
drawn = []
for explanation in explanations:
    heat = enlarged(explanation)
    drawn.append(camlens.contours(camlens.overlay(pictures, heat), heat)[:, 0])
figure = camlens.sheet(
    torch.stack(drawn, dim=1),
    rows=names,
    columns=list(perturbations),
    title="Three kinds of perturbations",
)

# %%
# RISE is a mean over random masks, and says how far chance has moved each pixel.

rise = explanations[1]
error = rise.measures["standard_error"]
print(f"standard error: {error.mean() / rise.raw.max():.2f} of the maximum")

# %%
# Paths
# -----
# Averages of gradients: along the line from a grey image, from other images, and over noisy images.

paths = {
    "integrated gradients": camlens.IntegratedGradients(model, baseline=grey, tolerance=0.05),
    "expected gradients": camlens.ExpectedGradients(model, images.flip(0)),
    "SmoothGrad": camlens.SmoothGrad(camlens.Saliency(model)),
}
explanations = [explainer(images) for explainer in paths.values()]
figure = camlens.sheet(
    torch.stack([camlens.render.signed(e.gradients)[:, 0] for e in explanations], dim=1),
    rows=names,
    columns=list(paths),
    title="Three kinds of averages of gradients",
    scale=4,
)
gap = explanations[0].measures["completeness_gap"].flatten()
print(f"integrated gradients add up to the scores' difference within {gap.max():.2f}")

# %%
# An independent reference
# ------------------------
# Grad-CAM in plain PyTorch, by equations 1 and 2 of its paper, without a line of camlens. The head
# after the block begins at ``model.head``.

grid = model.blocks((images - 0.508) / 0.252).detach().requires_grad_()  # (2, 256, 12, 12)
score = model.head(grid).amax(dim=1).sum()  # image n's score depends on image n alone
(slope,) = torch.autograd.grad(score, grid)
by_hand = (slope.mean(dim=(2, 3), keepdim=True) * grid).sum(dim=1).relu()

raw = explainers["Grad-CAM"](images).raw[:, 0]
print(f"largest difference: {(by_hand - raw).abs().max() / raw.max():.0e} of the maximum")
