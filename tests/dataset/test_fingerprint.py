"""What decides numbers is told apart, and has the same fingerprint in every process."""

import collections
import functools
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

from camlens import GradCAM, GradientAttribution, SmoothGrad, layouts
from camlens.dataset.descriptions import (
    describe,
    describe_dataset,
    describe_explainer,
    describe_model,
    describe_modes,
)
from camlens.dataset.fingerprint import Walk, fingerprint, used_code

from ..families import ATTENTION, EVERY, made
from ..nets import Small, small_vit
from .made import HALVES, net


class Holder:
    """Hold a value in a public, private or slotted attribute."""

    def __init__(self, value, name="value"):
        setattr(self, name, value)

    def __call__(self, images):
        return images

    def method(self, images):
        return images


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Keeper(nn.Module):
    """Hold a value as a module does: as a buffer, in a container, privately, in a hook."""

    def __init__(self, value, kind):
        super().__init__()
        self.layer = net()
        if kind == "buffer":
            self.register_buffer("value", torch.tensor(value), persistent=False)
        elif kind == "hook":
            self.layer.register_forward_hook(functools.partial(print, value))
        elif kind == "backward hook":
            self.layer.register_full_backward_hook(functools.partial(print, value))
        else:
            values = {"list": [value], "dict": {"a": value}, "array": np.array(value)}
            setattr(self, "_value" if kind == "private" else "value", values.get(kind, value))

    def forward(self, images):
        return self.layer(images)


def of_code(text, name="made", **more):
    """Return the function ``made`` of a text, as if it were in a file of the user's."""
    space = {"__name__": "a_users_file", **more}
    exec(text, space)
    return space[name]


def closed_over(value):
    return lambda x: x + value


def recursive(depth):
    return recursive(depth - 1) if depth else 0


