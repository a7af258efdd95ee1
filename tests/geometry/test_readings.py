"""Rows and axes of layers are measured: right, or an error, never something else."""

import random

import pytest
import torch
from torch import nn

from camlens import geometry, layouts

from .axes import CONVS, NORMS, POOLS, Shown, read, runner


def patches(side, channels=8):
    return nn.Conv2d(3, channels, side, side)


def sequence(x):
    return x.flatten(2).transpose(1, 2)


def by_windows(maps, v, w):
    """(N, C, h, w) -> (N, windows, cells, C)"""
    cells = maps.unflatten(3, (-1, w)).unflatten(2, (-1, v))
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2, 3)


class Extra(nn.Module):
    """Add tokens before and behind; mix all of them a little."""

    def __init__(self, prefix, suffix, channels=8):
        super().__init__()
        self.before = nn.Parameter(torch.randn(1, prefix, channels))
        self.behind = nn.Parameter(torch.randn(1, suffix, channels))
        self.mix = nn.Linear(channels, channels)

    def forward(self, tokens):
        n = len(tokens)
        all_tokens = [self.before.expand(n, -1, -1), tokens, self.behind.expand(n, -1, -1)]
        tokens = torch.cat(all_tokens, 1)
        return tokens + 0.3 * torch.tanh(self.mix(tokens.mean(1, keepdim=True)))


