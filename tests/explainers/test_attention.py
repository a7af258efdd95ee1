"""Explainers of attention, beside the slow way, on the models of four libraries."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

import camlens
from camlens.layers.attention import MeasuredBlocks
from camlens.layers.measurement_cache import MeasuredLayers
from camlens.probe import Probe

from ..families import ATTENTION
from ..nets import Small, flops, small_vit
from .attention_models import MODELS, build
from .attention_reference import Reference

OF_SCORES = [camlens.LeGrad, camlens.GenericAttention]


def scores_of(outputs):
    """Return the (N, K) scores that the targets below select."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    for name in ("logits", "image_embeds", "pooler_output"):
        if (found := getattr(outputs, name, None)) is not None:
            return found
    raise TypeError(type(outputs))


def two(outputs):
    return scores_of(outputs)[:, :2]


def blocks_of(model, images):
    return MeasuredBlocks(MeasuredLayers()).find(Probe(model, images))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_unchanged_are_the_slow_way(name):
    model, images = build(name)
    _, _, prefix, grid = MODELS[name]
    blocks = blocks_of(model, images)
    assert len(blocks.names) == 3
    assert blocks.grid == grid
    assert blocks.places.tolist() == list(range(prefix, prefix + grid[0] * grid[1]))
    assert (blocks.pooling is None) == ("siglip" not in name)
    reference = Reference(model, images, list(blocks.names), scores_of, blocks.tokens.batch)
    weights = read_weights(name, reference, prefix)

    def on_grid(values):
        return torch.stack(values, dim=1)[:, :, prefix:].unflatten(2, grid).detach()

    found = [explainer(model)(images, targets=two) for explainer in ATTENTION]
    expected = [
        on_grid([reference.legrad(k) for k in range(2)]),
        on_grid([reference.generic(k, weights[k]) for k in range(2)]),
        on_grid([reference.rollout(weights[k]) for k in range(2)]),
    ]
    for explanation, maps in zip(found, expected, strict=True):
        assert maps.amax() > 0
        assert_close(explanation.raw, maps, rtol=1e-3, atol=2e-5 * maps.amax().item())
        assert_close(explanation.scores, reference.scores[:, :2].detach(), rtol=1e-4, atol=1e-5)
        assert explanation.layers == blocks.names


def read_weights(name, reference, prefix):
    """Return, for each of two targets, (N, T): with what weights the head reads the tokens."""
    count = reference.count
    plain = torch.zeros(len(reference.images), count)
    if "dinov2" in name and "transformers" in name:  # its head reads both
        weights = []
        for k in range(2):
            (g,) = torch.autograd.grad(
                reference.scores[:, k].sum(), reference.outputs[-1], retain_graph=True
            )
            sizes = g.norm(dim=-1)
            own = sizes[:, 0] / (sizes[:, 0] + sizes[:, prefix:].sum(dim=1))
            each = plain.clone()
            each[:, 0], each[:, prefix:] = own, ((1 - own) / (count - prefix))[:, None]
            weights.append(each)
        return weights
    if name in ("timm deit distilled", "transformers deit"):
        plain[:, : 2 if name.startswith("timm") else 1] = 0.5 if name.startswith("timm") else 1
    elif "mean" in name or name in ("timm beit", "timm eva02", "tokens before images"):
        plain[:, prefix:] = 1 / (count - prefix)
    else:
        plain[:, 0] = 1
    return [plain, plain]


IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("explainer", OF_SCORES)
def test_the_map_is_of_the_score_asked_for(explainer):
    explain = explainer(small_vit())
    maps = explain(IMAGES, targets="all").raw
    assert (maps[:, 0] - maps[:, 1]).abs().amax() > 0.1 * maps.amax()
    doubled = explain(IMAGES, targets=lambda out: 2 * out).raw
    factor = 2
    if explainer is camlens.LeGrad:
        assert_close(doubled, factor * maps)
    rollout = camlens.AttentionRollout(explain.model)(IMAGES, targets="all").raw
    assert_close(rollout, rollout[:, :1].expand_as(rollout))