class Called(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Pair(collections.namedtuple("Pair", "a b")):
    pass


PAIRS = {
    "operator": (lambda o: o[:, 0] - o[:, 1], lambda o: o[:, 0] + o[:, 1]),
    "constant": (lambda o: o[:, 0], lambda o: o[:, 1]),
    "compared with": (lambda o: o < 1, lambda o: o <= 1),
    "inner function": (
        of_code("def made(o): return lambda x: x + 1"),
        of_code("def made(o): return lambda x: x + 2"),
    ),
    "attribute name": (lambda o: o.sin(), lambda o: o.cos()),
    "default": (lambda o, k=1: o[:, k], lambda o, k=2: o[:, k]),
    "keyword default": (lambda o, *, k=1: o[:, k], lambda o, *, k=2: o[:, k]),
    "closed-over number": (closed_over(1.0), closed_over(2.0)),
    "closed-over array": (closed_over(np.zeros(3)), closed_over(np.ones(3))),
    "closed-over tensor": (closed_over(torch.zeros(3)), closed_over(torch.ones(3))),
    "closed-over model": (closed_over(net(0)), closed_over(net(1))),
    "closed-over function": (closed_over(torch.relu), closed_over(torch.sigmoid)),
    "set in a constant": (lambda o: o in {"a", "b"}, lambda o: o in {"a", "c"}),
    "partial": (functools.partial(torch.mul, other=2), functools.partial(torch.mul, other=3)),
    "partial of an array": [functools.partial(max, np.full(2, value)) for value in (0, 1)],
    "public attribute": (Holder(0.1), Holder(0.2)),
    "private attribute": (Holder(0.1, "_v"), Holder(0.2, "_v")),
    "slot": (Slotted(0.1), Slotted(0.2)),
    "bound method": (Holder(0.1).method, Holder(0.2).method),
    "set": (Holder({1, 2}), Holder({1, 3})),
    "frozen set": (frozenset("ab"), frozenset("ac")),
    "deque": (collections.deque([1]), collections.deque([2])),
    "named tuple": (Pair(1, 2), Pair(1, 3)),
    "nested containers": ({"a": (1, [2])}, {"a": (1, [3])}),
    "list or tuple": ([1, 2], (1, 2)),
    "whole number or not": ([1], [1.0]),
    "true or one": ([True], [1]),
    "bytes": (b"a", b"b"),
    "regular expression": (re.compile("a" * 300), re.compile("a" * 300 + "b")),
    "a regular expression's flags": (re.compile("a"), re.compile("a", re.IGNORECASE)),
    "shape": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "type": (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
    "bfloat16": (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    "a view": (torch.arange(6).view(2, 3), torch.arange(6).view(3, 2).T),
    "array of objects": (np.array([{"a": 1}], object), np.array([{"a": 2}], object)),
    "generator's state": (torch.Generator(), torch.Generator().manual_seed(7)),
    "numpy's generator": (np.random.default_rng(0), np.random.default_rng(1)),
    "regions": (HALVES, HALVES.pick("right", "left")),
    "library function": (torch.sigmoid, torch.tanh),
    "nested Compose": (
        Holder([Holder([Holder([Holder([Holder([0.0])])])])]),
        Holder([Holder([Holder([Holder([Holder([0.5])])])])]),
    ),
    "a global's value": [of_code("def made(): return X", X=value) for value in (1, 2)],
    "a global function": (
        of_code("def f(): return 1\ndef made(): return f()"),
        of_code("def f(): return 2\ndef made(): return f()"),
    ),
    "a class's code": (
        of_code("class made:\n  def __call__(s, x): return x")(),
        of_code("class made:\n  def __call__(s, x): return -x")(),
    ),
    "a base class's code": (
        of_code("class A:\n  def f(s): return 1\nclass made(A): pass")(),
        of_code("class A:\n  def f(s): return 2\nclass made(A): pass")(),
    ),
    "a class's attribute": (of_code("class made: x = 1"), of_code("class made: x = 2")),
    "a property": (
        of_code("class made:\n  @property\n  def x(s): return 1"),
        of_code("class made:\n  @property\n  def x(s): return 2"),
    ),
    "a static method": (
        of_code("class made:\n  @staticmethod\n  def x(): return 1"),
        of_code("class made:\n  @staticmethod\n  def x(): return 2"),
    ),
    "a decorator": (
        of_code("def d(f): return lambda: f() + 1\n@d\ndef made(): return 1"),
        of_code("def d(f): return lambda: f() + 1\n@d\ndef made(): return 2"),
    ),
    "code of a comprehension": (
        of_code("def made(x): return [a for a in x]"),
        of_code("def made(x): return [-a for a in x]"),
    ),
    "layout": (layouts.tokens(0, (7, 7)), layouts.tokens(1, (7, 7))),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_what_decides_numbers_is_told_apart(kind):
    first, second = PAIRS[kind]
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(Holder([first])) != fingerprint(Holder([second]))


def cached(scale):
    @functools.cache
    def scaled(x):
        return x * scale

    return scaled


#: Found by an adversary: each was once mixed silently.
MORE_PAIRS = {
    "a result of a computation": tuple(
        closed_over(nn.Parameter(torch.tensor([value])) * 1) for value in (1.0, 2.0)
    ),
    "behind a cache": (cached(1.0), cached(2.0)),
    "the order of a dict": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "a docstring that is used": (
        of_code('def made(t):\n  """a"""\n  return t["a"]'),
        of_code('def made(t):\n  """b"""\n  return t["b"]'),
    ),
    "names that callers write": (
        of_code("def made(*, plus, minus): return plus - minus"),
        of_code("def made(*, minus, plus): return minus - plus"),
    ),
    "names of fields": (
        np.zeros(2, dtype=[("a", "f4"), ("b", "f4")]),
        np.zeros(2, dtype=[("b", "f4"), ("a", "f4")]),
    ),
    "dates": tuple(np.array([day], dtype="datetime64[D]") for day in ("2020-01-01", "2020-01-02")),
    "ufuncs": (np.sqrt, np.exp),
    "a default factory": [
        collections.defaultdict(of_code(f"def made(): return {value}")) for value in (1, 2)
    ],
    "a masked array's mask": [np.ma.array([1, 2], mask=mask) for mask in ([0, 1], [1, 0])],
    "what an exception handler covers": (
        of_code(
            "def made(x):\n try:\n  x = a(x)\n  y = b(x)\n  return y\n except ValueError: return 0"
        ),
        of_code(
            "def made(x):\n try:\n  x = a(x)\n except ValueError: return 0\n"
            " else:\n  y = b(x)\n  return y"
        ),
    ),
    "the order of arguments that callers may name": (
        of_code("def made(plus, minus): return plus - minus"),
        of_code("def made(minus, plus): return minus - plus"),
    ),
    "one argument or many": (of_code("def made(x): return x"), of_code("def made(*x): return x")),
    "what deleting a property does": [
        of_code(
            f"class made:\n @property\n def x(s): return 1\n @x.deleter\n def x(s): return {value}"
        )
        for value in (1, 2)
    ],
    "a metaclass": [
        of_code(f"class M(type):\n def __call__(c): return {value}\nclass made(metaclass=M): pass")
        for value in (1, 2)
    ],
}
#: Each defines an instance of a user's subclass of a built-in type, by its code and attribute.
SUBCLASSES = {
    "list": "made = C([1])",
    "dict": "made = C(a=1)",
    "set": "made = C()",
    "tuple": "made = C((1,))",
    "float": "made = C(1.0)",
    "str": "made = C('a')",
    "functools.partial": "made = C(max)",
    "numpy.ndarray": "made = numpy.zeros(2).view(C)",
    "torch.Tensor": "made = torch.zeros(2).as_subclass(C)",
}


@pytest.mark.parametrize("base", SUBCLASSES)
def test_subclasses_of_built_in_types_count_by_their_code_and_attributes(base):
    def instance(sign="+", value=1):
        return of_code(
            f"import functools, numpy, torch\nclass C({base}):\n"
            f" def __call__(self, x): return x {sign} 1\n{SUBCLASSES[base]}\nmade.v = {value}"
        )

    assert fingerprint(instance()) == fingerprint(instance())
    assert len({fingerprint(instance(*a)) for a in (("+", 1), ("-", 1), ("+", 2))}) == 3


def test_enumerations_count_by_their_values_and_code():
    def uses(name, value=0.5, sign="+"):
        return of_code(
            f"import enum\nclass M(enum.Enum):\n MEAN = {value}\n"
            f" def of(self, x): return x {sign} self.value\n"
            "def made(x): return M.MEAN.of(x)\nmember = M.MEAN",
            name=name,
        )

    for name in ("made", "member", "M"):
        assert fingerprint(uses(name)) == fingerprint(uses(name))
        others = ((0.5, "+"), (0.5, "-"), (0.25, "+"))
        assert len({fingerprint(uses(name, *other)) for other in others}) == 3


def test_modules_that_a_function_imports_count_before_it_has_run(tmp_path, monkeypatch):
    package = tmp_path / "imported_late"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    late = of_code("def made(x):\n  from imported_late.means import M\n  return x - M")
    other = of_code("def made(x):\n  from imported_late import means\n  return x - means.M")
    for function in (late, other):
        found = set()
        for mean in (0.0, 0.25):
            (package / "means.py").write_text(f"M = {mean}\n# {'long' * int(8 * mean)}\n")
            importlib.invalidate_caches()
            for name in ("imported_late", "imported_late.means"):
                monkeypatch.delitem(sys.modules, name, raising=False)
            found.add(fingerprint(function))
            assert function(1.0) == 1.0 - mean
            assert fingerprint(function) in found
        assert len(found) == 2


def test_packages_that_a_function_uses_count_by_their_version(monkeypatch):
    function = of_code("import scipy\ndef made(x): return scipy.special.expit(x)")
    before = fingerprint(function)
    used_code.version_of.cache_clear()
    monkeypatch.setattr("scipy.__version__", "0.0.1")
    try:
        assert fingerprint(function) != before
    finally:
        used_code.version_of.cache_clear()


def test_pickling_an_object_does_not_change_its_class():
    instance = of_code(
        "class A:\n def f(self): return 1\nclass made(A):\n def f(self): return super().f()"
    )()
    before = fingerprint(instance.f)
    instance.__reduce_ex__(4)
    assert fingerprint(instance.f) == before


@pytest.mark.parametrize("kind", MORE_PAIRS)
def test_what_was_mixed_is_told_apart(kind):
    first, second = MORE_PAIRS[kind]
    assert fingerprint(first) == fingerprint(first)
    assert fingerprint(first) != fingerprint(second)


def test_an_attribute_called_meta_and_lists_called_hooks_count():
    found = []
    for scale in (1.0, 2.0):
        model = net()
        model.meta = {"scale": scale}
        model.own_hooks = [scale]
        found.append(describe_model(model)["attributes"])
    assert found[0] != found[1]


def test_private_options_of_an_explainer_of_ones_own_count():
    class Mine(GradientAttribution):
        rule = None

        def __init__(self, model, power):
            super().__init__(model)
            self._power = power

    model = net()
    first, second = (describe_explainer(Mine(model, power)) for power in (1.0, 0.25))
    assert first != second


def test_modules_inside_modules_and_imports_in_functions_count(tmp_path, monkeypatch):
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import config\n")
    (package / "config.py").write_text("S = 1\n")
    (tmp_path / "own_uses.py").write_text(
        "import own_package\n"
        "def inside(x):\n    return x * own_package.config.S\n"
        "def alias(x):\n    import own_package.config as c\n    return x * c.S\n"
        "def name(x):\n    from own_package.config import S\n    return x * S\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    uses = importlib.import_module("own_uses")
    before = [fingerprint(f) for f in (uses.inside, uses.alias, uses.name)]
    monkeypatch.setattr(sys.modules["own_package.config"], "S", 2)
    after = [fingerprint(f) for f in (uses.inside, uses.alias, uses.name)]
    assert all(a != b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("folder", "library"), [("site-packages", True), ("code", False)])
def test_packages_of_another_environment_are_packages(tmp_path, monkeypatch, folder, library):
    place, name = tmp_path / folder, f"fingerprinted_{library}".lower()
    place.mkdir()
    (place / f"{name}.py").write_text("value = 1")
    monkeypatch.syspath_prepend(place)
    importlib.import_module(name)
    assert used_code.is_library(name) == library


def test_hooks_of_every_module_count():
    model = net()
    before = describe_model(model)
    handle = nn.modules.module.register_module_forward_hook(lambda *call: None)
    try:
        assert describe_model(model) != before
    finally:
        handle.remove()
    assert describe_model(model) == before


def test_comments_decide_nothing():
    commented = of_code('def made(x):\n  """Say so."""\n  # and this\n  return x + 1')
    assert fingerprint(commented) == fingerprint(of_code("def made(x): return x + 1"))
    assert fingerprint(Holder(0.1)) == fingerprint(Holder(0.1))
    assert fingerprint(closed_over(np.ones(3))) == fingerprint(closed_over(np.ones(3)))


def test_what_holds_itself_has_an_end():
    holder = Holder(0.1)
    holder.value = [holder]
    assert fingerprint(holder) == fingerprint(holder)
    assert fingerprint(recursive) == fingerprint(recursive)
    model = Keeper(1.0, "list")
    model.again = functools.partial(print, model)
    assert describe_model(model) == describe_model(model)


def test_locks_and_loggers_decide_nothing():
    import logging

    for value in (threading.Lock(), threading.RLock(), logging.getLogger("a"), threading.local()):
        assert fingerprint(Holder(value)) == fingerprint(Holder(value))


@pytest.mark.parametrize("held", ["file", "generator", "deep"])
def test_what_cannot_be_compared_is_refused(held, tmp_path):
    deep = []
    for _ in range(5000):
        deep = [deep]
    with (tmp_path / "file").open("w") as file:
        value = {"file": file, "generator": (i for i in "ab"), "deep": deep}[held]
        with pytest.raises(ValueError, match=r"whether targets.*method fingerprint\(\)"):
            describe(Holder(value), "targets")
        value = Holder(value)
        value.fingerprint = lambda: "v1"
        assert describe(value) == describe(value)


@pytest.mark.parametrize(
    "kind", ["buffer", "list", "dict", "array", "private", "plain", "hook", "backward hook"]
)
def test_what_a_model_holds_besides_its_state_dict(kind):
    a, b = Keeper(0.0, kind), Keeper(0.5, kind)
    assert describe_model(a) == describe_model(Keeper(0.0, kind))
    differing = {key for key, value in describe_model(a).items() if describe_model(b)[key] != value}
    assert differing == {"weights" if kind == "buffer" else "attributes"}
    assert fingerprint(a) != fingerprint(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())),
        (nn.Conv2d(1, 1, 3, stride=1), nn.Conv2d(1, 1, 3, stride=2)),
        (nn.Softmax(0), nn.Softmax(1)),
        (nn.Sequential(nn.Identity()), nn.Sequential(nn.Sequential(nn.Identity()))),
        (of_code("import torch\nclass made(torch.nn.Module):\n  def forward(s, x): return x")(),
         of_code("import torch\nclass made(torch.nn.Module):\n  def forward(s, x): return -x")()),
        [torch.fx.symbolic_trace(closed_over(value)) for value in (1.0, 2.0)],
        ],
)  # fmt: skip
def test_models_of_equal_weights_differ(a, b):
    b.load_state_dict(a.state_dict(), strict=False)
    assert describe_model(a)["weights"] == describe_model(a)["weights"]
    assert describe_model(a) == describe_model(a)
    assert {**describe_model(a), "name": ""} != {**describe_model(b), "name": ""}


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_traced_models_count_by_their_code():
    one, again, other = (
        describe_model(torch.jit.trace(Called(closed_over(value)), torch.ones(1)))
        for value in (1.0, 1.0, 2.0)
    )
    assert one == again
    assert one != other


def test_weights_count_by_names_types_shapes_and_bytes():
    model = nn.Linear(2, 3)
    before = describe_model(model)["weights"]
    assert describe_model(nn.Sequential(model))["weights"] != before
    assert describe_model(model.double())["weights"] != before
    assert describe_model(model.float())["weights"] == before
    with torch.no_grad():
        model.weight[0, 0] += 1e-3
    assert describe_model(model)["weights"] != before
    assert len(describe_model(nn.Linear(2, 3, dtype=torch.bfloat16))["weights"]) == 64


def test_running_a_model_changes_nothing():
    model = net()
    before = describe_model(model)
    GradCAM(model)(torch.rand(1, 1, 16, 16))
    assert describe_model(model) == before


def test_another_source_of_a_class_is_another_model(tmp_path, monkeypatch):
    codes = set()
    for place, sign in enumerate("+-"):
        (tmp_path / str(place)).mkdir()
        path = tmp_path / str(place) / "signed.py"
        path.write_text(
            "from torch import nn\nclass Signed(nn.Module):\n"
            f"    def forward(self, images):\n        return {sign}images\n"
        )
        spec = importlib.util.spec_from_file_location("signed", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "signed", module)
        spec.loader.exec_module(module)
        codes.add(describe_model(module.Signed())["code"])
    assert len(codes) == 2


def test_options_of_an_explainer():
    model = net()
    assert describe_explainer(GradCAM(model, ["0", "1"]))["layers"] == ["0", "1"]
    assert describe_explainer(GradCAM(model))["options"] == {
        "create_graph": False,
        "fuse": "mean",
        "layer": "last",
        "registration": "stretched",
    }
    options = [
        describe_explainer(GradCAM(model, "1", layout=layouts.tokens(prefix, (7, 7))))["options"]
        for prefix in (0, 1)
    ]
    assert options[0] != options[1]


def test_data_sets_count_by_what_they_hold_or_say():
    assert describe_dataset([torch.zeros(2)]) != describe_dataset([torch.ones(2)])
    said = Holder(1)
    said.fingerprint = lambda: "v1"
    assert describe_dataset(said) != describe_dataset(Holder(1))


def test_modes_of_torch():
    plain = describe_modes("cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert describe_modes("cpu") != plain


@pytest.mark.parametrize("operation", ["cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv"])
def test_precisions_of_operations(operation):
    backend, _, name = operation.partition(".")
    place = getattr(getattr(torch.backends, backend), name, None)
    if getattr(place, "fp32_precision", None) is None:
        pytest.skip("torch before 2.9 has no precisions of operations")
    plain, before = describe_modes("cpu"), place.fp32_precision
    try:
        place.fp32_precision = "ieee"
        assert describe_modes("cpu") != plain
    finally:
        place.fp32_precision = before
    assert describe_modes("cpu") == plain


FINGERPRINTS = """
from camlens.dataset.descriptions import describe_model
from camlens.dataset.fingerprint import fingerprint
import torch

class Own:
    def __init__(self):
        self.a = set("klmnopqrstuvwxyz")

    def __call__(self, x):
        return x in {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()).eval()
print(describe_model(model))
print(fingerprint([Own(), lambda x: x in {"a", "b", "c", "d", "e"}, str.upper, object(), Own]))
"""
#: In a process of its own: what torch.compile leaves on a module depends on what ran before.
COMPILED = """
before = describe_model(model)
assert describe_model(torch.compile(model)) == before == describe_model(model)
"""


@pytest.mark.slow
def test_other_processes_have_the_same_fingerprints_and_a_compiled_model_is_the_model():
    printed = [
        subprocess.run(
            [sys.executable, "-c", FINGERPRINTS + more],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},  # sets are in another order
        ).stdout
        for seed, more in (("1", ""), ("2", COMPILED))
    ]
    assert printed[0] == printed[1]


def test_an_explainer_of_an_explainer_is_its_options_and_not_what_it_measured():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
    explain = SmoothGrad(GradCAM(model), samples=2)
    before = describe_explainer(explain)
    explain(torch.rand(1, 3, 8, 8))
    assert describe_explainer(explain) == before
    assert before["options"]["explainer"] == describe_explainer(GradCAM(model))
    assert before != describe_explainer(SmoothGrad(GradCAM(model), samples=2, seed=1))
    assert before != describe_explainer(SmoothGrad(GradCAM(model, "0"), samples=2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*EVERY, *ATTENTION])
def test_a_call_leaves_an_explainers_description_as_it_was(kind):
    """A run that is resumed in the same process must be the same run."""
    vit = kind in ATTENTION
    explain = kind(small_vit().eval()) if vit else made(kind, Small().eval())
    before = describe_explainer(explain, Walk(strict=False))
    explain(torch.rand(2, 3, *([32, 32] if vit else [8, 8])))
    assert describe_explainer(explain, Walk(strict=False)) == before
