"""The default layer and the list of layers, on small networks whose right answers are known."""

import dataclasses
import types

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from camlens import layouts
from camlens.layers.default_layer import default_layer, on_few_rows, repeats_a_map
from camlens.layers.evidence import Evidence, all_outputs, tensors_in
from camlens.layers.listing import list_layers
from camlens.layers.trace import trace
from camlens.probe import Probe
from camlens.targets import top

from ..nets import Small


@dataclasses.dataclass
class Reading:
    layout: object = None
    channels: int = 0
    grid: tuple = ()
    proven: bool = True
    span: tuple | None = None
    reason: str = "no map"


class Shapes:
    """Readings by shape: (N, C, *grid), and (N, prefix + a square of tokens, C)."""

    def __init__(self, traced, prefix=0, unread=()):
        self.calls = {call.name: call for call in traced.last_calls()}
        self.rows, self.axes = len(traced.scores), len(traced.size)
        self.prefix, self.unread, self.asked = prefix, unread, []

    def __call__(self, names):
        self.asked.append(list(names))
        return {name: self.read(self.calls[name]) for name in names}

    def read(self, call):
        if call.name in self.unread or call.shape[0] != self.rows:
            return Reading(reason=f"layer {call.name!r} is no map")
        if len(call.shape) == self.axes + 2:
            layout = layouts.nchw
        elif len(call.shape) == 3:
            side = round((call.shape[1] - self.prefix) ** 0.5)
            layout = layouts.tokens(self.prefix, (side, side))
        else:
            return Reading(reason=f"layer {call.name!r} is no map")
        _, channels, *grid = layout(torch.empty(call.shape, device="meta")).shape
        return Reading(layout, channels, tuple(grid))


def traced_pass(model, images, *inputs, targets="all", **keywords):
    return trace(Probe(model.eval(), images, inputs, keywords, targets))


def chosen(model, images, *inputs, prefix=0, unread=(), **options):
    traced = traced_pass(model, images, *inputs, **options)
    return default_layer(traced, Shapes(traced, prefix, unread))


def replays(model, name, first, second, score):
    """Whether the first images' output of a layer gives their score with the second images."""
    module, kept = model.get_submodule(name), []

    def run(images, hook=None):
        handle = module.register_forward_hook(hook) if hook else None
        try:
            return score(model(images))
        finally:
            if handle:
                handle.remove()

    def replayed(*_):
        runs.append(1)
        return kept[-1] if len(runs) == len(kept) else None

    runs = []
    with torch.no_grad():
        expected = run(first, lambda *call: kept.append(call[-1]))
        assert not torch.equal(expected, run(second))
        return torch.equal(run(second, replayed), expected)


class Residual(nn.Module):
    """A stem, residual blocks, and a norm as the last map."""

    def __init__(self, blocks=2, norm=True):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 4, 1))
            for _ in range(blocks)
        )
        self.norm = nn.GroupNorm(1, 4) if norm else nn.Identity()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x).mean((-2, -1)))


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize(("norm", "right"), [(True, "norm"), (False, "norm")])
def test_a_residual_branch_is_never_the_default(blocks, norm, right, size):
    model, images = Residual(blocks, norm).eval(), torch.rand(2, 3, *size)
    assert chosen(model, images) == right
    assert replays(model, right, images, torch.rand_like(images), lambda out: out)
    branch = f"blocks.{blocks - 1}"
    assert not replays(model, branch, images, torch.rand_like(images), lambda out: out)


class Transformer(nn.Module):
    """Patches, prefix tokens, blocks; the head reads the first token or the mean."""

    def __init__(self, prefix=1, depth=3, pool="first"):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 8))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
                for _ in range(depth)
            )
        )
        self.norm, self.head, self.pool = nn.LayerNorm(8), nn.Linear(8, 3), pool

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix.expand(len(x), -1, -1), tokens], 1)
        tokens = self.norm(self.blocks(tokens))
        return self.head(tokens[:, 0] if self.pool == "first" else tokens.mean(1))


