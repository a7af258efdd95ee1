"""The reader: what is whole is read, what is not says so."""

import pandas as pd
import pytest
import torch

from camlens.dataset import Run

from .made import Noise, run


def test_tables_go_over_all_shards_in_order(tmp_path):
    found = run(tmp_path, 20)
    parts = [pd.read_parquet(tmp_path / name / "maps.parquet") for name in found.shards]
    assert [len(part) for part in parts] == [21, 24, 12]
    pd.testing.assert_frame_equal(found.maps, pd.concat(parts, ignore_index=True))
    assert found.images["image"].tolist() == list(range(20))
    assert found.regions["image"].is_monotonic_increasing
    assert repr(found) == f"Run({tmp_path}: GradCAM, 20 images, 1 unreadable)"


def test_a_run_that_has_not_ended(tmp_path):
    found = run(tmp_path, 20, part=(1, 2))
    assert found.shards == ["shard-00001"]
    assert repr(found) == f"Run({tmp_path}: GradCAM, incomplete, 1 shards)"
    assert found.images["image"].tolist() == list(range(8, 16))
    with pytest.raises(ValueError, match=r"Run\(path, incomplete=True\)"):
        Run(tmp_path)


def test_an_incomplete_run_without_shards_has_empty_tables(tmp_path):
    found = run(tmp_path, 3, part=(1, 2))
    assert (len(found.images), len(found.maps), len(found.regions)) == (0, 0, 0)
    assert len(found.unreadable) == 0


@pytest.mark.slow
@pytest.mark.parametrize("file", ["images", "maps", "regions"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_damaged_tables_say_which(tmp_path, file, keep):
    run(tmp_path, 12)
    path = tmp_path / "shard-00001" / f"{file}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=f"shard-00001/{file}.parquet is damaged"):
        getattr(Run(tmp_path), file)


def test_a_table_of_another_kind_is_refused(tmp_path):
    run(tmp_path, 3)
    pd.DataFrame({"image": [1]}).to_parquet(tmp_path / "shard-00000" / "maps.parquet")
    with pytest.raises(ValueError, match=r"maps.parquet is damaged.*Delete the folder"):
        _ = Run(tmp_path).maps


def test_a_missing_shard_is_told(tmp_path):
    run(tmp_path, 20)
    (tmp_path / "shard-00001").rename(tmp_path / ".gone")
    with pytest.raises(ValueError, match="shard-00001 or a file in it is missing"):
        Run(tmp_path)


def test_heatmaps_of_some_rows_in_their_order(tmp_path):
    found = run(tmp_path, dataset=Noise(4, corrupt=None))
    every = found.heatmaps(found.maps)
    assert every.shape == (12, 16, 16)
    assert every.dtype == torch.float32
    peaks = every.amax(dim=(1, 2))
    assert torch.equal(peaks, torch.tensor(found.maps["evidence"].to_numpy()).float())
    assert torch.equal(found.heatmaps(found.maps.iloc[[7, 2]]), every[[7, 2]])
    assert len(found.heatmaps(found.maps.iloc[:0])) == 0


def test_a_map_of_a_wrong_length_is_told(tmp_path):
    found = run(tmp_path, 3)
    rows = found.maps.assign(heat=[one[:-1] for one in found.maps["heat"]])
    with pytest.raises(ValueError, match=r"a map is not \(7, 7\)"):
        found.heatmaps(rows)
