"""Load CLIP models of open_clip as zero-shot classifiers of named classes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from . import weights as weight_files
from .factories import near
from .faults import is_machine_fault
from .loaded_model import LoadedModel
from .transforms import Transform

#: The prompt for a class (Radford et al. 2021, section 3.1.4).
PROMPT = "a photo of a {}."

#: Number of texts encoded at once.
_TEXTS = 64

_SCHEMAS = ("hf-hub:", "local-dir:")

#: The error of open_clip's own tokenizer, which has no such option.
_NO_SUCH_OPTION = (
    "SimpleTokenizer.__init__() got an unexpected keyword argument 'trust_remote_code'"
)


class ZeroShotClassifier(nn.Module):
    """Scores images by the scaled cosine similarity of image features and text features.

    Args:
        visual: maps images (N, C, H, W) to features (N, D), or to a tuple that starts with them.
        texts: (K, D) features of K texts, each of length 1.
        scale: factor of the cosines.
        bias: added to the scaled cosines.
    """

    texts: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, visual: nn.Module, texts: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.visual = visual
        self.register_buffer("texts", texts)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K) scores."""
        features = self.visual(images)
        features = features[0] if isinstance(features, tuple) else features
        return self.scale * normalize(features, dim=-1) @ self.texts.T + self.bias


def load_open_clip(
    name: str,
    weights: str | None = None,
    *,
    classes: Sequence[str] | None,
    trusted_pickle: bool = False,
) -> LoadedModel:
    """Load a CLIP model of open_clip as a zero-shot classifier.

    The score of a class is ``logit_scale * cos(image, text) + logit_bias`` with the text
    :data:`PROMPT`, as open_clip computes it. This function encodes the texts once.

    Args:
        name: open_clip's ``NAME`` or ``NAME/WEIGHTS``, such as
            ``"ViT-B-32/laion2b_s34b_b79k"``; ``hf-hub:NAME``; or a folder that contains
            ``open_clip_config.json``.
        weights: None or ``"default"`` for the weights in the name (which may be omitted if
            open_clip has only one set); the name of other weights; ``"none"`` for random weights;
            or a file.
        classes: names for the prompts.
        trusted_pickle: applies to a file; see :func:`camlens.loading.load_model`.

    Returns:
        A :class:`ZeroShotClassifier` in evaluation mode, with open_clip's transform.

    Raises:
        ImportError: open_clip is not installed.
        LookupError: open_clip has no such model or weights.
        OSError: weights or a tokenizer could not be downloaded, or a file is missing.
        ValueError: there are no classes, a name is empty or occurs twice, a file does not fit, or
            the model has no separate image encoder.
    """
    spec = f"open_clip:{name}"
    names = _checked(classes, spec)
    try:
        open_clip = importlib.import_module("open_clip")
    except ImportError as error:
        raise ImportError(
            f'{spec} needs open_clip: pip install "camlens[open_clip]" ({error})'
        ) from error
    full, tag, file = _parts(open_clip, name, weights)
    random = weights == weight_files.NONE or file is not None
    try:
        with weight_files.tensors_only():
            model, _, transform = open_clip.create_model_and_transforms(
                full,
                pretrained=tag,
                load_weights=not random,
                pretrained_text=not random,
            )
        tokenize = _tokenizer(open_clip, full)
    except (OSError, RuntimeError) as error:  # RuntimeError: could not download
        if isinstance(error, RuntimeError) and "memory" in str(error):
            raise
        raise OSError(
            f"could not get the weights or the tokenizer of {spec} ({error}): download them on a "
            "machine with a network, and pass the file (--weights FILE) or, with its "
            "open_clip_config.json, the folder (open_clip:FOLDER)"
        ) from error
    except Exception as error:  # a damaged file can raise almost anything
        if is_machine_fault(error):
            raise
        raise ValueError(
            f"{spec} is not a model that open_clip {open_clip.__version__} can load "
            f"({type(error).__name__}: {error})"
        ) from error
    if file is not None:
        state = weight_files.read(file, trusted_pickle=trusted_pickle)
        weight_files.fill(model, state, file)
    return LoadedModel(
        model=_classifier(model.eval(), tokenize, names, spec),
        preprocessing=Transform.of(transform, spec),
        classes=names,
    )


