"""Many images: what the report takes in time and memory, and that its numbers are of all."""

import subprocess
import sys
import textwrap

import pandas as pd
import pytest

from .made import change_manifest, write_run

SHARD = 1000


def repeated(folder, images):
    """Write a run whose shards repeat the first one's images, and return its folder."""
    write_run(folder, images=SHARD, shard_size=SHARD)
    tables = {
        path.name: pd.read_parquet(path)
        for path in (folder / "shard-00000").iterdir()
        if path.suffix == ".parquet"
    }
    shards = [f"shard-{number:05d}" for number in range(images // SHARD)]
    for number, shard in enumerate(shards[1:], start=1):
        (folder / shard).mkdir()
        for name, table in tables.items():
            moved = table.assign(image=table["image"] + number * SHARD)
            moved.to_parquet(folder / shard / name, index=False)
    change_manifest(folder, shards=shards, images=images)
    return folder


@pytest.mark.exhaustive
def test_many_images_fit_into_memory_and_a_page(tmp_path, browser):
    images, limit = 40_000, 2000
    run = repeated(tmp_path / "run", images)
    few = images // 4
    small = repeated(tmp_path / "small", few)
    # In a process of its own, whose largest size is the report's alone. A report of a quarter of
    # the images comes first: what all reports take is there before the large one.
    code = """
        import resource, sys, time
        from camlens.report import write_report
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        run, small, limit = sys.argv[1:]
        write_report(small, limit=int(limit))
        before, start = peak(), time.perf_counter()
        write_report(run, limit=int(limit))
        print(time.perf_counter() - start, peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(run), str(small), str(limit)],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, mebibytes = map(float, done.stdout.split())
    page = run / "report.html"
    megabytes = page.stat().st_size / 1e6
    told = f"{seconds:.0f} s, {mebibytes:.0f} MiB more than {few:,}, {megabytes:.1f} MB"
    print(f"{images:,} images: {told}")
    assert mebibytes < 0.03 * (images - few)
    assert seconds < 180
    assert megabytes < 0.025 * limit
    browser.open(page)
    assert browser.text(".facts").startswith(f"{images:,} images")
    assert browser.text("#count") == f"First 24 of {limit:,} images"
    first = pd.read_parquet(run / "shard-00000" / "images.parquet")
    right = int((first["label"] == first["prediction"]).sum()) * (images // SHARD)
    assert f"{right:,} of {images:,} predicted correctly" in browser.text(".facts")
    assert f"{limit:,} of {images:,} images" in browser.text("#gallery > .aside")