@pytest.mark.parametrize("prefix", [1, 2, 5])
@pytest.mark.parametrize(("pool", "right"), [("first", "blocks.1"), ("mean", "norm")])
def test_where_only_the_class_token_counts_the_block_before_is_explained(prefix, pool, right):
    model, images = Transformer(prefix, pool=pool).eval(), torch.rand(2, 3, 32, 32)
    assert chosen(model, images, prefix=prefix) == right
    assert replays(model, right, images, torch.rand_like(images), lambda out: out)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: nn.init.zeros_(model.head.weight),  # an untrained head
        lambda model: nn.init.constant_(model.head.bias, 1e9),
        lambda model: None,
    ],
)
@pytest.mark.parametrize("saturate", [lambda out: out, lambda out: (out * 1e9).sigmoid()])
def test_a_score_without_a_gradient_changes_nothing(spoil, saturate):
    model, images = Transformer().eval(), torch.rand(2, 3, 32, 32)
    spoil(model)
    assert chosen(model, images, prefix=1, targets=saturate) == "blocks.1"
    model = Residual().eval()
    spoil(model)
    assert chosen(model, images, targets=saturate) == "norm"


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 1, 1),
        nn.AdaptiveAvgPool2d(8),
        nn.AdaptiveMaxPool2d(3),
        nn.LPPool2d(2, 2),
        nn.FractionalMaxPool2d(2, output_ratio=0.5),
        nn.Upsample(scale_factor=2),
        nn.UpsamplingBilinear2d(scale_factor=2),
        nn.Identity(),
        nn.Dropout(),
        nn.Dropout2d(),
        nn.Sequential(nn.Dropout(), nn.Identity(), nn.MaxPool2d(2)),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_only_pools_or_repeats_a_map_is_passed_over(pool, wrapped):
    class Own(nn.Module):
        def forward(self, x):
            return nn.functional.max_pool2d(x, 2)

    for pooling in (pool, Own()):
        features = [nn.Conv2d(3, 4, 3), nn.ReLU()]
        if wrapped:
            body = [nn.Sequential(*features, pooling)]
        else:
            body = [nn.Sequential(*features), pooling]
        model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        layer = chosen(model, torch.rand(2, 3, 10, 10))
        repeats = isinstance(pooling, (nn.Identity, nn.Dropout, nn.Dropout2d))
        assert layer == ("0" if repeats or not wrapped else "0.1")


def test_a_block_that_shares_its_activation_is_chosen_under_its_own_name():
    class Block(nn.Module):
        activation = nn.SiLU()  # of the class, as in ultralytics: named after the first block

        def __init__(self, before):
            super().__init__()
            self.conv, self.act = nn.Conv2d(before, 4, 3), self.activation

        def forward(self, x):
            return self.act(self.conv(x))

    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    model = nn.Sequential(Block(3), Block(4), *head)
    assert chosen(model, torch.rand(2, 3, 10, 10)) == "1"


def test_modules_that_change_their_input_are_not_taken_for_identities():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(2))
    model(torch.rand(2, 3, 8, 8))
    traced = traced_pass(model, torch.rand(2, 3, 8, 8))
    assert [repeats_a_map(call) for call in traced.calls[:2]] == [False, False]
    assert default_layer(traced, Shapes(traced)) == "1"


@pytest.mark.parametrize("texts", [1, 2, 5])
@pytest.mark.parametrize("targets", [None, 0, "all", top(1)])
def test_a_text_tower_is_never_the_default(texts, targets):
    class ImageAndText(nn.Module):
        def __init__(self):
            super().__init__()
            self.image = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
            self.words, self.text = nn.Embedding(20, 8), nn.LayerNorm(8)

        def forward(self, x, ids):
            return self.image(x).mean((-2, -1)) @ self.text(self.words(ids))[:, -1].T

    model, images = ImageAndText().eval(), torch.rand(2, 3, 16, 16)
    ids = torch.randint(20, (texts, 4))
    traced = traced_pass(model, images, ids=ids, targets=targets)
    assert default_layer(traced, Shapes(traced)) == "image"
    assert [x.name for x in list_layers(traced, Shapes(traced))] == ["image.0", "image.1", "image"]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_default_depends_on_the_head_that_is_explained(heads):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.tops = nn.ModuleList(nn.Conv2d(4, 2, 3) for _ in range(heads))

        def forward(self, x):
            x = self.body(x).relu()
            return {i: top(x).sigmoid().mean((-2, -1)) for i, top in enumerate(self.tops)}

    model, images = Heads().eval(), torch.rand(2, 3, 9, 9)
    for i in range(heads):
        assert chosen(model, images, targets=lambda out, i=i: out[i]) == f"tops.{i}"
    both = chosen(model, images, targets=lambda out: sum(out.values()))
    assert both == ("tops.0" if heads == 1 else "body")


