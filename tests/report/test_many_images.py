"""100,000 images: what the report takes in time and memory, and that its numbers are of all."""

import re
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from .made import change_manifest, write_run

IMAGES, SHARD = 100_000, 1000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose 100 shards repeat the first one's images."""
    folder = tmp_path_factory.mktemp("many") / "run"
    write_run(folder, images=SHARD, shard_size=SHARD)
    tables = {
        path.name: pd.read_parquet(path)
        for path in (folder / "shard-00000").iterdir()
        if path.suffix == ".parquet"
    }
    shards = [f"shard-{number:05d}" for number in range(IMAGES // SHARD)]
    for number, shard in enumerate(shards[1:], start=1):
        (folder / shard).mkdir()
        for name, table in tables.items():
            moved = table.assign(image=table["image"] + number * SHARD)
            moved.to_parquet(folder / shard / name, index=False)
    change_manifest(folder, shards=shards, images=IMAGES)
    return folder


@pytest.mark.slow
def test_100000_images_fit_into_memory_and_a_page(run, browser):
    # In a process of its own, whose largest size is the report's alone.
    code = """
        import resource, sys, time
        from camlens.report import write_report
        start = time.perf_counter()
        page = write_report(sys.argv[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(time.perf_counter() - start, peak / 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(run)],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, mebibytes = map(float, done.stdout.split())
    page = run / "report.html"
    print(
        f"100,000 images: {seconds:.0f} s, {mebibytes:.0f} MiB, {page.stat().st_size / 1e6:.1f} MB"
    )
    assert mebibytes < 3000
    assert seconds < 180
    assert page.stat().st_size < 50e6
    browser.open(page)
    assert browser.text(".facts").startswith("100,000 images")
    assert browser.text("#count") == "First 24 of 2,000 images"
    images = pd.read_parquet(run / "shard-00000" / "images.parquet")
    right = int((images["label"] == images["prediction"]).sum()) * (IMAGES // SHARD)
    assert f"{right:,} of 100,000 predicted correctly" in browser.text(".facts")
    assert re.search(r"2,000 of 100,000 images", browser.text("#gallery > .aside"))
