"""Model files: what is named is used as it is, the rest is downloaded once and checked."""

import contextlib
import hashlib
import http.server
import sys
import threading

import pytest

from camlens.faces import model_files
from camlens.faces.model_files import MODEL_FILES, ModelFile, find

pooch = pytest.importorskip("pooch")

CONTENT = b"a small model"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return the user's cache, empty; no variable of the machine counts."""
    for name in ("CAMLENS_YUNET", "CAMLENS_FACE_LANDMARKER", "CAMLENS_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "camlens"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(pooch, "retrieve", refuse)


@contextlib.contextmanager
def serving(content, status=200):
    """Serve one content at every path; give the address and the list of requested paths."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def entry(address, content=CONTENT):
    return ModelFile(
        name="small.onnx",
        url=f"{address}/folder/small.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
        variable="CAMLENS_SMALL",
        licence="MIT",
    )


def test_it_is_downloaded_once(cache):
    with serving(CONTENT) as (address, asked):
        first = find(entry(address))
        second = find(entry(address))
    assert first == second == cache / "small.onnx"
    assert first.read_bytes() == CONTENT
    assert asked == ["/folder/small.onnx"]
    assert [p.name for p in cache.iterdir()] == ["small.onnx"]
    assert find(entry(address)) == first  # the server is gone by now


def test_a_damaged_file_in_the_cache_is_replaced(cache):
    cache.mkdir(parents=True)
    (cache / "small.onnx").write_bytes(CONTENT[:5])
    with serving(CONTENT) as (address, _):
        assert find(entry(address)).read_bytes() == CONTENT


def test_what_is_put_into_the_cache_by_hand_needs_no_network(cache):
    cache.mkdir(parents=True)
    (cache / "small.onnx").write_bytes(CONTENT)
    assert find(entry("http://127.0.0.1:9")) == cache / "small.onnx"


def test_a_wrong_checksum_leaves_nothing(cache):
    pointer = b"version https://git-lfs.github.com/spec/v1"
    with (
        serving(pointer) as (address, _),
        pytest.raises(OSError, match=r"small.onnx is missing: .* \(its checksum is wrong\)"),
    ):
        find(entry(address))
    assert list(cache.iterdir()) == []


def test_a_missing_page_is_not_the_model(cache):
    with (
        serving(b"not here", status=404) as (address, _),
        pytest.raises(OSError, match=r"small.onnx is missing: .* \(HTTP status 404\)"),
    ):
        find(entry(address))
    assert list(cache.iterdir()) == []


def test_offline_says_where_to_put_which_file(cache):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
    small = entry(address)  # nobody listens there any more
    with pytest.raises(OSError, match=r"small.onnx is missing: .* \(ConnectionError\)") as caught:
        find(small)
    message = str(caught.value)
    for place in (str(cache), "CAMLENS_SMALL", "CAMLENS_MODELS"):
        assert place in message
    assert f"curl -LO {small.url}" in message
    assert message.endswith("use face_template (--regions template)")
    assert len(message) - len(small.url) - len(str(cache)) < 240  # three lines of a terminal


def test_the_nearest_name_counts(tmp_path, monkeypatch, no_network):
    folder = tmp_path / "models"
    folder.mkdir()
    published = folder / "face_detection_yunet_2026may.onnx"
    by_variable, by_path = tmp_path / "variable.onnx", tmp_path / "path.onnx"
    for file in (published, by_variable, by_path):
        file.write_bytes(b"a version of my own: no checksum is asked of it")
    monkeypatch.setenv("CAMLENS_MODELS", str(folder))
    assert find("yunet") == published
    monkeypatch.setenv("CAMLENS_YUNET", str(by_variable))
    assert find("yunet") == by_variable
    assert find("yunet", by_path) == find("yunet", str(by_path)) == by_path
    monkeypatch.setenv("CAMLENS_YUNET", "")  # as good as unset
    assert find("yunet") == published


def test_home_is_expanded(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "mine.onnx").write_bytes(b"")
    assert find("yunet", "~/mine.onnx") == tmp_path / "mine.onnx"


def test_a_named_place_without_the_file_is_an_error(tmp_path, monkeypatch, no_network):
    with pytest.raises(FileNotFoundError, match=r"absent.onnx, which path names"):
        find("yunet", tmp_path / "absent.onnx")
    with pytest.raises(FileNotFoundError, match="which path names"):
        find("yunet", tmp_path)  # a folder is no file
    monkeypatch.setenv("CAMLENS_MODELS", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"face_landmarker.task, which the .*variable CAMLENS_MODELS names"
    ):
        find("face_landmarker")
    monkeypatch.setenv("CAMLENS_FACE_LANDMARKER", str(tmp_path / "gone.task"))
    with pytest.raises(FileNotFoundError, match=r"gone.task, which .* CAMLENS_FACE_LANDMARKER"):
        find("face_landmarker")


def test_without_pooch_the_remedies_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"needs pooch: .*camlens\[regions\].* CAMLENS_YUNET"):
        find("yunet")
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(b"")
    assert find("yunet", mine) == mine


def test_an_unknown_model_is_named():
    with pytest.raises(LookupError, match=r"\['face_landmarker', 'yunet'\], got 'haar'"):
        find("haar")


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(MODEL_FILES))
def test_the_published_checksums(shared, name):
    content = (shared / "models" / MODEL_FILES[name].name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == MODEL_FILES[name].sha256


@pytest.mark.parametrize("name", sorted(MODEL_FILES))
def test_the_published_addresses(name):
    known = model_files.MODEL_FILES[name]
    assert known.url.startswith("https://")
    assert known.url.endswith(known.name)
    assert "raw.githubusercontent" not in known.url  # gives Git LFS's pointer, not the file
