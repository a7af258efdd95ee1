"""Ray Data with two local actors, one of which dies: the same files as one process."""

import logging

import pytest

from camlens import GradCAM
from camlens.dataset import ShardTask, explain_with_ray

from .made import Noise, asked, files, net, run

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of many kinds
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    options = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100_000_000}
    ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.mark.exhaustive
@pytest.mark.parametrize("killed", [True, False])
def test_two_actors_one_of_them_killed(tmp_path, killed):
    run(tmp_path / "whole")
    die = tmp_path / "die"
    if killed:
        die.write_text("18")
    task = ShardTask(GradCAM(net(), "1"), Noise(40, die=die), tmp_path / "run", asked())
    found = explain_with_ray(task, actors=2)
    assert found.manifest["complete"]
    assert not die.exists()
    assert files(tmp_path / "run") == files(tmp_path / "whole")
