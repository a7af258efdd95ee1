"""Draw the README's picture: where the evidence is, and whether the network needs it.

.venv/bin/python docs/readme_picture.py [docs/_static/where_and_whether.png]
"""

import sys
from pathlib import Path

import torch
from torch.nn.functional import interpolate

import camlens
from camlens import faithfulness, regions
from camlens.faithfulness import infill
from fer2013.data.faces import CLASSES
from fer2013.data.photographs import SHOWN, packaged, to_images
from fer2013.explanations.pictures import as_pictures
from fer2013.networks import weights

HAPPY = CLASSES.index("happy")


def main(path: Path) -> None:
    """Write the picture, and print the numbers that the README quotes."""
    model = weights.load()
    face = packaged()[1]
    image, photograph = to_images([face]), face.picture.unsqueeze(0)
    explanation = camlens.GradCAM(model, "blocks.block4")(image, targets=HAPPY)
    heat = interpolate(explanation.heatmaps, (SHOWN, SHOWN), mode="bilinear")
    overlay = camlens.overlay(photograph, heat)[0, 0]

    parts = camlens.faces.face_template(image.shape[-1])
    groups = {"mouth and cheeks": ("mouth", "cheeks"), "nose": ("nose",)}
    masks = [parts.pick(*names).masks.amax(dim=-3) for names in groups.values()]
    blurred = regions.Regions(groups, torch.stack(masks, dim=-3))
    changed = infill.replace(image, blurred.masks, "blur")
    with torch.no_grad():
        shown = torch.cat([image, changed[0]])
        before, *after = model(shown).softmax(dim=1)[:, HAPPY].tolist()
    columns = {
        f"photograph:\nhappy {before:.0%}": face.picture,
        "where is the evidence?\nGrad-CAM of happy": overlay,
        **{
            f"{name} blurred:\nhappy {value:.0%}": picture
            for name, value, picture in zip(groups, after, as_pictures(changed[0]), strict=True)
        },
    }
    figure = camlens.sheet(torch.stack(list(columns.values())).unsqueeze(0), columns=list(columns))
    figure.savefig(path, dpi=120)

    density = regions.score(explanation, parts).density[0, 0].tolist()
    ablation = faithfulness.ablate_regions(
        model, image, blurred, targets=explanation, placements=256
    )
    elsewhere = (before - ablation.probability_baseline[0, 0]).tolist()
    hottest = sorted(zip(density, parts.names, strict=True), reverse=True)
    print("hottest first:", *(name for _, name in hottest))
    print(f"photograph: {before:.0%}")
    for name, value, chance in zip(groups, after, elsewhere, strict=True):
        print(f"{name} blurred: {value:.0%}, the same shape at random places: {chance:.0%}")


if __name__ == "__main__":
    main(
        Path(
            sys.argv[1]
            if len(sys.argv) > 1
            else Path(__file__).parent / "_static/where_and_whether.png"
        )
    )