@pytest.mark.slow
@pytest.mark.parametrize("explainer", OF_SCORES)
def test_texts_are_explained_as_targets(explainer):
    """Cosines with texts encoded once are the scores of a CLIP that encodes them in each call."""
    both, images = build("transformers clip")
    clip, tokens = both.clip, both.tokens
    with torch.no_grad():
        texts = clip.get_text_features(tokens).pooler_output
    target = camlens.targets.text(texts, scale=clip.logit_scale.exp().item())

    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = clip

        def forward(self, images):
            return self.clip.get_image_features(images).pooler_output

    alone = explainer(Images().eval())(images, targets=target)
    together = explainer(both)(images, targets="all")
    assert_close(alone.scores, together.scores, rtol=1e-4, atol=1e-4)
    assert_close(alone.raw, together.raw, rtol=1e-3, atol=1e-5 * together.raw.amax().item())

    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = clip

        def forward(self, images, tokens):
            return self.clip(pixel_values=images, input_ids=tokens).logits_per_image

    given = explainer(Given().eval())(images, tokens, targets="all")
    assert_close(given.raw, together.raw, rtol=1e-3, atol=1e-5 * together.raw.amax().item())


def test_one_gradient_of_the_summed_scores_is_that_of_each_layer():
    """With the graphs of the blocks disjoint; in one graph there are those through later blocks."""
    model, images = build("timm vit")
    names = list(blocks_of(model, images).names)
    apart = Reference(model, images, names, scores_of).legrad(0)
    found = camlens.LeGrad(model)(images, targets=0).raw
    assert_close(found.flatten(1), apart[:, 1:].detach(), rtol=1e-4, atol=1e-7)
    for severed in (True, False):
        reference = Reference(model, images, names, scores_of, severed=severed)
        means = [output.mean(dim=1, keepdim=True).expand_as(output) for output in reference.outputs]
        total = sum(reference.scores_of(tokens)[:, 0].sum() for tokens in means)
        gradients = torch.autograd.grad(total, reference.attention)
        one = torch.stack([g.clamp(min=0).mean(dim=(1, 2)) for g in gradients]).mean(dim=0)
        difference = (one - apart).abs().amax() / apart.amax()
        assert (difference < 1e-6) == severed


def test_the_models_own_pooling_is_an_option():
    model, images = build("timm vit")
    names = list(blocks_of(model, images).names)
    reference = Reference(model, images, names, scores_of)
    maps = []
    for output, attention in zip(reference.outputs, reference.attention, strict=True):
        score = reference.scores_of(output)[:, 2].sum()
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        maps.append(gradient.clamp(min=0).mean(dim=(1, 2)))
    expected = torch.stack(maps).mean(dim=0)[:, 1:]
    found = camlens.LeGrad(model, pool="own")(images, targets=2).raw
    assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match='expected pool "mean" or "own"'):
        camlens.LeGrad(model, pool="class")


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ATTENTION)
def test_the_last_blocks_alone(explainer):
    model, images = build("timm vit")
    named = explainer(model, blocks=["blocks.1", model.blocks[2]])(images, targets=0)
    assert named.layers == ("blocks.1", "blocks.2")
    assert_close(explainer(model, last=2)(images, targets=0).raw, named.raw)
    with pytest.raises(ValueError, match="at most last=3 blocks, got 4"):
        explainer(model, last=4)(images)
    with pytest.raises(ValueError, match="name blocks that follow one another"):
        explainer(model, blocks=["blocks.0", "blocks.2"])(images)
    with pytest.raises(ValueError, match="to make one call of attention"):
        explainer(model, blocks=["blocks"])(images)
    with pytest.raises(ValueError, match="does not support create_graph=True"):
        explainer(model, create_graph=True)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ATTENTION)
def test_checkpointed_blocks_are_explained_or_refused(explainer):
    model, images = build("timm vit")
    expected = explainer(model)(images, targets=two).raw
    model.set_grad_checkpointing(True)
    if explainer is camlens.GenericAttention:  # its gradients pass whole blocks
        with pytest.raises(ValueError, match=r"within torch\.utils\.checkpoint.*switch gradient"):
            explainer(model)(images, targets=two)
        assert_close(
            explainer(model, last=1)(images, targets=two).raw.amax() > 0, torch.tensor(True)
        )
        return
    assert_close(explainer(model)(images, targets=two).raw, expected)


