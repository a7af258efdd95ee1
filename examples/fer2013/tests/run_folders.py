"""Compare two run folders: weights, history, record and result."""

import pandas as pd
import torch


def weights_in(path):
    return torch.load(path, weights_only=True)["state_dict"]


def history(folder):
    return pd.read_csv(folder / "history.csv").drop(columns="seconds")


def assert_same_run(one, other):
    for name in ("last.ckpt", "best.ckpt"):
        first, second = weights_in(one / name), weights_in(other / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    pd.testing.assert_frame_equal(history(one), history(other), check_exact=True)
    assert (one / "run.json").read_text() == (other / "run.json").read_text()
    (first,), (second,) = one.glob("*.safetensors"), other.glob("*.safetensors")
    assert first.read_bytes() == second.read_bytes()
