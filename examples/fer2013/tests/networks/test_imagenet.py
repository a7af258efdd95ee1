"""Weights from torchvision's files: loading, downloading, caching, and damaged files."""

import dataclasses
import functools
import hashlib
import http.server
import os
import threading

import pytest
import torch
import torchvision
from made_up_faces import made_up_faces, write_csv
from safetensors.torch import save_file
from torch import nn

from fer2013.__main__ import main
from fer2013.configurations.recipes import CONFIGS
from fer2013.networks import architectures, imagenet, weights
from fer2013.networks.architectures import EmotionVGG
from fer2013.training.initial_weights import initialise

FILE = "vgg19-dcbb9e9d.pth"
SMALL = (("0", 3, 4), ("2", 4, 4))


class Small(EmotionVGG):
    """Two convolutions and the original head's layers, named as in torchvision's VGG."""

    def __init__(self, head=(32, 6, 6)):
        nn.Module.__init__(self)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        inputs, first, second = head
        self.head = nn.Sequential(
            nn.Linear(inputs, first), nn.ReLU(), nn.Linear(first, second), nn.Linear(second, 7)
        )


def small_state():
    generator = torch.Generator().manual_seed(1)
    shapes = {
        **{f"features.{i}.weight": (o, c, 3, 3) for i, c, o in SMALL},
        **{f"features.{i}.bias": (o,) for i, _, o in SMALL},
        **{"classifier.0.weight": (6, 32), "classifier.0.bias": (6,)},
        **{"classifier.3.weight": (6, 6), "classifier.3.bias": (6,)},
        **{"classifier.6.weight": (1000, 6), "classifier.6.bias": (1000,)},
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_features_and_the_original_head_are_loaded(tmp_path, kind):
    state, path = small_state(), tmp_path / f"weights.{kind}"
    (torch.save if kind == "pth" else save_file)(state, path)
    model = Small()
    last = model.head[3].weight.clone()
    imagenet.load_into(model, "vgg19", path)
    for index in (0, 2):
        assert torch.equal(model.features[index].weight, state[f"features.{index}.weight"])
        assert torch.equal(model.features[index].bias, state[f"features.{index}.bias"])
    assert torch.equal(model.head[0].weight, state["classifier.0.weight"])
    assert torch.equal(model.head[2].bias, state["classifier.3.bias"])
    assert torch.equal(model.head[3].weight, last)  # 7 outputs, not 1000


def test_a_new_head_keeps_its_random_weights(tmp_path):
    torch.save(small_state(), tmp_path / "weights.pth")
    model = Small(head=(5, 8, 8))
    before = {name: x.clone() for name, x in model.head.state_dict().items()}
    imagenet.load_into(model, "vgg19", tmp_path / "weights.pth")
    assert all(torch.equal(x, before[name]) for name, x in model.head.state_dict().items())


@pytest.mark.slow
def test_a_state_dict_of_a_full_vgg19_is_loaded(tmp_path):
    """The features of vgg19, 80 MB."""
    state = torchvision.models.vgg19(weights=None).features.state_dict(prefix="features.")
    torch.save(state, tmp_path / FILE)
    config = dataclasses.replace(CONFIGS["config3"], weights=str(tmp_path / FILE))
    model = architectures.build(config)
    digest = hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest()
    assert initialise(model, config, tmp_path) == {
        "weights_sha256": digest,
        "pretrained_on": FILE,
    }
    for name, value in model.features.state_dict(prefix="features.").items():
        assert torch.equal(value, state[name])
    bn = dataclasses.replace(CONFIGS["config5"], weights=config.weights)
    message = r"weights of vgg19_bn: among its features, 94 tensors are missing.*have another shape"
    with pytest.raises(ValueError, match=message):
        initialise(architectures.build(bn), bn, tmp_path)
    (tmp_path / FILE).unlink()


@pytest.mark.usefixtures("narrow_vgg")
def test_a_file_of_this_package_is_loaded(tmp_path):
    config = CONFIGS["first"]
    assert weights.is_ours(weights.SHIPPED)
    model = architectures.build(config)
    start = dataclasses.replace(config, weights=str(weights.SHIPPED))
    assert initialise(model, start, tmp_path) == {"started_from": weights.read_facts()}
    shipped = weights.load()
    for name, value in model.state_dict().items():
        assert torch.equal(value, shipped.state_dict()[name])
    other = dataclasses.replace(CONFIGS["config3"], weights=start.weights)
    with pytest.raises(ValueError, match=r"weights of another architecture: .* are missing"):
        initialise(architectures.build(other), other, tmp_path)


def test_missing_weights_are_errors(tmp_path):
    base = architectures.build(CONFIGS["first"])
    with pytest.raises(FileNotFoundError, match=r"'base' starts from 'first'.*train first' first"):
        initialise(base, CONFIGS["base"], tmp_path)
    config = dataclasses.replace(CONFIGS["first"], weights="imagenet")
    with pytest.raises(ValueError, match=r"base network has no pretrained weights.*--weights none"):
        initialise(base, config, tmp_path)
    config = dataclasses.replace(CONFIGS["first"], weights=str(tmp_path / "x.pth"))
    with pytest.raises(
        FileNotFoundError, match="expected --weights none, imagenet, pretrain or a file"
    ):
        initialise(base, config, tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        imagenet.load_into(Small(), "vgg19", tmp_path / "x.pth")


def test_damaged_and_foreign_files_are_errors(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "bomb"),)

    path = tmp_path / "x.pth"
    torch.save({"features.0.weight": Bomb()}, path)
    with pytest.raises(ValueError, match=r"could execute code: use torchvision's own file"):
        imagenet.load_into(Small(), "vgg19", path)
    assert not (tmp_path / "bomb").exists()
    torch.save(small_state(), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged|is not a complete weights file"):
            imagenet.load_into(Small(), "vgg19", path)
    path.with_suffix(".safetensors").write_bytes(whole)
    with pytest.raises(ValueError, match="is not a complete weights file"):
        imagenet.load_into(Small(), "vgg19", path.with_suffix(".safetensors"))
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="is not a state dict"):
        imagenet.load_into(Small(), "vgg19", path)


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends a file, or only its first half."""

    def __init__(self, content, whole, *arguments):
        self.content, self.whole = content, whole
        super().__init__(*arguments)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content if self.whole else self.content[: len(self.content) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publish small weights on a local server, complete or cut off."""
    torch.save(small_state(), tmp_path / "published.pth")
    content = (tmp_path / "published.pth").read_bytes()
    servers = []

    def publish(whole):
        handler = functools.partial(Handler, content, whole)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        name = f"vgg19-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        weights_of = type("Weights", (), {"DEFAULT": type("Default", (), {"url": url})})
        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: weights_of)
        return name

    yield publish
    for server in servers:
        server.shutdown()
        server.server_close()