def test_an_auxiliary_output_is_not_on_the_way_to_the_main_one():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.aux, self.head = nn.Conv2d(4, 3, 3), nn.Linear(4, 3)

        def forward(self, x):
            x = self.early(x).relu()
            main = self.head(self.late(x).relu().mean((-2, -1)))
            return main, self.aux(x).sigmoid().mean((-2, -1))

    model, images = Auxiliary().eval(), torch.rand(2, 3, 9, 9)
    assert chosen(model, images, targets=lambda out: out[0]) == "late"
    assert chosen(model, images, targets=lambda out: out[1]) == "aux"
    assert chosen(model, images, targets=lambda out: out[0] + out[1]) == "early"


@dataclasses.dataclass(slots=True)
class Slotted:
    logits: torch.Tensor


class Plain:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize("kind", [Slotted, Plain, types.SimpleNamespace, dict])
def test_outputs_as_objects(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Small()

        def forward(self, x):
            return kind(logits=self.net(x))

    images = torch.rand(2, 3, 8, 8)

    def logits(out):
        return out["logits"] if kind is dict else out.logits

    assert chosen(Net(), images, targets=lambda out: logits(out)[:, 1]) == "net.act"
    (tensor,) = tensors_in(Net().eval()(images))
    assert tensor.shape == (2, 5)


def test_tensors_inside_nested_outputs():
    tensors = [torch.rand(i + 1) for i in range(5)]
    inside = Plain([tensors[1], {"a": (tensors[2], None, "x")}])
    nested = {"first": tensors[0], "rest": (inside, Slotted(tensors[3]), {tensors[4]}, 3)}
    nested["itself"] = nested
    assert sorted(len(t) for t in tensors_in(nested)) == [1, 2, 3, 4, 5]
    scores = all_outputs([torch.rand(2, 3, requires_grad=True), torch.rand(4)], n=2)
    assert scores.shape == (2, 6)
    with pytest.raises(LookupError, match="no output of the model, a list, has a gradient"):
        all_outputs([torch.rand(4)], n=2)


class Segmentation(nn.Module):
    """A backbone, a head of class maps, and what happens to them."""

    def __init__(self, finish, classes=5):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 6, 2, 2))
        self.neck, self.classifier = nn.Conv2d(6, 7, 3, padding=1), nn.Conv2d(7, classes, 1)
        self.finish = finish

    def forward(self, x):
        maps = self.classifier(self.neck(self.backbone(x)).relu())
        return {"out": self.finish(maps, x.shape[2:])}


def resized(maps, size):
    return nn.functional.interpolate(maps, size, mode="bilinear")


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize(
    ("finish", "right"),
    [
        (resized, "neck"),
        (lambda maps, size: resized(maps, size).softmax(1), "neck"),
        (lambda maps, size: maps, "backbone.1"),
        (lambda maps, size: maps.mean((-2, -1)), "classifier"),  # a fully convolutional classifier
    ],
)
def test_a_map_that_shows_the_output_again_is_no_explanation(finish, right, classes):
    model = Segmentation(finish, classes)
    images = torch.rand(2, 3, 32, 48)
    assert (
        chosen(model, images, targets=lambda out: out["out"][:, 0].reshape(2, -1).mean(1)) == right
    )


def test_features_that_a_head_outside_the_model_reads_are_explained():
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 6, 2, 2))
    head = torch.randn(6, 3)
    images = torch.rand(2, 3, 32, 32)
    assert chosen(model, images, targets=lambda out: out.mean((-2, -1)) @ head) == "2"


def test_a_single_cell_that_is_read_is_explained_where_it_looks():
    model = Segmentation(resized)
    model.neck = nn.Sequential(nn.Conv2d(6, 7, 3, padding=1), nn.Conv2d(7, 7, 1))
    images = torch.rand(2, 3, 64, 64)
    traced = traced_pass(model, images, targets=lambda out: out["out"][:, 0, 0, 0])
    evidence, readings = Evidence(traced), Shapes(traced)
    calls = {call.name: call for call in traced.last_calls()}
    cells = {n: evidence.cells_reached(calls[n], layouts.nchw) for n in ("neck", "neck.0")}
    assert cells == {"neck": 1, "neck.0": 1}
    assert default_layer(traced, readings) == "backbone"


