"""
One method, every layer
=======================

The same face, the same class, the same method: the picture depends on the layer, and so does what
may be read in it.
"""

# %%
# ``find_layers`` lists what can be explained. The blocks of this network halve the grid twice.

import torch

import camlens
from fer2013.data import photographs
from fer2013.networks import weights

model = weights.load()
faces = photographs.packaged()
images = photographs.to_images(faces)
pictures = torch.stack([face.picture for face in faces])

blocks = [x for x in camlens.find_layers(model, images) if x.name.count(".") == 1]
for block in blocks:
    print(block.name, block.channels, "channels, grid", block.grid)

# %%
# The upper row is the heatmap as it is usually shown, resized bilinearly. The lower row is what was
# computed: one value for each cell.

rows = {"as it is drawn": "bilinear", "as it was computed": "nearest"}
drawn = []
for mode in rows.values():
    row = []
    for block in blocks:
        raw = camlens.LayerCAM(model, block.name)(images[:1]).raw
        heat = torch.nn.functional.interpolate(raw, pictures.shape[-2:], mode=mode)
        row.append(camlens.overlay(pictures[:1], camlens.heatmap.scale(heat))[0, 0])
    drawn.append(torch.stack(row))
figure = camlens.sheet(
    torch.stack(drawn),
    rows=list(rows),
    columns=[f"{block.name}, {block.grid[0]}x{block.grid[1]}" for block in blocks],
    title="LayerCAM at four blocks",
)

# %%
# Early blocks respond to edges and shadows, whatever the class; late ones to larger parts, on fewer
# cells. Neither is the truth about the network: each describes one layer.
#
# Several layers can be fused: each map is divided by its maximum, resized to the finest grid, and
# the mean is taken.

names = ["blocks.block3", "blocks.block4"]
fused = camlens.LayerCAM(model, names)(images[:1])
print(fused)

# %%
# An independent reference
# ------------------------
# The mean of two maps, by hand. They have one grid here, so nothing is resized.

maps = [camlens.LayerCAM(model, name)(images[:1]).raw for name in names]
by_hand = sum(one / one.max() for one in maps) / 2
print(torch.allclose(fused.raw, by_hand, atol=1e-6))