def test_targets_in_chunks_are_the_same(monkeypatch):
    model = small_vit()
    expected = [explainer(model)(IMAGES, targets="all").raw for explainer in ATTENTION]
    for module in ("camlens.explainers.attention.CHUNK_BYTES", "camlens.probe.passes.CHUNK_BYTES"):
        monkeypatch.setattr(module, 1)
    found = [explainer(model)(IMAGES, targets="all").raw for explainer in ATTENTION]
    for maps, whole in zip(found, expected, strict=True):
        assert_close(maps, whole, rtol=1e-4, atol=1e-7)


def test_a_block_on_its_own_has_to_be_named():
    model = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    with pytest.raises(ValueError, match=r"model's only attention is inside each of.*blocks="):
        _ = camlens.LeGrad(model)(IMAGES)
    named = camlens.LeGrad(model, blocks=["encoder.layers.encoder_layer_0"])(IMAGES)
    assert named.raw.amax() > 0


class Shuffled(nn.Module):
    """A block that attends between tokens in another order than it is given."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, tokens):
        return self.block(tokens.flip(1)).flip(1)


REFUSED = {
    "windows": (lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=5), "form 4"),
    "channels": (lambda: timm.create_model("xcit_nano_12_p16_224"), "over channels"),
    "hierarchy": (lambda: timm.create_model("levit_128s"), "form 3 groups"),
    "reduced": (lambda: timm.create_model("pvt_v2_b0"), "also attends in"),
    "none": (lambda: torchvision.models.resnet18(num_classes=5), "no attention was seen"),
    "class attention": (lambda: timm.create_model("cait_xxs24_224"), "1 queries and 197 keys"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_attention_that_is_no_map_from_tokens_to_tokens_is_an_error(name):
    make, text = REFUSED[name]
    model = make().eval()
    with pytest.raises(ValueError, match=rf"(?s){text}.*GradCAM"):
        camlens.LeGrad(model)(torch.rand(1, 3, 224, 224))


@pytest.mark.slow
def test_tokens_in_another_order_and_networks_without_are_errors():
    model, images = build("timm vit")
    model.blocks[1] = Shuffled(model.blocks[1]).eval()
    with pytest.raises(ValueError, match=r"block 'blocks.1' .*reorders the tokens.*GradCAM"):
        camlens.GenericAttention(model)(images)
    with pytest.raises(ValueError, match=r"no attention was seen.*GradCAM"):
        camlens.GenericAttention(Small().eval())(IMAGES)


class Written(nn.Module):
    """A block with two heads whose attention is written out, with the heads where ``kind`` says.

    ``order`` is a function that may reorder the tokens of the values.
    """

    def __init__(self, kind, order=lambda values: values):
        super().__init__()
        self.kind, self.order = kind, order
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, tokens):
        n, count, _ = tokens.shape
        query, key, value = (
            f(tokens).view(n, count, 2, 8) for f in (self.query, self.key, self.value)
        )
        order = {
            "(N * heads, ...)": (0, 2, 1, 3),
            "(heads * N, ...)": (2, 0, 1, 3),
            "(heads, N, ...)": (2, 0, 1, 3),
            "(N, heads, 1, ...)": (0, 2, 1, 3),
        }[self.kind]
        query, key, value = (x.permute(order) for x in (query, key, value))
        folded = query.shape[:2]
        if "*" in self.kind:
            query, key, value = (x.flatten(0, 1) for x in (query, key, value))
        if "1" in self.kind:
            query, key, value = (x.unsqueeze(2) for x in (query, key, value))
        seen = (query @ key.mT).softmax(dim=-1) @ self.order(value)
        seen = seen.reshape(*folded, count, 8)
        seen = seen.transpose(0, 1) if folded[0] != n or "(heads" in self.kind else seen
        return tokens + seen.transpose(1, 2).flatten(2)


class Blocks(nn.Module):
    """Three blocks of ``kind``; ``head`` combines the patches, the blocks' tokens, and the head."""

    def __init__(self, kind="(N * heads, ...)", head=lambda patches, each, out: out(each[-1])):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.blocks = nn.ModuleList([Written(kind) for _ in range(3)])
        self.out, self.combine = nn.Linear(16, 5), head

    def forward(self, images):
        each = [self.patches(images).flatten(2).mT]
        for block in self.blocks:
            each.append(block(each[-1]))
        pooled = [tokens.mean(dim=1) for tokens in each]
        return self.combine(pooled[0], pooled[1:], self.out)


