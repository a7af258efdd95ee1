"""What the page "Compared with other libraries" says of them, tried on networks of a few layers.

Run it with the libraries' environment: ``.venv-bench/bin/python docs/comparison_facts.py``. What
the page says of metrics is tried by ``benchmarks/test_metric_parity.py``; some are shown here.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import quantus
import torch
from captum.attr import DataLoaderAttribution, FeatureAblation, GuidedBackprop, LayerGradCam
from PIL import Image
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel
from pytorch_grad_cam.metrics.perturbation_confidence import RemoveMostRelevantFirst
from torch import Tensor, nn
from torchcam.explain import explain
from torchcam.methods import GradCAM as TorchcamGradCAM
from torchcam.metrics import ClassificationMetric
from zennit.attribution import Gradient
from zennit.composites import GuidedBackprop as ZennitGuidedBackprop

import camlens


class Functional(nn.Module):
    """A network whose ReLU is a function, ``F.relu``, and no module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(nn.functional.relu(self.conv(images)).mean(dim=(2, 3)))


def network(inplace: bool = False) -> nn.Sequential:
    """Return a convolution, a ReLU and a head, the same at each call."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 3)).eval()


def camlens_map(model: nn.Module, images: Tensor) -> Tensor:
    return camlens.GradCAM(model, "0")(images, targets=0).heatmaps[:, 0]


def captum_map(model: nn.Module, images: Tensor) -> Tensor:
    return LayerGradCam(model, model[0]).attribute(images, 0, relu_attributions=True)[:, 0]


def grad_cam_map(model: nn.Module, images: Tensor) -> Tensor:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model=model, target_layers=[model[0]]) as cam:
        return torch.from_numpy(cam(images, [ClassifierOutputTarget(0)] * len(images)))


def torchcam_map(model: nn.Module, images: Tensor) -> Tensor:
    with TorchcamGradCAM(model, "0") as cam:
        return cam(0, model(images))[0]


def camlens_guided(model: nn.Module, images: Tensor) -> Tensor:
    return camlens.GuidedBackprop(model)(images, targets=0).gradients[:, 0]


def captum_guided(model: nn.Module, images: Tensor) -> Tensor:
    return GuidedBackprop(model).attribute(images, 0)


def grad_cam_guided(model: nn.Module, images: Tensor) -> Tensor:
    guided = GuidedBackpropReLUModel(model, device="cpu")
    return torch.stack([torch.from_numpy(guided(x.clone(), 0)) for x in images.split(1)]).movedim(
        -1, 1
    )


def zennit_guided(model: nn.Module, images: Tensor) -> Tensor:
    first = torch.eye(3)[:1].expand(len(images), -1)
    with Gradient(model=model, composite=ZennitGuidedBackprop()) as attributor:
        return attributor(images, first)[1]


MAPS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "camlens": camlens_map,
    "captum": captum_map,
    "grad-cam": grad_cam_map,
    "torchcam": torchcam_map,
}
GUIDED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "camlens": camlens_guided,
    "captum": captum_guided,
    "grad-cam": grad_cam_guided,
    "zennit": zennit_guided,
}

PACKAGES = {
    "camlens": "camlens",
    "grad-cam": "pytorch_grad_cam",
    "torchcam": "torchcam",
    "captum": "captum",
    "zennit": "zennit",
    "quantus": "quantus",
}
IMPORTS = r"^\s*(?:import|from) (?:{})\b"
#: What the code of a library says that has the thing.
SIGNS = {
    "script": r"^if __name__ *==",
    "command line": IMPORTS.format("argparse|click|typer|fire|docopt"),
    "processes": r"torch\.(distributed|multiprocessing)|torch import .*(distributed|multiproc)|"
    + IMPORTS.format("multiprocessing|concurrent|joblib|ray|dask"),
    "DataParallel": r"DataParallel",
    "Parquet": r"(?i)parquet",
    "page": IMPORTS.format("streamlit|flask|gradio|dash|jinja2|ipywidgets|IPython"),
}


def inplace(images: Tensor) -> None:
    """Explain a convolution that an in-place ReLU follows; the plain ReLU's map is right."""
    print("A convolution with an in-place ReLU behind it: the same map as with a plain one?")
    for name, tool in MAPS.items():
        right, got = tool(network(), images.clone()), tool(network(inplace=True), images.clone())
        print(f"  {name}: {torch.allclose(right, got, atol=1e-5)}")


def functional(images: Tensor) -> None:
    """Compare guided backprop with the plain gradient where the ReLU is a function."""
    torch.manual_seed(0)
    model = Functional().eval()
    plain = camlens.Saliency(model)(images, targets=0).gradients[:, 0]
    print("Guided backprop where the ReLU is F.relu:")
    for name, tool in GUIDED.items():
        got = tool(model, images.clone())
        same = torch.allclose(plain, got.detach(), atol=1e-6)
        print(f"  {name}: {'the plain gradient' if same else 'not the plain gradient'}")


def traces(images: Tensor) -> None:
    """Say what a call leaves behind on the model."""
    print("A call on a frozen model, and one on a model in training mode:")
    for name, tool in {**MAPS, **{f"{k}, guided": v for k, v in GUIDED.items()}}.items():
        model = network().requires_grad_(False)
        try:
            tool(model, images.clone())
            frozen = "works"
        except (RuntimeError, AttributeError, IndexError, ValueError, TypeError) as error:
            frozen = f"{type(error).__name__}: {error}"[:60]
        model = network().train()
        kinds = [type(m).__name__ for m in model.modules()]
        try:
            tool(model, images.clone())
        except ValueError as error:
            mode = f"refused: {error}"[:60]
        else:
            mode = f"mode kept: {model.training}"
        grads = any(p.grad is not None for p in model.parameters())
        same = kinds == [type(m).__name__ for m in model.modules()]
        print(f"  {name}: frozen: {frozen}; {mode}; writes .grad: {grads}; modules kept: {same}")


