"""Names, wrappers and the errors that name the remedy."""

import pytest
import torch
from torch import nn

from camlens import modules


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)))


def test_unwrap_takes_every_wrapper_off():
    inner = net()
    assert modules.unwrap(nn.DataParallel(torch.compile(inner))) is inner


def test_names_are_free_of_compile_wrappers():
    model = net()
    inner = model[1]
    model[1] = torch.compile(inner)
    assert list(modules.named(model)) == ["0", "1", "1.0", "1.1"]
    assert modules.resolve(model, model[1]) == "1"
    assert modules.resolve(model, "1._orig_mod.1") == "1.1"


def test_names_of_a_wrapped_model_are_understood():
    assert modules.resolve(net(), "module.1.0") == "1.0"


def test_every_name_of_a_module_used_twice():
    relu = nn.ReLU()
    model = nn.ModuleDict({"first": relu, "second": nn.Sequential(relu)})
    assert modules.resolve(model, "second.0") == "first"


def test_unknown_name_lists_near_ones():
    model = nn.ModuleDict({"features": net(), "classifier": nn.Linear(1, 1)})
    with pytest.raises(LookupError, match=r"no layer 'feature\.0'; near names: features\.0"):
        modules.resolve(model, "feature.0")


def test_foreign_module():
    with pytest.raises(LookupError, match="not a part of Sequential"):
        modules.resolve(net(), nn.ReLU())


def test_wrong_type():
    with pytest.raises(TypeError, match="dotted name or module, got int"):
        modules.resolve(net(), 3)


def test_several_layers_once_each():
    model = net()
    assert modules.resolve_all(model, ["0", model[0], "1"]) == ("0", "1")
    assert modules.resolve_all(model, model[1]) == ("1",)
    with pytest.raises(ValueError, match="at least one layer"):
        modules.resolve_all(model, [])