class OneBlock(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.patches, self.block, self.out = nn.Conv2d(3, 16, 8, 8), block, nn.Linear(16, 5)

    def forward(self, images):
        return self.out(self.block(self.patches(images).flatten(2).mT).mean(dim=1))


@pytest.mark.parametrize("explainer", ATTENTION)
@pytest.mark.parametrize("count", [1, 3])
def test_values_in_another_order_are_an_error(explainer, count):
    model = Blocks().eval() if count == 3 else OneBlock(Written("(N * heads, ...)")).eval()
    options = {} if count == 3 else {"blocks": ["block"]}
    assert explainer(model, **options)(IMAGES, targets=1).evidence.all()
    block = model.blocks[2] if count == 3 else model.block
    block.order = lambda values: values.roll(1, dims=-2)
    with pytest.raises(ValueError, match=r"value 5: .*reorders the tokens.*GradCAM"):
        explainer(model, **options)(IMAGES, targets=1)


@pytest.mark.parametrize("explainer", ATTENTION)
def test_tokens_that_the_only_block_reorders_are_an_error(explainer):
    model = OneBlock(Shuffled(Written("(N * heads, ...)"))).eval()
    with pytest.raises(ValueError, match=r"'block'.*reorders the tokens.*GradCAM"):
        explainer(model, blocks=["block"])(IMAGES, targets=1)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ATTENTION)
@pytest.mark.parametrize("images", [1, 2, 3])
def test_heads_before_the_images_are_an_error(explainer, images):
    images = torch.randn(images, 3, 32, 32)
    model = Blocks().eval()
    batch = explainer(model)(images, targets=1).raw
    single = [explainer(model)(image[None], targets=1).raw for image in images]
    assert_close(batch, torch.cat(single))
    with pytest.raises(ValueError, match=r"attention of the others .*'blocks\.0'.*GradCAM"):
        explainer(Blocks("(heads * N, ...)").eval())(images, targets=1)
    with pytest.raises(ValueError, match=r"'blocks\.0'.*GradCAM"):
        explainer(Blocks("(heads, N, ...)").eval())(images, targets=1)
    with pytest.raises(ValueError, match=r"expected the attention .* \(N, heads, tokens"):
        explainer(Blocks("(N, heads, 1, ...)").eval())(images, targets=1)


@pytest.mark.parametrize("explainer", ATTENTION)
def test_a_model_of_single_images_is_explained(explainer):
    class Single(Blocks):
        def forward(self, images):
            if len(images) != 1:
                raise RuntimeError("expected a single image")
            return super().forward(images)

    model, image = Single().eval(), torch.randn(1, 3, 32, 32)
    free = Blocks().eval()
    free.load_state_dict(model.state_dict())
    found = explainer(model)(image, targets=1)
    assert_close(found.raw, explainer(free)(image, targets=1).raw)


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ATTENTION)
@pytest.mark.parametrize(
    "head",
    [
        lambda patches, each, out: out(each[0]) + 1e-6 * out(each[-1]),
        lambda patches, each, out: out(patches) + 1e-6 * out(each[-1]),
    ],
)
def test_evidence_that_bypasses_the_blocks_is_an_error(explainer, head):
    model, images = Blocks(head=head).eval(), torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"bypasses the last block 'blocks\.2'.*blocks="):
        explainer(model)(images, targets=1)
    names = [f"blocks.{i}" for i in range(3)]
    assert explainer(model, blocks=names)(images, targets=1).layers == tuple(names)


@pytest.mark.slow
def test_the_cost_over_a_forward_pass():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10).eval()
    nn.init.normal_(model.head.weight)
    images = torch.randn(1, 3, 224, 224)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention on a CPU is not counted
        bare = flops(lambda: model(images))
    limits = {camlens.LeGrad: 1.9, camlens.GenericAttention: 2.15, camlens.AttentionRollout: 1.01}
    for explainer, limit in limits.items():
        explain = explainer(model)
        explain(images)
        assert flops(lambda e=explain: e(images)) < limit * bare
    last = camlens.GenericAttention(model, last=1)
    last(images)
    assert flops(lambda: last(images)) < 1.1 * bare
