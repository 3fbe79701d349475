"""Downloads from a real HTTP server that cuts connections, ignores ranges, or lies."""

import hashlib
import http.server
import re
import threading

import numpy as np
import pytest
from sagebench.errors import UserError
from sagebench.graph.download import fetch

CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; each entry of `cuts` ends one answer after so many bytes of it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cuts, self.ranges, self.status = CONTENT, [], [], None
        self.supports_ranges = True
        self.wrong_range = False
        self.url = f"http://127.0.0.1:{self.server_port}/data/graph.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if server.status:
            self.send_error(server.status)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and server.supports_ranges else 0
        size = len(server.content)
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        self.send_response(206 if asked and server.supports_ranges else 200)
        if asked and server.supports_ranges:
            begin = start + server.wrong_range
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        stop = start + server.cuts.pop(0) if server.cuts else size
        self.wfile.write(server.content[start:stop])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(server, path, **options):
    fetch(server.url, path, **{"wait_s": 0.01, "timeout_s": 5, **options})


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file(server, tmp_path, capfd):
    path = tmp_path / "new" / "graph.zip"
    get(server, path, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT and files(path.parent) == ["graph.zip"]
    assert "graph.zip: 100%" in capfd.readouterr().err
    get(server, path)
    assert len(server.ranges) == 1  # it is there: nothing is asked


def test_a_cut_connection_is_continued(server, tmp_path):
    server.cuts = [1_000_000, 0, 500_000]
    get(server, tmp_path / "graph.zip")
    assert (tmp_path / "graph.zip").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-", "bytes=1000000-", "bytes=1500000-"]


def test_the_next_run_continues(server, tmp_path):
    server.cuts = [700_000, 0]
    with pytest.raises(UserError, match=r"continue after 700,000 bytes.*archive"):
        get(server, tmp_path / "graph.zip", attempts=2)
    assert files(tmp_path) == ["graph.zip.part"]
    get(server, tmp_path / "graph.zip")
    assert (tmp_path / "graph.zip").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=700000-" and files(tmp_path) == ["graph.zip"]


def test_a_server_without_ranges_begins_again(server, tmp_path):
    server.supports_ranges, server.cuts = False, [1_000_000]
    get(server, tmp_path / "graph.zip")
    assert (tmp_path / "graph.zip").read_bytes() == CONTENT


def test_everything_had_arrived_before_the_end(server, tmp_path):
    (tmp_path / "graph.zip.part").write_bytes(CONTENT)
    get(server, tmp_path / "graph.zip")
    assert (tmp_path / "graph.zip").read_bytes() == CONTENT


def test_more_than_the_server_has_begins_again(server, tmp_path):
    (tmp_path / "graph.zip.part").write_bytes(CONTENT + b"more")
    get(server, tmp_path / "graph.zip")
    assert (tmp_path / "graph.zip").read_bytes() == CONTENT


def test_another_range_than_asked_for_is_not_taken(server, tmp_path):
    (tmp_path / "graph.zip.part").write_bytes(CONTENT[:1000])
    server.wrong_range = True
    with pytest.raises(UserError, match="another range"):
        get(server, tmp_path / "graph.zip", attempts=2)
    assert files(tmp_path) == ["graph.zip.part"]


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match="SHA-256"):
        get(server, tmp_path / "graph.zip", sha256="00" * 32)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 3)])
def test_an_error_of_the_server(server, tmp_path, status, asked):
    server.status = status
    with pytest.raises(UserError, match=f"{status}.*archive"):
        get(server, tmp_path / "graph.zip", attempts=3)
    assert len(server.ranges) == asked and files(tmp_path) == []


def test_no_server(tmp_path):
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch("http://127.0.0.1:9/graph.zip", tmp_path / "graph.zip", attempts=2, wait_s=0.01)
    assert files(tmp_path) == []
