import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[4] / "docs"


@pytest.mark.slow
def test_the_tables_of_the_accuracy_page_equal_the_records(tmp_path):
    script = DOCS / "accuracy_tables.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    written = sorted(tmp_path.iterdir())
    assert len(written) == 4
    for path in written:
        assert path.read_text() == (DOCS / "fer2013" / path.name).read_text(), path.name
