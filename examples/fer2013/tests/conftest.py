"""A made-up data set for the whole example suite."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import made_up_files as made_up

pytest.register_assert_rewrite("run_folders")


@pytest.fixture(scope="session")
def csv_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "fer2013.csv"
    made_up.write_csv(path)
    return path