def _checked(classes: Sequence[str] | None, spec: str) -> tuple[str, ...]:
    if not classes:
        raise ValueError(
            f"{spec} compares images with texts and has no classes of its own: pass them with "
            "classes=[...] (--classes FILE, one name per line)"
        )
    names = tuple(name.strip() for name in classes)
    for index, name in enumerate(names):
        if not name:
            raise ValueError(f"class {index} of {spec} has no name and so no text to compare with")
        if names.index(name) != index:
            raise ValueError(
                f"the classes {names.index(name)} and {index} of {spec} are both named {name!r}: "
                "their scores would be the same"
            )
    return names


def _parts(open_clip: Any, name: str, weights: str | None) -> tuple[str, str | None, str | None]:
    """Return open_clip's names of the model and of its weights, and a file of weights."""
    own = weights is None or weights == weight_files.DEFAULT
    file = None
    if weights is not None and not own and weight_files.is_file_name(weights):
        file = weights
    folder = Path(name.removeprefix("local-dir:")).expanduser()
    if folder.is_dir() or name.startswith(_SCHEMAS):
        full = f"local-dir:{folder}" if not name.startswith("hf-hub:") else name
        if not own and file is None and weights != weight_files.NONE:
            raise LookupError(
                f"open_clip:{name} has no weights {weights!r}: expected default, none or a file"
            )
        return full, None, file
    bare, _, tag = name.partition("/")
    if bare not in open_clip.list_models():
        raise LookupError(f"open_clip has no model {bare!r}{near(bare, open_clip.list_models())}")
    if file is not None or weights == weight_files.NONE:
        return bare, None, file
    if not own and tag:
        raise LookupError(
            f"open_clip:{name} names weights, and so does {weights!r}: remove one of them"
        )
    tags = open_clip.list_pretrained_tags_by_model(bare)
    tag = tag if own else str(weights)
    if not tag and len(tags) == 1:
        tag = tags[0]
    if tag not in tags:
        said = (
            f"has no weights {tag!r} of {bare}{near(tag, tags)}"
            if tag
            else (f"has several weight sets for {bare}" if tags else f"has no weights of {bare}")
        )
        listed = f"one of {', '.join(tags)} as open_clip:{bare}/WEIGHTS, " if tags else ""
        raise LookupError(f"open_clip {said}; expected {listed}none or a file (--weights)")
    return bare, tag, None


def _tokenizer(open_clip: Any, full: str) -> Any:
    """Return a model's tokenizer without running code that its folder may contain.

    A folder's open_clip_config.json can ask open_clip to pass ``trust_remote_code=True`` to
    transformers; the argument overrides it.
    """
    try:
        return open_clip.get_tokenizer(full, trust_remote_code=False)
    except TypeError as error:
        if str(error) != _NO_SUCH_OPTION:
            raise
    return open_clip.get_tokenizer(full)  # open_clip's own tokenizer, which runs no such code


def _classifier(model: Any, tokenize: Any, names: Sequence[str], spec: str) -> nn.Module:
    prompts = [PROMPT.format(name) for name in names]
    with torch.no_grad():
        texts = torch.cat(
            [
                normalize(model.encode_text(tokenize(prompts[start : start + _TEXTS])), dim=-1)
                for start in range(0, len(prompts), _TEXTS)
            ]
        )
        bias = getattr(model, "logit_bias", None)
        made = ZeroShotClassifier(
            model.visual,
            texts,
            model.logit_scale.detach().exp(),
            torch.zeros(()) if bias is None else bias.detach().clone(),
        ).eval()
        size = model.visual.image_size
        h, w = (size, size) if isinstance(size, int) else size
        trial = torch.linspace(-1, 1, 3 * h * w).view(1, 3, h, w)
        expected = made.scale * normalize(model.encode_image(trial), dim=-1) @ texts.T + made.bias
        if not torch.allclose(made(trial), expected, rtol=1e-4, atol=1e-4):
            raise ValueError(
                f"{spec} does not encode images with its image encoder alone: wrap the model in a "
                "module of your own"
            )
    return made
