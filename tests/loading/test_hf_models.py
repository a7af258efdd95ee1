"""transformers' image classifiers: their own numbers, and what goes wrong says what to do."""

import json

import matplotlib.cbook
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import camlens
from camlens import loading
from camlens.dataset.fingerprint import fingerprint
from camlens.loading import Preprocessing, Transform

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

NAMES = {0: "cat", 1: "dog", 2: "owl"}
PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessor(size={"height": 64, "width": 48}),
    "clip": lambda: transformers.CLIPImageProcessor(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}
    ),
    "convnext": lambda: transformers.ConvNextImageProcessor(
        size={"shortest_edge": 64}, crop_pct=0.875
    ),
    "convnext large": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "lanczos": lambda: transformers.ViTImageProcessor(size={"height": 64, "width": 64}, resample=1),
    "bytes": lambda: transformers.ViTImageProcessor(
        size={"height": 64, "width": 64}, do_rescale=False
    ),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Let nothing ask the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def config():
    return transformers.ViTConfig(
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 64, "image_size": 64, "patch_size": 16},
        **{"id2label": NAMES, "label2id": {name: index for index, name in NAMES.items()}},
    )


@pytest.fixture
def folder(tmp_path):
    """A tiny ViT of random weights with its processor, as ``save_pretrained`` writes them."""
    torch.manual_seed(0)
    path = tmp_path / "vit"
    transformers.ViTForImageClassification(config()).save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(path)
    return path


@pytest.fixture
def photograph(tmp_path):
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        Image.open(file).save(tmp_path / "hopper.png")
    return tmp_path / "hopper.png"


def test_numbers_and_names_are_transformers_own(folder, photograph):
    loaded = loading.load_model(f"hf:{folder}")
    assert loaded.classes == ("cat", "dog", "owl")
    assert loaded.preprocessing_known
    assert not loaded.model.training
    image = loaded.preprocessing.values(loading.read_photograph(photograph))[None]
    pipeline = transformers.pipeline("image-classification", str(folder), device="cpu", top_k=3)
    expected = {row["label"]: row["score"] for row in pipeline(str(photograph))}
    with torch.no_grad():
        scores = loaded.model(image).logits.softmax(dim=1)[0].tolist()
    assert dict(zip(loaded.classes, scores, strict=True)) == pytest.approx(expected, abs=1e-5)
    own = transformers.AutoModelForImageClassification.from_pretrained(folder)
    given = transformers.AutoImageProcessor.from_pretrained(folder)(
        Image.open(photograph), return_tensors="pt"
    )
    with torch.no_grad():
        assert torch.allclose(loaded.model(image).logits, own(**given).logits, atol=1e-5)
    explanation = camlens.Saliency(loaded.model)(image)
    assert torch.allclose(explanation.outputs.softmax(1), torch.tensor([scores]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("size", [(120, 161), (203, 97)])
def test_the_model_gets_what_the_processor_returns(folder, kind, size):
    processor = PROCESSORS[kind]()
    processor.save_pretrained(folder)
    how = loading.load_model(f"hf:{folder}").preprocessing
    picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    expected = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0]).float()
    values, shown = how(picture)
    assert torch.equal(values, expected)
    assert shown.shape == (3, *values.shape[1:])
    known = kind not in ("lanczos", "bytes")
    assert (how.steps is not None) == known
    assert (how.box(size) is not None) == known
    if known:
        assert torch.allclose(
            shown / 255, (values * 0.5 + 0.5) if kind == "vit" else shown / 255, atol=0.01
        )


