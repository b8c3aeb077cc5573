"""The local server: what a browser runtime needs, and nothing for anybody else."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from vitexport.contract import Site
from vitexport.errors import BadRequest
from vitexport.serving import Door, serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "runtime").mkdir(parents=True)
    (site / "index.html").write_text("<!doctype html>")
    (site / "runtime" / "ort.mjs").write_text("export {}")
    (site / "runtime" / "ort.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret").write_text("not served")
    return site


def get(url: str, path: str, host: str | None = None) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    return response, response.read()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/runtime/ort.mjs", "text/javascript; charset=utf-8"),
        ("/runtime/ort.wasm", "application/wasm"),
    ],
)
def test_files_have_the_type_a_browser_insists_on(folder: Path, path: str, kind: str) -> None:
    with serve(Site(folder)) as url:
        response, _ = get(url, path)
    assert (response.status, response.headers["Content-Type"]) == (200, kind)


def test_pages_are_cross_origin_isolated_so_that_threads_work(folder: Path) -> None:
    with serve(Site(folder)) as url:
        response, _ = get(url, "/")
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_pages_come_before_mounts_and_mounts_before_the_root(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.js").write_text("mounted")
    with serve(Site(folder, {"/more/": other}, {"/index.html": b"given"})) as url:
        assert get(url, "/index.html?v=1")[1] == b"given"
        assert get(url, "/more/x.js")[1] == b"mounted"
        assert get(url, "/runtime/ort.mjs")[1] == b"export {}"


@pytest.mark.parametrize("path", ["/../secret", "/%2e%2e/secret", "/runtime/../../secret", "/more/../../secret"])
def test_nothing_outside_the_folder_is_served(folder: Path, path: str) -> None:
    with serve(Site(folder, {"/more/": folder / "runtime"})) as url:
        assert get(url, path)[0].status == 404


def test_folders_are_not_listed(folder: Path) -> None:
    with serve(Site(folder)) as url:
        assert get(url, "/runtime/")[0].status == 404


def test_a_foreign_host_name_that_points_here_gets_nothing(folder: Path) -> None:
    with serve(Site(folder)) as url:
        assert get(url, "/", host="evil.example:80")[0].status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "LOCALHOST:8000", "localhost", "[::1]", "[::1]:8000"])
def test_its_own_name_is_known_with_and_without_a_port_in_any_case(folder: Path, host: str) -> None:
    with serve(Site(folder), door=Door(names=("127.0.0.1", "localhost", "::1"))) as url:
        assert get(url, "/", host=host)[0].status == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1.evil.example", "127.0.0.1:port", "127.0.0.1:99999", "evil@127.0.0.1", "127.0.0.1/", "[::1", "::1", "["],
)
def test_a_host_that_is_malformed_gets_nothing(folder: Path, host: str) -> None:
    with serve(Site(folder), door=Door(names=("127.0.0.1", "::1"))) as url:
        assert get(url, "/", host=host)[0].status == 403


def test_a_port_in_use_is_a_bad_request(folder: Path) -> None:
    with serve(Site(folder)) as url:
        taken = urlsplit(url).port or 0
        with pytest.raises(BadRequest, match=r"^Port \d+ cannot be had \(in use\)"), serve(Site(folder), taken):
            pass


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_a_bad_request(folder: Path, port: int) -> None:
    with pytest.raises(BadRequest, match=r"ports are 0 to 65535"), serve(Site(folder), port):
        pass