class Skipping(nn.Module):
    """A U-Net in small."""

    def __init__(self):
        super().__init__()
        self.outer, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 2, 2)
        self.up, self.last = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 5, 1)

    def forward(self, x):
        outer = self.outer(x).relu()
        return self.last(torch.cat([outer, self.up(self.down(outer))], 1))


def test_no_layer_will_do_and_the_error_says_why():
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(LookupError) as error:
        chosen(Skipping(), images, targets=lambda out: out[:, 1].mean((-2, -1)))
    text = str(error.value)
    assert "no layer is a map of the images (16 x 16) through which all evidence" in text
    assert "'last' (2, 5, 16, 16) has the grid or the channels of the model's own output" in text
    assert "some evidence bypasses 'down' (2, 8, 8, 8), through 'up'" not in text
    assert "some evidence bypasses 'up' (2, 4, 16, 16)" in text
    assert "camlens.GradCAM(model, 'up')" in text
    with pytest.raises(LookupError, match="no module that camlens can hook returns more"):
        chosen(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(2, 3, 2, 2))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(LookupError, match="layer '1' is no map; layer '0' is no map"):
        chosen(model, torch.rand(2, 3, 8, 8), unread=("0", "1"))


@pytest.mark.parametrize("targets", [None, 0, "all", top(2)])
def test_a_map_of_which_each_score_reads_one_cell_is_a_dot(targets):
    class Peaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.top = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)

        def forward(self, x):
            return self.top(self.body(x)).amax((-2, -1))

    assert chosen(Peaks(), torch.rand(2, 3, 12, 12), targets=targets) == "body"


def test_two_ways_from_the_images():
    class Ways(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

        def forward(self, x):
            return self.left(x).relu().mean((-2, -1)) + self.right(x).relu().mean((-2, -1))

    with pytest.raises(LookupError, match=r"bypasses 'right' \(2, 4, 12, 12\), through 'left'"):
        chosen(Ways(), torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (lambda out: out.detach()[:, 1], "the explained scores have no gradient"),
        (lambda out: out.argmax(1).float(), "the explained scores have no gradient"),
        (
            lambda out: torch.ones(2, requires_grad=True) * 2,
            "ends before the images.*; the last layer .* is 'head'",
        ),
    ],
)
def test_scores_cut_off_from_the_images(targets, reason):
    with pytest.raises((LookupError, ValueError), match=reason):
        chosen(Small(), torch.rand(2, 3, 8, 8), targets=targets)


