import runpy
import sys
from pathlib import Path

DOCS = Path(__file__).parents[4] / "docs"


def test_the_tables_of_the_accuracy_page_equal_the_records(tmp_path, monkeypatch):
    script = str(DOCS / "accuracy_tables.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
    runpy.run_path(script, run_name="__main__")
    written = sorted(tmp_path.iterdir())
    assert len(written) == 4
    for path in written:
        assert path.read_text() == (DOCS / "fer2013" / path.name).read_text(), path.name