def no_evidence() -> None:
    """Explain a score against which every cell speaks: is the map empty?"""
    print("A score that nothing speaks for: the largest value of the map")
    model = network()
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].bias.zero_()
        model[4].weight.fill_(-1.0)
    for name, tool in MAPS.items():
        print(f"  {name}: {tool(model, torch.rand(2, 1, 12, 12)).max():.2g}")
    tiny = network()
    with torch.no_grad():
        tiny[4].weight.mul_(1e-9)
    print("Weights of the head times 1e-9: the largest value of the map")
    for name, tool in MAPS.items():
        print(f"  {name}: {tool(tiny, torch.rand(2, 1, 12, 12)).max():.2g}")


def shipped() -> None:
    """Read what comes with each library: commands, insights, and the files with a sign of more."""
    print("What is installed:")
    for name, package in PACKAGES.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            print(f"  {name}: not here")
            continue
        root = Path(spec.origin).parent
        commands = [e.name for e in distribution(name).entry_points if "scripts" in e.group]
        mains = [str(path.relative_to(root)) for path in root.rglob("__main__.py")]
        insights = (root / "insights").exists()
        print(f"  {name} {version(name)}: {commands=} {mains=} {insights=}")
        sources = {path: path.read_text("utf-8") for path in sorted(root.rglob("*.py"))}
        for thing, sign in SIGNS.items():
            found = [p.name for p, text in sources.items() if re.search(sign, text, re.MULTILINE)]
            print(f"    {thing}: {len(found)} of {len(sources)} files {found[:4]}")


def record(images: Tensor) -> None:
    """Explain one image with torchcam's ``explain`` and write what it says of it."""
    print("torchcam.explain:")
    try:
        explain(network().train(), images[:1], target_layer="0")
    except ValueError as error:
        print(f"  training mode refused: {error}")
    model = network().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        picture = Image.new("RGB", images.shape[2:])
        out = explain(model, images[:1], target_layer="0").save(Path(folder, "out"), picture)
        print(f"  frozen parameters, plain image: {sorted(path.name for path in out.iterdir())}")


def whole_data_sets() -> None:
    """Say what torchcam and Captum make of the batches of a data set."""
    model, batches = network(), list(torch.rand(6, 1, 12, 12).split(2))
    print("Whole data sets:")
    with TorchcamGradCAM(model, "0") as cam:
        metric = ClassificationMetric(cam, lambda logits: logits.softmax(-1))
        for batch in batches:
            metric.update(batch.clone().requires_grad_())
    print(f"  torchcam, metrics: {metric.summary()}")
    mean = DataLoaderAttribution(FeatureAblation(model)).attribute(
        [[batch] for batch in batches],  # as a DataLoader of a TensorDataset gives them
        feature_mask=(torch.arange(144).view(1, 1, 12, 12) // 72,),
        to_metric=lambda scores: scores[:, 0].mean().view(1),
    )
    print(f"  captum, ablation of the mean score: one map for all, {tuple(mean[0].shape)}")
    try:
        DataLoaderAttribution(LayerGradCam(model, model[0]))
    except AssertionError as error:
        print(f"  captum, Grad-CAM: {error}")


def metrics() -> None:
    """Say what metrics make of ties, of an empty mask, of colour and of several batches."""
    print("Metrics:")
    torch.manual_seed(0)
    sparse = torch.zeros(16, 16)
    sparse[4:8, 4:8] = torch.rand(4, 4)
    masks: list[Tensor] = []
    remover = RemoveMostRelevantFirst(90, lambda image, mask: masks.append(mask) or image)
    remover(torch.zeros(1, 16, 16), sparse)
    print(f"  grad-cam, ROAD, 10% of a map with zeros: {int((masks[0] == 0).sum())} of 256 go")

    def call(metric: quantus.Metric, channels: int, **options: object) -> object:
        model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        images = np.random.default_rng(0).random((6, channels, 12, 12), dtype=np.float32)
        predicted = model(torch.from_numpy(images)).argmax(dim=1).numpy()
        predicted[2:] = (predicted[2:] + 1) % 4  # wrong for four of six
        maps = np.random.default_rng(1).random((6, 1, 12, 12), dtype=np.float32)
        return metric(
            model.eval(), images, predicted, maps, channel_first=True, device="cpu", **options
        )

    try:
        call(quantus.ROAD(percentages=[50]), 3)
    except IndexError as error:
        print(f"  quantus, ROAD of colour images: IndexError: {error}")
    for size in (6, 2):
        found = call(quantus.ROAD(percentages=[1]), 1, batch_size=size)
        print(f"  quantus, ROAD in batches of {size}: {found}")
    nothing = np.zeros((6, 1, 12, 12), dtype=bool)
    print(f"  quantus, empty mask: {call(quantus.PointingGame(), 1, s_batch=nothing)}")


def main() -> None:
    """Print the versions and every fact."""
    warnings.simplefilter("ignore")
    names = ("torch", "camlens", "grad-cam", "torchcam", "captum", "zennit", "quantus")
    print(", ".join(f"{name} {version(name)}" for name in names))
    torch.manual_seed(1)
    images = torch.randn(2, 1, 12, 12)
    inplace(images)
    functional(images)
    traces(images)
    no_evidence()
    record(images)
    whole_data_sets()
    metrics()
    shipped()


if __name__ == "__main__":
    main()