# --- axes --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("pool", [(2, 1), (1, 2), (4, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("channels", [2, 9, 16, 32])
@pytest.mark.parametrize("size", [(64, 9), (9, 64), (32, 32), (16, 48)])
def test_strides_that_differ_by_axis(pool, channels, size):
    parts = [nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    parts += [nn.AvgPool2d(pool), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(nn.Sequential(*parts, Shown(lambda x: x * 2)))
    grid = tuple(s // p for s, p in zip(size, pool, strict=True))
    for name, reading in read(model, torch.rand(1, 1, *size)).items():
        assert reading.layout is layouts.nchw, (name, reading)
        if name in ("0", "0.6"):
            assert (reading.grid, reading.channels) == (grid, channels)
            # The convolution after the pooling sees all of two rows.
            assert reading.proven or min(grid) < 4


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(8, 8), (4, 8), (8, 3), (2, 2), (5, 1), (1, 5)])
@pytest.mark.parametrize("channels", [1, 2, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 8])
def test_channels_last_whatever_equals_what(grid, channels, n):
    model = nn.Sequential(
        patches(8, channels), Shown(layouts.nchw), Shown(lambda x: x.movedim(1, -1))
    )
    readings = read(model, torch.rand(n, 3, grid[0] * 8, grid[1] * 8), names=["1", "2"])
    assert readings["1"].layout is layouts.nchw
    assert readings["1"].grid == grid
    assert readings["1"].proven
    if channels > 1:
        assert readings["2"].layout is layouts.nhwc, readings["2"]
    maps = readings["2"].layout(torch.rand(n, *grid, channels))
    assert maps.shape == (n, channels, *grid)


@pytest.mark.parametrize(
    "space", [(1, 3), (3, 2), (2, 1)], ids=["channels between", "transposed", "transposed, last"]
)
def test_unusual_arrangements(space):
    channels = ({1, 2, 3} - set(space)).pop()
    order = [0, *(1 if dim == channels else 2 + space.index(dim) for dim in (1, 2, 3))]
    model = nn.Sequential(patches(4), Shown(lambda x: x.permute(order)))
    reading = read(model, torch.rand(2, 3, 32, 48))["1"]
    assert reading.layout == layouts.permuted(0, channels, space)
    assert (reading.grid, reading.channels) == ((8, 12), 8)


@pytest.mark.parametrize(("d", "shape"), [(1, (40,)), (3, (6, 12, 8)), (3, (4, 4, 4))])
@pytest.mark.parametrize("last", [False, True])
def test_signals_and_volumes(d, shape, last):
    move = (lambda x: x.movedim(1, -1)) if last else (lambda x: x + 1)
    model = nn.Sequential(CONVS[d](2, 7, 2, 2), NORMS[d](7), nn.ReLU(), Shown(move))
    reading = read(model, torch.rand(2, 2, *shape), names=["3"])["3"]
    assert reading.layout is (layouts.nhwc if last else layouts.nchw)
    assert (reading.grid, reading.channels) == (tuple(s // 2 for s in shape), 7)
    assert reading.proven


@pytest.mark.parametrize("length", [16, 50])
@pytest.mark.parametrize("channels", [1, 4, 16, 50])
def test_signals_as_pictures_of_one_row(length, channels):
    model = nn.Sequential(nn.Conv2d(1, channels, (1, 3), padding=(0, 1)), Shown(torch.tanh))
    reading = read(model, torch.rand(2, 1, 1, length), names=["1"])["1"]
    assert reading.layout is layouts.nchw
    assert reading.grid == (1, length)
    model = nn.Sequential(nn.Conv2d(1, channels, (3, 1), padding=(1, 0)), Shown(torch.tanh))
    reading = read(model, torch.rand(2, 1, length, 1), names=["1"])["1"]
    assert reading.layout is layouts.nchw
    assert reading.grid == (length, 1)


# --- tokens ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(4, 4), (2, 2), (3, 8), (7, 5)])
@pytest.mark.parametrize(("prefix", "suffix"), [(0, 0), (1, 0), (5, 0), (0, 1), (1, 5), (0, 20)])
@pytest.mark.parametrize("n", [1, 3])
def test_tokens_before_and_behind(grid, prefix, suffix, n):
    model = nn.Sequential(patches(8), Shown(sequence), Extra(prefix, suffix))
    reading = read(model, torch.rand(n, 3, grid[0] * 8, grid[1] * 8), names=["2"])["2"]
    assert reading.layout == layouts.tokens(prefix, grid, suffix=suffix)
    assert (reading.grid, reading.channels, reading.proven) == (grid, 8, True)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 4, 16])
@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_tokens_first(n, channels, channels_first, batch_first):
    def arranged(x):
        x = x.flatten(2) if channels_first else x.flatten(2).transpose(1, 2)
        return x if batch_first else x.transpose(0, 1)

    model = nn.Sequential(patches(8, channels), Shown(arranged))
    reading = read(model, torch.rand(n, 3, 32, 32))["1"]
    assert reading.layout == layouts.tokens(
        0, (4, 4), batch_first=batch_first, channels_first=channels_first
    )


@pytest.mark.parametrize("window", [2, 4])
@pytest.mark.parametrize("cells_first", [False, True])
@pytest.mark.parametrize("grid", [(8, 8), (8, 16), (28, 28)])
def test_patches_in_the_order_of_windows(window, cells_first, grid):
    def folded(x):
        cells = by_windows(x, window, window)
        return (cells.transpose(1, 2) if cells_first else cells).flatten(1, 2)

    model = nn.Sequential(patches(4), Shown(folded))
    reading = read(model, torch.rand(2, 3, grid[0] * 4, grid[1] * 4))["1"]
    maps = torch.rand(2, 8, *grid)
    torch.testing.assert_close(reading.layout(folded(maps)), maps)


# --- what is no map ----------------------------------------------------------------------------


@pytest.mark.parametrize("window", [2, 4])
@pytest.mark.parametrize("grid", [(8, 8), (4, 8), (16, 8)])
def test_windows_beside_their_cells(window, grid):
    model = nn.Sequential(
        patches(4, 12), Shown(lambda x: by_windows(x, window, window)), nn.Linear(12, 12), nn.GELU()
    )
    readings = read(model, torch.rand(2, 3, grid[0] * 4, grid[1] * 4))
    if grid[0] == window:
        pytest.skip("a row of windows")
    for name in ("1", "2", "3"):
        assert readings[name].layout is None, readings[name]
        assert f"layer {name!r}" in readings[name].reason
        assert "layout=" in readings[name].reason


@pytest.mark.parametrize("strips", [2, 4, 8])
def test_upright_strips_are_not_read_across(strips):
    model = nn.Sequential(patches(4), Shown(lambda x: by_windows(x, 16, 16 // strips)))
    reading = read(model, torch.rand(2, 3, 64, 64))["1"]
    assert reading.layout is None


@pytest.mark.parametrize("heads", [2, 4, 8])
@pytest.mark.parametrize("grid", [(4, 4), (2, 4)])
def test_heads(heads, grid):
    model = nn.Sequential(
        patches(8, 16),
        Shown(sequence),
        Shown(lambda x: x.unflatten(2, (heads, -1))),
        Shown(lambda x: x.transpose(1, 2)),
        Shown(lambda x: (x @ x.transpose(-1, -2)).softmax(-1)),
    )
    readings = read(model, torch.rand(2, 3, grid[0] * 8, grid[1] * 8))
    assert [readings[name].layout for name in ("2", "3", "4")] == [None] * 3


@pytest.mark.slow
def test_decoded_boxes_of_several_scales():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = nn.ModuleList(nn.Conv2d(3, 6, s, s) for s in (4, 8, 16))

        def forward(self, x):
            return torch.cat([scale(x).flatten(2) for scale in self.scales], 2)

    for turn in (lambda x: x, lambda x: x.transpose(1, 2)):
        model = nn.Sequential(Boxes(), Shown(turn))
        reading = read(model, torch.rand(2, 3, 64, 64), names=["1"])["1"]
        assert reading.layout is None
        assert "tokens in rows" in reading.reason


def test_time_steps_scores_and_vectors():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cnn, self.rnn = nn.Conv2d(1, 8, 3, 2, 1), nn.LSTM(8, 8, batch_first=True)

        def forward(self, x):
            n, t = x.shape[:2]
            return self.rnn(self.cnn(x.reshape(n * t, 1, *x.shape[2:])).mean((2, 3)).view(n, t, 8))

    readings = read(Recurrent(), torch.rand(2, 5, 32, 32))
    assert readings["rnn"].layout is None
    assert "groups(5)" in readings["cnn"].reason
    reading = read(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), torch.rand(2, 3, 4, 4))["1"]
    assert "no spatial dimensions" in reading.reason


# --- rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("window", [2, 4])
def test_windows_in_the_batch(n, window):
    model = nn.Sequential(patches(4), Shown(lambda x: by_windows(x, window, window).flatten(0, 1)))
    reading = read(model, torch.rand(n, 3, 32, 32))["1"]
    assert reading.layout is None
    assert "expected one row for each" in reading.reason
    assert f"groups({64 // window**2})" in reading.reason


@pytest.mark.parametrize("n", [1, 2, 3])
def test_pairs_and_other_inputs(n):
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(3, 8, 3, 2, 1)

        def forward(self, a, b):
            return self.net(torch.cat([a, b]))

    images = torch.rand(n, 3, 16, 16)
    reading = read(Pairs(), images, images.flip(-1), fixed=True)["net"]
    assert reading.layout is None
    assert "layout=" in reading.reason


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("key", [torch.mean, torch.amax, lambda x, _: x[:, 0, 0, 0]])
@pytest.mark.parametrize("size", [16, 80])
def test_rows_in_an_order_that_the_images_decide(n, key, size):
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(3, 8, 4, 4)

        def forward(self, x):
            order = key(x, (1, 2, 3)).argsort()
            return self.net(x[order])[order.argsort()]

    model = nn.Sequential(Sorted(), nn.ReLU())
    readings = read(model, torch.rand(n, 3, size, size), names=["0", "0.net", "1"])
    assert readings["0.net"].layout is None
    # Where the change of an image also changes the order, that shows first.
    reasons = ("depends on what the images show", "changes other rows too")
    assert any(reason in readings["0.net"].reason for reason in reasons)
    assert readings["0"].proven
    assert readings["1"].proven


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_kernel_that_a_network_makes(n, fixed):
    class Maker(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3, 2, 1)
            self.maker = nn.Sequential(
                nn.Linear(8, n * 72), Shown(lambda x: x.view(n, 8, 3, 3)), nn.Tanh()
            )

        def forward(self, x):
            seen = self.body(x)
            return nn.functional.conv2d(seen, self.maker(seen.mean((0, 2, 3))), padding=1)

    reading = read(Maker(), torch.rand(n, 3, 64, 64), fixed=fixed, names=["maker"])["maker"]
    # Of a single image nothing but the cells' places speaks.
    assert reading.layout is None


def test_what_does_not_depend_on_the_images():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.words = nn.Conv2d(3, 8, 3, 2, 1), nn.Embedding(20, 8)
            self.text = nn.LayerNorm(8)

        def forward(self, x, ids):
            return self.image(x).mean((-2, -1)) @ self.text(self.words(ids))[:, -1].T

    readings = read(Text(), torch.rand(2, 3, 32, 32), torch.randint(20, (2, 16)))
    assert readings["image"].layout is layouts.nchw
    assert "does not depend on the images" in readings["text"].reason


def test_shapes_that_depend_on_values_and_layers_that_do_not_run():
    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.chosen = nn.Conv2d(3, 8, 3), nn.Identity()
            self.idle = nn.ReLU()

        def forward(self, x):
            maps = self.net(x)
            return self.chosen(maps.flatten()[maps.flatten() > 0])

    model = Chosen().eval()
    kinds = {"net": nn.Conv2d, "chosen": nn.Identity, "idle": nn.ReLU}
    readings = geometry.measure(
        runner(model), ["chosen", "idle"], torch.rand(2, 3, 9, 9), kinds=kinds
    )
    assert "another shape for changed images" in readings["chosen"].reason
    assert "did not run" in readings["idle"].reason


# --- where cells look everywhere -----------------------------------------------------------------


def test_global_tokens_are_read_as_earlier_ones_of_the_same_shape():
    class Global(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.extra = patches(8), Extra(1, 0)
            self.last = Shown(lambda x: x.mean(1, keepdim=True).sigmoid().expand_as(x) * 1.5)

        def forward(self, x):
            return self.last(self.extra(sequence(self.patches(x))))

    reading = read(Global(), torch.rand(2, 3, 32, 48), names=["last"])["last"]
    assert reading == geometry.Reading(layouts.tokens(1, (4, 6)), 8, (4, 6), proven=False)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.LayerNorm])
def test_global_maps_are_read_as_the_kind_of_module_says(kind):
    everywhere = Shown(lambda x: x.mean((2, 3), keepdim=True).expand_as(x) + x.sum() * 0)
    last = nn.Conv2d(8, 8, 1) if kind is nn.Conv2d else nn.LayerNorm(8)
    turn = Shown(lambda x: x if kind is nn.Conv2d else x.movedim(1, -1))
    reading = read(nn.Sequential(patches(8), everywhere, turn, last), torch.rand(1, 3, 32, 48))["3"]
    assert reading.layout is (layouts.nchw if kind is nn.Conv2d else layouts.nhwc)
    assert (reading.grid, reading.proven) == ((4, 6), False)


def test_a_dead_layer_is_measured_on_noise():
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    nn.init.constant_(conv.weight, -1.0)
    images = 5 + torch.rand(2, 3, 64, 64)  # all units are off, and stay off
    model = nn.Sequential(conv, nn.ReLU(), Shown(torch.exp))
    reading = read(model, images, names=["2"])["2"]
    assert reading.layout is None or reading.layout is layouts.nchw
    model = nn.Sequential(conv, nn.Threshold(-130, -130), Shown(torch.tanh))
    assert read(model, images, names=["1"])["1"].layout is layouts.nchw


# --- how it is measured --------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "size"), [(1, (5000,)), (2, (64, 64)), (3, (16, 16, 16))])
def test_price(d, size):
    model = nn.Sequential(CONVS[d](1, 4, 2, 2), nn.ReLU()).eval()
    rows = []

    def run(images, names):
        rows.append(len(images))
        return runner(model)(images, names)

    kinds = {"0": CONVS[d], "1": nn.ReLU}
    readings = geometry.measure(run, ["1", "0"], torch.rand(5, 1, *size), kinds=kinds)
    assert list(readings) == ["1", "0"]
    assert rows == [2] * (3 + 2 * d)


def test_the_same_result_every_time_and_nothing_else_changed():
    model = nn.Sequential(patches(4), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    images = torch.rand(3, 3, 32, 32)
    before = images.clone()
    state = torch.get_rng_state()
    first = read(model, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)
    torch.manual_seed(5)
    assert read(model, images) == first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    model = nn.Sequential(
        patches(4), nn.GELU(), nn.Conv2d(8, 6, 3), Shown(lambda x: x.movedim(1, -1))
    )
    reading = read(model.to(dtype), torch.rand(2, 3, 48, 64, dtype=dtype), names=["3"])["3"]
    assert (reading.layout, reading.grid) == (layouts.nhwc, (10, 14))
    assert reading.proven


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 32, 32), torch.full((2, 3, 32, 32), 200.0)])
def test_images_without_contrast(images):
    reading = read(nn.Sequential(patches(4), Shown(lambda x: 2 * x)), images, names=["1"])["1"]
    assert (reading.layout, reading.grid, reading.proven) == (layouts.nchw, (8, 8), True)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_a_fixed_batch(n):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.last = patches(8), Shown(lambda x: sequence(x) + 1)

        def forward(self, x):
            if len(x) != n:
                raise ValueError
            return self.last(self.net(x))

    readings = read(Fixed(), torch.rand(n, 3, 64, 48), fixed=True)
    assert readings["net"].layout is layouts.nchw
    assert readings["last"].layout == layouts.tokens(0, (8, 6))


