"""Downloads from a server of our own: whole and checked, or not at all."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from funcnet.data import DataError
from funcnet.data.fetch import fetch

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/absent":
            self.send_error(404)
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write({"/cut": CONTENT[:-1], "/other": CONTENT[::-1]}.get(self.path, CONTENT))

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.mark.parametrize("pages", [["whole"], ["moved"], ["absent", "cut", "other", "whole"]])
def test_the_first_address_that_has_the_file_gives_it(tmp_path, server, pages):
    path = tmp_path / "new" / "file"
    assert fetch([f"{server}/{page}" for page in pages], path, DIGEST.upper()) == path
    assert path.read_bytes() == CONTENT
    assert [found.name for found in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("absent", r"absent: HTTPError: HTTP Error 404"),
        ("cut", r"cut: (it ended after 1279999 of 1280000 bytes|IncompleteRead)"),
        ("other", rf"other: its sha256 is [0-9a-f]{{64}} and should be {DIGEST}"),
    ],
)
def test_a_failure_leaves_nothing_and_harms_nothing(tmp_path, server, page, message):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(DataError, match=rf"file could not be fetched\. .*{message}.*Put the file there by hand"):
        fetch([f"{server}/{page}"], path, DIGEST)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


def test_no_server_and_no_folder_are_explained(tmp_path, server):
    with pytest.raises(DataError, match=r"URLError.*refused"):
        fetch(["http://127.0.0.1:1/file"], tmp_path / "file", DIGEST)
    (tmp_path / "plain").write_text("")
    with pytest.raises(DataError, match=r"Error: .*exists|NotADirectoryError"):
        fetch([f"{server}/whole"], tmp_path / "plain" / "file", DIGEST)
    assert [found.name for found in tmp_path.iterdir()] == ["plain"]


def test_a_file_address_works_too(tmp_path):
    (tmp_path / "a").write_bytes(CONTENT)
    fetch([(tmp_path / "a").as_uri()], tmp_path / "b", DIGEST)
    assert (tmp_path / "b").read_bytes() == CONTENT