def test_weights_are_downloaded_once(cache, published, monkeypatch):
    name = published(whole=True)
    model = Small()
    imagenet.load_into(model, "vgg19")
    assert torch.equal(model.features[0].weight, small_state()["features.0.weight"])
    assert [p.name for p in cache.iterdir()] == [name]
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    imagenet.load_into(model, "vgg19")


def test_an_interrupted_download_leaves_no_file(cache, published):
    name = published(whole=False)
    message = rf"no ImageNet weights of vgg19: .*{name} does not exist.*--weights FILE"
    with pytest.raises(FileNotFoundError, match=message):
        imagenet.load_into(Small(), "vgg19")
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_an_error(cache, published):
    name = published(whole=True)
    cache.mkdir(parents=True)
    (cache / name).write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"is damaged: its SHA-256 begins with \w{8} instead of"):
        imagenet.load_into(Small(), "vgg19")
    (cache / name).unlink()  # the remedy
    imagenet.load_into(Small(), "vgg19")


@pytest.mark.usefixtures("narrow_vgg")
def test_a_failed_download_is_reported_with_remedies(cache, tmp_path, monkeypatch, capsys):
    write_csv(made_up_faces(training=12, public=1), tmp_path / "fer2013.csv")
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    command = ["train", "config1", "--weights", "imagenet", "--data", str(tmp_path)]
    assert main([*command, "--device", "cpu", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    for part in (
        str(cache / FILE),
        f"https://download.pytorch.org/models/{FILE}",
        "--weights none",
    ):
        assert part in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
    assert not list(cache.iterdir())