# --- sweeps --------------------------------------------------------------------------------------


def small_network(rng, d):
    """A random stack of convolutions, and the images that it takes."""
    channels = rng.choice([1, 3])
    size = tuple(rng.randint(4, 16 if d < 3 else 8) for _ in range(d))
    parts, width = [], channels
    for _ in range(rng.randint(1, 4)):
        wider = rng.choice([1, 2, 3, 5, 8])
        kernel = tuple(rng.choice([1, 2, 3, 5]) for _ in range(d))
        padding = tuple(rng.choice([0, k // 2]) for k in kernel)
        parts.append(CONVS[d](width, wider, kernel, rng.choice([1, 1, 2]), padding))
        width = wider
        parts += [NORMS[d](width)] * (rng.random() < 0.4)
        parts += [nn.ReLU(inplace=rng.random() < 0.3)] * (rng.random() < 0.7)
        parts += [POOLS[d](2)] * (rng.random() < 0.2)
    model = nn.Sequential(nn.Sequential(*parts), nn.Flatten()).eval()
    return model, torch.rand(rng.choice([1, 2, 3]), channels, *size)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seeds", [range(20), pytest.param(range(20, 200), marks=pytest.mark.exhaustive)], ids=len
)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_small_random_networks_are_never_refused_or_misread(seeds, d):
    for seed in seeds:
        torch.manual_seed(seed)
        model, images = small_network(random.Random(seed), d)
        try:
            model(images)
        except RuntimeError:  # smaller than a kernel
            continue
        for name, reading in read(model, images).items():
            if name == "1":
                assert reading.layout is None
            elif "does not depend on the images" not in reading.reason:
                assert reading.layout is layouts.nchw, (seed, name, reading, model)


#: Networks of timm, the size of their images, and some of their layers with the right layout.
TIMM = {
    "resnet18": (64, {"layer1": layouts.nchw, "layer3": layouts.nchw, "act1": layouts.nchw}),
    "convnext_tiny": (
        64,
        {"stages.1": layouts.nchw, "stages.1.blocks.0.mlp.fc1": layouts.nhwc},
    ),
    "vit_tiny_patch16_224": (
        64,
        {
            "patch_embed": layouts.tokens(0, (4, 4)),
            "blocks.10": layouts.tokens(1, (4, 4)),
            "blocks.3.attn.q_norm": None,
        },
    ),
    "vit_small_patch14_reg4_dinov2": (98, {"blocks.1": layouts.tokens(5, (7, 7))}),
    "deit_tiny_distilled_patch16_224": (64, {"blocks.11": layouts.tokens(2, (4, 4))}),
    "swin_tiny_patch4_window7_224": (
        112,
        {
            "layers.1": layouts.nhwc,
            "layers.0.blocks.1.attn.qkv": None,
            "layers.0.blocks.1.mlp": layouts.tokens(0, (28, 28)),
            "norm": layouts.nhwc,
        },
    ),
    "hiera_tiny_224": (
        96,
        {
            "blocks.0": layouts.windows((2, 2), (24, 24), levels=3, cells_first=True),
            "blocks.2": layouts.windows((2, 2), (12, 12), levels=2, cells_first=True),
            "blocks.9": layouts.windows((2, 2), (6, 6), cells_first=True),
            "blocks.11": layouts.tokens(0, (3, 3)),
        },
    ),
    "nest_tiny": (224, {"levels.0.transformer_encoder.0": None, "levels.1": layouts.nchw}),
    "coat_lite_tiny": (
        96,
        {
            "serial_blocks1.0": layouts.tokens(1, (24, 24)),
            "serial_blocks4.1.mlp.fc1": layouts.tokens(1, (3, 3)),
        },
    ),
    "maxvit_rmlp_pico_rw_256": (256, {"stages.1": layouts.nchw}),
}


#: Made as they are, and so slow.
WHOLE = ("nest_tiny", "maxvit_rmlp_pico_rw_256")
LARGE = (*WHOLE, "hiera_tiny_224", "swin_tiny_patch4_window7_224")
#: How those are made that do not need the size of their images.
OPTIONS = {
    **{name: {} for name in ("resnet18", *WHOLE)},
    "convnext_tiny": {"depths": (1, 1, 2, 1), "dims": (24, 48, 96, 192)},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.exhaustive] * (n in LARGE)) for n in TIMM],
)
def test_networks_of_timm(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    size, layers = TIMM[name]
    options = dict(OPTIONS.get(name, {"img_size": size}))
    options |= {"depth": 3} if "dinov2" in name else {}
    model = timm.create_model(name, **options).eval()
    for parameter in model.parameters():
        if not parameter.any():  # residual branches that start at zero
            nn.init.normal_(parameter, std=0.02)
    readings = read(model, torch.rand(1, 3, size, size))
    assert {layer: readings[layer].layout for layer in layers} == layers
    for layer, reading in readings.items():
        assert (reading.layout is None) == bool(reading.reason), layer
