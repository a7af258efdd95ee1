"""CLIP models as zero-shot classifiers: open_clip's own numbers, and what goes wrong."""

import json

import matplotlib.cbook
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize

import camlens
from camlens import loading
from camlens.dataset.fingerprint import fingerprint
from camlens.loading import Preprocessing

open_clip = pytest.importorskip("open_clip")
pytestmark = pytest.mark.filterwarnings("ignore")  # open_clip's own

CLASSES = ("cat", "dog", "admiral in uniform")
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESSING = {"mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bicubic"}


@pytest.fixture
def folder(tmp_path):
    """A tiny CLIP of random weights, as open_clip keeps models in folders."""
    path = tmp_path / "clip"
    path.mkdir()
    facts = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESSING | {"resize_mode": "shortest"}}
    (path / "open_clip_config.json").write_text(json.dumps(facts))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**MODEL).state_dict(), path / "open_clip_model.safetensors")
    return path


@pytest.fixture
def photograph(tmp_path):
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        Image.open(file).save(tmp_path / "hopper.png")
    return tmp_path / "hopper.png"


def test_scores_are_open_clips(folder, photograph):
    loaded = loading.load_model(f"open_clip:{folder}", classes=CLASSES)
    assert loaded.classes == CLASSES
    assert not loaded.model.training
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    image = transform(Image.open(photograph))[None]
    given, shown = loaded.preprocessing(loading.read_photograph(photograph))
    assert torch.equal(given[None], image)
    assert torch.allclose(shown / 255, (image[0] * 0.3 + 0.4).clamp(0, 1), atol=0.003)
    tokens = open_clip.tokenize([f"a photo of a {name}." for name in CLASSES])
    with torch.no_grad():
        texts = normalize(model.encode_text(tokens), dim=-1)
        cosines = normalize(model.encode_image(image), dim=-1) @ texts.T
        expected = model.logit_scale.exp() * cosines
        assert torch.allclose(loaded.model(image), expected, atol=1e-5)
    explanation = camlens.GradCAM(loaded.model)(image)
    assert explanation.heatmaps.shape == (1, 1, 32, 32)
    assert torch.allclose(explanation.outputs, expected, atol=1e-4)
    assert explanation.layers[0].startswith("visual.")


def test_where_the_input_lies(folder):
    how = loading.load_model(f"open_clip:{folder}", classes=CLASSES).preprocessing
    assert how.steps == Preprocessing(
        size=(32, 32), resize=(32, 32), mean=(0.4,) * 3, std=(0.3,) * 3, interpolation="bicubic"
    )
    assert how.box((100, 300)) == (0, 100, 100, 100)


@pytest.mark.parametrize("mode", ["squash", "longest"])
def test_other_ways_to_resize(folder, mode):
    facts = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESSING | {"resize_mode": mode}}
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    how = loading.load_model(f"open_clip:{folder}", classes=CLASSES).preprocessing
    assert how.box((100, 300)) == {"squash": (0, 0, 100, 300), "longest": None}[mode]


def test_a_preprocessing_has_a_fingerprint(folder):
    first, again = (
        loading.load_model(f"open_clip:{folder}", classes=CLASSES).preprocessing for _ in range(2)
    )
    assert fingerprint(first) == fingerprint(again)


@pytest.mark.slow
def test_weights(folder, monkeypatch):
    file = folder / "open_clip_model.safetensors"
    loaded = loading.load_model(f"open_clip:{folder}", classes=CLASSES)
    again = loading.load_model(f"open_clip:{folder}", str(file), classes=CLASSES)
    assert torch.equal(loaded.model.texts, again.model.texts)
    random = loading.load_model(f"open_clip:{folder}", "none", classes=CLASSES)
    assert not torch.equal(loaded.model.texts, random.model.texts)
    with pytest.raises(LookupError, match=r"has no weights 'best': expected default, none or a"):
        loading.load_model(f"open_clip:{folder}", "best", classes=CLASSES)
    with pytest.raises(FileNotFoundError, match=r"there is no file absent\.safetensors"):
        loading.load_model(f"open_clip:{folder}", "absent.safetensors", classes=CLASSES)
    save_file({"visual.proj": torch.zeros(64, 16)}, file)
    with pytest.raises(ValueError, match=r"open_clip_model\.safetensors does not fit CLIP"):
        loading.load_model(f"open_clip:{folder}", str(file), classes=CLASSES)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (None, r"open_clip:ViT-B-32 compares images with texts .*--classes FILE"),
        (["cat", " "], r"class 1 of open_clip:ViT-B-32 has no name"),
        (["cat", "dog", "cat"], r"the classes 0 and 2 of open_clip:ViT-B-32 are both named 'cat'"),
    ],
)
def test_wrong_classes(classes, message):
    with pytest.raises(ValueError, match=message):
        loading.load_model("open_clip:ViT-B-32", "none", classes=classes)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("ViT-B-33", None, "open_clip has no model 'ViT-B-33'; did you mean ViT-B-32"),
        ("ViT-B-32", None, r"several weight sets for ViT-B-32; .*openai.* as open_clip:ViT-B-32/"),
        ("ViT-B-32/openay", None, "no weights 'openay' of ViT-B-32; did you mean openai"),
        ("ViT-B-32", "openay", "no weights 'openay' of ViT-B-32; did you mean openai"),
        ("ViT-B-32/openai", "openai", "names weights, and so does 'openai': remove one of them"),
    ],
)
def test_wrong_names(name, weights, message):
    with pytest.raises(LookupError, match=message):
        loading.load_model(f"open_clip:{name}", weights, classes=CLASSES)


def test_without_a_network_it_says_what_to_do(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = r"the weights or the tokenizer of open_clip:ViT-B-32/openai .*--weights FILE"
    with pytest.raises(OSError, match=message):
        loading.load_model("open_clip:ViT-B-32/openai", classes=CLASSES)


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{}", b"{}", b'{"model_cfg": {}}'])
def test_damaged_files(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=rf"{folder}"):
        loading.load_model(f"open_clip:{folder}", classes=CLASSES)


def test_a_pickle_in_the_folder_does_not_run(folder, tmp_path):
    class Sly:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"visual.proj": Sly()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises((OSError, ValueError), match=rf"{folder}"):
        loading.load_model(f"open_clip:{folder}", classes=CLASSES)
    assert not (tmp_path / "ran").exists()


def test_a_folder_cannot_make_its_code_run(folder, tmp_path, monkeypatch):
    """Its open_clip_config.json asks for transformers' trust_remote_code."""
    dynamic = pytest.importorskip("transformers.dynamic_module_utils")
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    ran = tmp_path / "ran"
    text = {"hf_tokenizer_name": "any", "tokenizer_kwargs": {"trust_remote_code": True}}
    facts = {"model_cfg": MODEL | {"text_cfg": MODEL["text_cfg"] | text}}
    facts["preprocess_cfg"] = PREPROCESSING
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    named = {"auto_map": {"AutoTokenizer": ["foreign.Foreign", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    code = f"open({str(ran)!r}, 'w').close()\nclass Foreign: pass\n"
    (folder / "foreign.py").write_text(code)
    with pytest.raises(ValueError, match="trust_remote_code"):
        loading.load_model(f"open_clip:{folder}", classes=CLASSES)
    assert not ran.exists()