def test_steps_of_processors(folder):
    steps = loading.load_model(f"hf:{folder}").preprocessing.steps
    assert steps == Preprocessing(
        size=(64, 64), resize=(64, 64), fit="stretch", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    assert steps.box((100, 300)) == (0, 0, 100, 300)
    PROCESSORS["clip"]().save_pretrained(folder)
    steps = loading.load_model(f"hf:{folder}").preprocessing.steps
    assert (steps.size, steps.resize, steps.fit) == ((64, 64), (72, 72), "cover")
    assert steps.interpolation == "bicubic"
    PROCESSORS["convnext"]().save_pretrained(folder)
    steps = loading.load_model(f"hf:{folder}").preprocessing.steps
    assert (steps.size, steps.resize, steps.fit) == ((64, 64), (73, 73), "cover")


def test_models_and_processors_have_fingerprints(folder):
    first, again = (loading.load_model(f"hf:{folder}").preprocessing for _ in range(2))
    assert fingerprint(first) == fingerprint(again)
    models = [loading.load_model(f"hf:{folder}").model for _ in range(2)]
    assert fingerprint(models[0]) == fingerprint(models[1])
    transformers.ViTImageProcessor(
        size={"height": 64, "width": 64}, image_mean=[0.4] * 3
    ).save_pretrained(folder)
    assert fingerprint(loading.load_model(f"hf:{folder}").preprocessing) != fingerprint(first)


def test_without_a_processor_the_preprocessing_is_unknown(folder):
    (folder / "preprocessor_config.json").unlink()
    loaded = loading.load_model(f"hf:{folder}")
    assert not loaded.preprocessing_known
    assert loaded.preprocessing == Preprocessing(size=(64, 64))


def test_weights(folder, tmp_path):
    loaded = loading.load_model(f"hf:{folder}", "none")
    assert loaded.classes is None
    assert isinstance(loaded.preprocessing, Transform)
    with pytest.raises(LookupError, match=r"hf:\S*vit has no weights 'best': expected default"):
        loading.load_model(f"hf:{folder}", "best")
    seven = config()
    seven.num_labels = 7
    trained = transformers.ViTForImageClassification(seven)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    loaded = loading.load_model(f"hf:{folder}", str(tmp_path / "w.safetensors"))
    assert torch.equal(loaded.model.classifier.weight, trained.classifier.weight)
    assert len(loaded.model.classifier.weight) == 7
    assert loaded.classes is None  # the configuration's are of another model


def test_a_pickle_in_the_folder_does_not_run(folder, tmp_path):
    class Sly:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    (folder / "model.safetensors").unlink()
    state = transformers.ViTForImageClassification(config()).state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    loaded = loading.load_model(f"hf:{folder}")
    assert torch.equal(loaded.model.classifier.weight, state["classifier.weight"])
    torch.save({**state, "classifier.bias": Sly()}, folder / "pytorch_model.bin")
    with pytest.raises((ValueError, OSError), match=rf"{folder}"):
        loading.load_model(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_code_in_the_folder_does_not_run(folder, tmp_path):
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    facts = json.loads((folder / "config.json").read_text())
    facts |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=rf"hf:{folder} is not an image classifier"):
        loading.load_model(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_weights_without_a_classifier_are_refused(folder):
    transformers.ViTModel(config()).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"lacks weights of the image classifier, classifier\.b"):
        loading.load_model(f"hf:{folder}")


def test_a_model_of_texts(folder):
    transformers.BertConfig().save_pretrained(folder)
    with pytest.raises(
        ValueError, match=rf"hf:{folder} is not an image classifier that transformers"
    ):
        loading.load_model(f"hf:{folder}")


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = r"could not load hf:a/b: there is no folder a/b, .*pass the folder .*hf:FOLDER"
    with pytest.raises(OSError, match=message):
        loading.load_model("hf:a/b")
    with pytest.raises(OSError, match=message):
        loading.load_model("hf:a/b", "none")


def test_folders_that_are_none(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*absent: expected hf:FOLDER"):
        loading.load_model(f"hf:{tmp_path}/absent")
    with pytest.raises(NotADirectoryError, match=r"model\.safetensors is a file: name the folder"):
        loading.load_model(f"hf:{folder}/model.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no config\.json"):
        loading.load_model(f"hf:{tmp_path}/empty")


def test_names_that_only_number_the_classes(folder):
    facts = json.loads((folder / "config.json").read_text())
    facts["id2label"] = {str(index): f"LABEL_{index}" for index in range(3)}
    (folder / "config.json").write_text(json.dumps(facts))
    assert loading.load_model(f"hf:{folder}").classes is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{}"])
def test_damaged_files(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=rf"{folder}"):
        loading.load_model(f"hf:{folder}")