def test_features_cut_off_from_the_images():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.conv(x).detach().mean((-2, -1)))

    with pytest.raises(LookupError, match=r"ends before the images; the last layer .* is 'conv'"):
        chosen(Cut(), torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("head", [True, False])
def test_checkpoints(reentrant, head):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
            self.last = nn.Conv2d(4, 4, 3) if head else nn.Identity()

        def forward(self, x):
            x = checkpoint(self.body, self.stem(x), use_reentrant=reentrant)
            return self.last(x).mean((-2, -1))

    # What runs inside a reentrant checkpoint has no graph: what is made of its result has.
    right = "body" if not head and not reentrant else "last"
    assert chosen(Net(), torch.rand(2, 3, 12, 12)) == right


@pytest.mark.parametrize(
    ("run", "remedy"),
    [
        (lambda body, x: checkpoint(body, x, use_reentrant=True), "use_reentrant=False"),
        (lambda body, x: torch.cat([body(image[None]) for image in x]), r"layout=camlens\.layouts"),
        (lambda body, x: torch.vmap(lambda image: body(image[None])[0])(x), "in torch.vmap"),
    ],
)
def test_bodies_that_cannot_be_read_name_the_remedy(run, remedy):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(run(self.body, x).mean((-2, -1)))

    with pytest.raises(LookupError, match=remedy):
        chosen(Net(), torch.rand(2, 3, 12, 12))


def test_images_before_anything_was_learned_are_no_explanation():
    class Normalise(nn.Module):
        def forward(self, x):
            return (x - 0.5) / 0.2

    class Ways(nn.Module):
        def __init__(self):
            super().__init__()
            self.normalise = Normalise()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

        def forward(self, x):
            x = self.normalise(x)
            return self.left(x).mean((-2, -1)) + self.right(x).mean((-2, -1))

    with pytest.raises(LookupError, match=r"'normalise' .* holds the unchanged images"):
        chosen(Ways(), torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("shape", [(2, 3, 32), (2, 3, 16, 16), (2, 3, 8, 8, 8)])
def test_signals_images_and_volumes(shape):
    conv = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[len(shape)]
    pool = {3: nn.AdaptiveAvgPool1d, 4: nn.AdaptiveAvgPool2d, 5: nn.AdaptiveAvgPool3d}[len(shape)]
    model = nn.Sequential(conv(3, 4, 2, 2), nn.ReLU(), pool(2), nn.Flatten(), nn.LazyLinear(2))
    images = torch.rand(shape)
    model(images)
    traced = traced_pass(model, images)
    assert default_layer(traced, Shapes(traced)) == "1"
    listed = {layer.name: layer for layer in list_layers(traced, Shapes(traced))}
    assert listed["1"].grid == tuple(s // 2 for s in shape[2:])
    assert listed["1"].pitch == (2.0,) * (len(shape) - 2)
    assert (listed["1"].type, listed["1"].channels, listed["1"].receptive_field) == (
        "ReLU",
        4,
        None,
    )


def test_the_list_says_through_which_layers_all_evidence_passes():
    traced = traced_pass(Residual(), torch.rand(2, 3, 16, 16))
    listed = {layer.name: layer.all_evidence for layer in list_layers(traced, Shapes(traced))}
    inside = {f"blocks.{i}{part}": False for i in (0, 1) for part in (".0", ".1", ".2", "")}
    assert listed == {"stem": True, **inside, "norm": True}
    traced = traced_pass(Transformer(depth=2), torch.rand(2, 3, 32, 32))
    listed = {x.name: x.all_evidence for x in list_layers(traced, Shapes(traced, prefix=1))}
    assert [listed[n] for n in ("blocks.0", "blocks.1", "norm")] == [True, False, False]


def test_the_list_measures_places_if_asked():
    place = types.SimpleNamespace(pitch=(3.5, 3.5), receptive_field=(9.0, 8.0))
    traced = traced_pass(Small(), torch.rand(2, 3, 8, 8))
    (*_, last) = list_layers(traced, Shapes(traced), lambda name, reading: place)
    assert (last.pitch, last.receptive_field, last.proven) == ((3.5, 3.5), (9.0, 8.0), True)


@pytest.mark.parametrize("rows", [2, 8])
def test_a_kernel_that_a_parametrization_makes_is_no_layer(rows):
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    traced = traced_pass(nn.Sequential(conv, nn.ReLU()), torch.rand(rows, 3, 8, 8), targets=all_of)
    assert [layer.name for layer in list_layers(traced, Shapes(traced))] == ["0", "1"]


def all_of(out):
    return out.flatten(1)


def test_a_search_asks_for_a_few_layers_at_a_time():
    convs = [nn.Conv2d(3 if i == 0 else 4, 4, 1) for i in range(40)]
    traced = traced_pass(
        nn.Sequential(*convs, nn.Flatten(), nn.LazyLinear(2)), torch.rand(2, 3, 4, 4)
    )
    readings = Shapes(traced, unread=[str(i) for i in range(20, 40)])
    assert default_layer(traced, readings) == "19"
    assert [len(names) for names in readings.asked] == [8, 32]


def test_a_search_runs_on_few_rows_and_then_on_all():
    images, seen = torch.rand(5, 3, 4, 4), []

    def attempt(fails_below, images, targets):
        seen.append((len(images), targets if targets is None else len(targets)))
        if len(images) < fails_below:
            raise ValueError(f"takes {fails_below}")
        return len(images)

    assert on_few_rows(lambda x, t: attempt(1, x, t), images, None, cut=True) == 2
    assert on_few_rows(lambda x, t: attempt(5, x, t), images, [0, 1, 2, 3, 4], cut=True) == 5
    assert on_few_rows(lambda x, t: attempt(5, x, t), images, [[0, 1]], cut=False) == 5
    assert on_few_rows(lambda x, t: attempt(1, x, t), images, torch.zeros(1, 2), cut=True) == 2
    assert seen == [(2, None), (2, 2), (5, 5), (5, 1), (2, 1)]
    with pytest.raises(ValueError, match="takes 9") as error:
        on_few_rows(lambda x, t: attempt(9, x, t), images, None, cut=True)
    (note,) = error.value.__notes__
    assert "with 2 of the 5 images, which failed as well" in note
