"""Browsers act as phones: what they measure is judged and filed; whoever else knocks is refused and changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import headless
import web_bundles
from vitexport import host, registry
from vitexport.commands import bench as bench_command
from vitexport.contract import Bundle, ExportRequest, Report, Site
from vitexport.devices import browser as devices
from vitexport.devices.gate import Arrival, Gate, Progress
from vitexport.errors import BadRequest, ParityFailed, WorldFailed
from vitexport.manifest import encode, read_bundle
from vitexport.proof import blank_result
from vitexport.serving import serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

PIXEL = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile "
    "Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 "
    "Mobile/15E148 Safari/604.1"
)

TIME_IS_UP = b"Time is up: this address is no longer good. Run vitexport bench again"

try:
    LAN = devices.lan_address()
except BadRequest:
    LAN = "127.0.0.1"  # a machine without a network shows all of it but the address


@dataclass
class Command:
    """``vitexport bench --device browser`` at work."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    lines: SimpleQueue[str] = field(default_factory=SimpleQueue)

    def wait_for(self, pattern: str, count: int = 1, timeout_s: float = 120) -> list[str]:
        """What the first group of ``pattern`` matched, of as many lines of its standard error."""
        found: list[str] = []
        until = time.monotonic() + timeout_s
        while len(found) < count:
            try:
                line = self.lines.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                raise AssertionError(f"no {pattern} in:\n{''.join(self.said)}") from None
            self.said.append(line)
            if match := re.search(pattern, line):
                found.append(match[1])
        return found

    def end(self) -> tuple[int, str]:
        code = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        return code, self.process.stdout.read()


@contextmanager
def waiting(folder: Path, *options: str, cwd: Path | None = None) -> Iterator[Command]:
    """Started, and ended however the test ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vitexport", "bench", str(folder), "--device", "browser", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=cwd,
    )
    command = Command(process)

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            command.lines.put(line)

    Thread(target=read, daemon=True).start()
    try:
        yield command
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What ``vitexport --out`` leaves: a report, and a web bundle (its runtime's 58 MB by reference)."""
    whole = web_bundles.whole("tiny", ("fp32",))
    out = tmp_path / "out"
    shutil.copytree(whole.directory, out / "webgpu", ignore=shutil.ignore_patterns("runtime"))
    os.symlink(whole.directory / "runtime", out / "webgpu" / "runtime")
    (out / "report.json").write_bytes(encode(_report(whole, out)))
    return out


def _report(bundle: Bundle, out: Path) -> Report:
    blank = blank_result(registry.target("webgpu"), bundle, "fp32", "wasm")
    request = ExportRequest(model="tiny", targets=("webgpu",))
    return Report(1, "0", request, str(out), bundle.manifest.provenance, host.described(), {}, (blank,))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with headless.browser(gpu=True) as launched:
        yield launched


def phone(chromium: Browser, agent: str, width: int, height: int) -> Page:
    """A page that takes the certificate, as its owner would after the warning."""
    context = chromium.new_context(
        user_agent=agent,
        viewport={"width": width, "height": height},
        device_scale_factor=2,
        is_mobile=True,
        ignore_https_errors=True,
    )
    return context.new_page()


def outcome(page: Page) -> str:
    page.locator("body:not([data-state=running])").wait_for(timeout=240_000)
    return f"{page.locator('#word').inner_text()}: {page.locator('#sentence').inner_text()}"


def results(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "report.json").read_bytes())["results"]
    return found


# --------------------------------------------------------------------------------------------------------- as meant


@pytest.mark.slow
def test_two_phones_on_the_network_are_both_filed(folder: Path, chromium: Browser) -> None:
    with waiting(folder, "--lan", LAN, "--devices", "2", "--json") as command:
        urls = command.wait_for(r"open (https://\S+)", 2)
        (fingerprint,) = command.wait_for(r"^  ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})$")
        assert fingerprint == _fingerprint(urls[0])
        pages = [phone(chromium, PIXEL, 412, 915), phone(chromium, IPHONE, 390, 844)]
        for page, url in zip(pages, urls, strict=True):
            page.goto(url)
        for page in pages:
            assert outcome(page) == "Sent: This page can be closed."
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert {"device 1", "device 2"} == set(command.wait_for(r"(device [12]): 3 of 3, sending", 2))
        code, printed = command.end()
    assert code == 0

    _, *added = results(folder)
    assert added == json.loads(printed)
    assert [r["provider"] for r in added] == ["webgpu", "wasm", "wasm-threads"] * 2
    first, second = added[:3], added[3:]
    if "on iPhone" in first[0]["parity"]["runtime"]:
        first, second = second, first  # in the order in which they came
    assert all("on Pixel 8" in r["parity"]["runtime"] for r in first)
    assert all("on iPhone" in r["parity"]["runtime"] for r in second)
    for gpu, cpu, threads in (first, second):
        assert gpu["parity"]["verdict"] == "passed"
        assert gpu["latency"]["device"].endswith("(software adapter, not a device figure)")
        assert gpu["device_verdict"] == "not run"
        assert gpu["placement"]["nodes"]["WebGpuExecutionProvider"] > 0
        assert gpu["placement"]["fallback"] == []
        assert cpu["parity"]["verdict"] == "passed"
        assert cpu["parity"]["drift"] < 1e-5
        assert cpu["latency"]["facts"]["threads"] == "1"
        assert cpu["latency"]["runs"] == 30 == len(cpu["latency"]["times_ms"])
        assert cpu["device_verdict"] == "passed"
        assert threads["latency"]["facts"]["threads"] == "2"


@pytest.fixture
def open_gate(folder: Path) -> Iterator[tuple[Command, str]]:
    with waiting(folder, "--port", "0", "--name", "mine", "--sustained", "0.02") as command:
        yield command, command.wait_for(r"open (http://\S+)")[0]


def test_on_this_machine_a_page_runs_every_cell_and_posts_once(
    folder: Path, chromium: Browser, open_gate: tuple[Command, str]
) -> None:
    command, url = open_gate
    page = phone(chromium, PIXEL, 412, 915)
    posted: list[str] = []
    page.on("request", lambda r: posted.append(r.post_data or "") if r.url.endswith("/report") else None)
    page.goto(url)
    assert outcome(page) == "Sent: This page can be closed."
    code, printed = command.end()
    assert code == 0
    assert "mine" in printed
    _, *added = results(folder)
    assert {r["parity"]["runtime"] for r in added} == {r["parity"]["runtime"] for r in added[:1]}
    assert added[1]["parity"]["runtime"].endswith("on mine")
    assert added[1]["latency"]["facts"]["model"] == "Pixel 8"
    timed = [r["latency"] for r in added if r["latency"]["verdict"] == "passed"]
    assert {each["sustained_after_s"] for each in timed} == {1.2}
    assert all(each["sustained_ms"] > 0 for each in timed)
    command.wait_for(r"good for one report, and for (903\.6) s\.")
    (report,) = posted
    again, _ = post(url, "report", report.encode())
    assert again is None  # it has ended


@pytest.mark.slow
def test_a_cell_that_crashes_is_not_run_and_the_others_are(
    folder: Path, chromium: Browser, open_gate: tuple[Command, str]
) -> None:
    """A tab that is closed in the middle comes back, and knows which cell it was at."""
    command, url = open_gate
    page = phone(chromium, PIXEL, 412, 915)
    page.add_init_script(
        """if (sessionStorage.length === 0) sessionStorage.setItem(`vitexport bench ${location.pathname}`,
            JSON.stringify({cells: [], running: true}))"""
    )
    page.goto(url)
    assert outcome(page) == "Sent: This page can be closed."
    assert command.end()[0] == 0
    _, crashed, *others = results(folder)
    assert crashed["parity"]["verdict"] == "not run"
    assert crashed["parity"]["reason"] == "the page was closed while it ran, most likely for want of memory"
    assert [r["parity"]["verdict"] for r in others] == ["passed", "passed"]


@pytest.mark.slow
def test_a_cell_that_cannot_load_is_lost_alone(folder: Path, chromium: Browser, open_gate: tuple[Command, str]) -> None:
    command, url = open_gate
    page = phone(chromium, PIXEL, 412, 915)
    page.context.route("**/*jspi*", lambda route: route.abort())
    page.goto(url)
    assert outcome(page) == "Sent: This page can be closed."
    assert command.end()[0] == 0
    _, lost, *others = results(folder)
    assert lost["parity"]["verdict"] == "not run"
    assert "cannot be loaded" in lost["parity"]["reason"]
    assert [r["parity"]["verdict"] for r in others] == ["passed", "passed"]


@pytest.mark.slow
def test_what_the_device_computes_wrongly_fails(folder: Path, tmp_path: Path, chromium: Browser) -> None:
    bundle = read_bundle(folder / "webgpu")
    spoil = web_bundles.flip_a_bit(bundle.rung.golden[0].outputs["logits"], 3)
    spoilt = web_bundles.changed(bundle, tmp_path, spoil, rehash=True).directory
    for name in ("manifest.json", bundle.rung.golden[0].outputs["logits"]):
        shutil.copyfile(spoilt / name, folder / "webgpu" / name)
    with waiting(folder) as command:
        page = phone(chromium, PIXEL, 412, 915)
        page.goto(command.wait_for(r"open (http://\S+)")[0])
        assert outcome(page) == "Sent: This page can be closed."
        assert command.end()[0] == ParityFailed.exit_code
    assert [r["parity"]["verdict"] for r in results(folder)[1:]] == ["failed"] * 3


# ------------------------------------------------------------------------------------------------------- who knocks


@dataclass
class Door:
    folder: Path
    url: str
    before: bytes

    def unchanged(self) -> bool:
        """Nothing was written, and the server is alive: its page still comes."""
        return (self.folder / "report.json").read_bytes() == self.before and get(self.url)[0] == 200


@pytest.fixture
def door(folder: Path) -> Iterator[Door]:
    before = (folder / "report.json").read_bytes()
    (folder / "secret.txt").write_text("not served")
    with waiting(folder, "--lan", LAN) as command:
        yield Door(folder, command.wait_for(r"open (https://\S+)")[0], before)


def test_who_may_not_come_in_is_refused_and_changes_nothing(door: Door) -> None:
    base, token = door.url.rstrip("/").rsplit("/", 1)
    wrong = f"{base}/{token[:-1]}{'A' if token[-1] != 'A' else 'B'}/"

    # A wrong token, none, and part of one.
    for url in (wrong, f"{base}/", f"{base}/{token[:20]}/", f"{base}/%00/"):
        assert get(url)[0] in (403, 404)
        assert post(url, "report", b"{}")[0] in (403, 404)
    # Every way out of the folder that a path knows.
    for up in ("../", "bundle/../../", "bundle/../", "..%2f", "%2e%2e/", "bundle/%2e%2e/%2e%2e/", "bundle/..%5c..%5c"):
        assert get(door.url, f"{up}secret.txt")[0] in (403, 404), up
        assert get(door.url, f"{up}report.json")[0] in (403, 404), up
    # A body of 10 MB, said and unsaid.
    status, said = post(door.url, "report", b"[" * 10_000_000)
    assert (status, said) in ((413, b"At most 4,194,304 bytes are taken"), (None, b""))
    assert post(door.url, "report", b"", length="10000000")[0] == 413
    assert post(door.url, "report", b"", length="9" * 5000)[0] == 413
    assert post(door.url, "report", b"", length="-1")[0] == 411
    assert post(door.url, "report", b"5\r\n{}\r\n", chunked=True)[0] == 411
    # What is no report.
    for body in (b"", b"{", b"[]", b"null", b'{"schema_version": 1}', b"\xff\xfe", b"[" * 100_000, b"NaN"):
        status, said = post(door.url, "report", body)
        assert status == 400, (body[:20], said)
    # Other addresses, other verbs, other pages, other kinds, other names for this machine.
    assert post(door.url, "manifest.json", b"{}")[0] == 405
    assert post(door.url, "bundle/manifest.json", b"{}")[0] == 405
    assert send(door.url, "PUT", "report")[0] == 501
    assert send(door.url, "DELETE", "bundle/manifest.json")[0] == 501
    assert send(door.url, "POST", "report", b"{}", {"Content-Type": "text/plain"})[0] == 415
    assert send(door.url, "POST", "report", b"{}", {"Origin": "https://evil.example"})[0] == 403
    assert send(door.url, "GET", "", None, {"Host": "evil.example"})[0] == 403
    assert post(door.url, "progress", b'{"done": 1, "of": 1, "now": "' + b"x" * 3000 + b'"}')[0] == 413
    assert door.unchanged()


def test_a_client_that_never_ends_its_handshake_keeps_nobody_waiting(door: Door) -> None:
    place = urlsplit(door.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10):
        assert door.unchanged()


def test_plain_http_gets_nothing_from_a_tls_port(door: Door) -> None:
    place = urlsplit(door.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"200" not in plain.recv(100)
    assert door.unchanged()


def test_a_second_report_of_one_address_is_refused(folder: Path) -> None:
    """Two are waited for, so that the server is still there after the first; the page shows that one already. From
    inside the bundle's folder, as from anywhere."""
    (folder / "report.html").write_text("as it was")
    with waiting(Path(), "--devices", "2", cwd=folder / "webgpu") as command:
        first, second = command.wait_for(r"open (http://\S+)", 2)
        report = _posted_report(folder)
        assert post(first, "report", report)[0] == 200
        command.wait_for(r"(Filed in)")
        assert "on A phone" in (folder / "report.html").read_text()
        filed = (folder / "report.json").read_bytes()
        assert len(results(folder)) == 2
        status, said = post(first, "report", report)
        assert (status, said) == (
            410,
            b"This address has brought its report; each is good for one. Run vitexport bench again",
        )
        assert get(first)[0] == 410
        assert get(second)[0] == 200
        assert (folder / "report.json").read_bytes() == filed


def test_who_interrupts_is_told_how_many_devices_are_filed(folder: Path) -> None:
    with waiting(folder, "--devices", "2") as command:
        (first, _) = command.wait_for(r"open (http://\S+)", 2)
        assert post(first, "report", _posted_report(folder))[0] == 200
        command.wait_for(r"(Filed in)")
        command.process.send_signal(signal.SIGINT)
        assert command.wait_for(r"vitexport: (Interrupted.*)") == ["Interrupted. 1 of 2 devices filed."]
    assert len(results(folder)) == 2


def test_when_time_is_up_the_address_is_no_longer_good(folder: Path) -> None:
    """And the command says who did not come, having written nothing."""
    before = (folder / "report.json").read_bytes()
    with waiting(folder, "--timeout", "3") as command:
        command.wait_for(r"open (http://\S+)")
        assert command.process.wait(timeout=60) == WorldFailed.exit_code
        (said,) = command.wait_for(
            r"vitexport: (0 of 1 devices have answered within 3 s; device 1 did not\. Filed: 0\.)"
        )
    assert said
    assert (folder / "report.json").read_bytes() == before


def test_an_expired_token_is_refused_while_the_server_still_stands(folder: Path) -> None:
    gate = Gate(("phone",), lambda guest, raw: pytest.fail("it was taken"), 1000, deadline=time.monotonic() - 1)
    with serve(Site(folder, desk=gate)) as url:
        mine = f"{url}{gate.tokens[0]}/"
        assert get(mine, "report.json") == (410, TIME_IS_UP)
        assert post(mine, "report", b"{}") == (410, TIME_IS_UP)
        assert get(url)[0] == 403
    assert gate.arrivals.empty()


def test_a_device_that_falls_silent_is_asked_after_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "QUIET_S", 0.1)
    gate = Gate(("A", "B"), lambda name, raw: (), 10, time.monotonic() + 1.0)
    gate.arrivals.put(Arrival("A", Progress(1, 6, "fp32 on wasm")))
    with pytest.raises(WorldFailed, match=r"^0 of 2 devices have answered within 1 s; A, B did not\."):
        devices._gathered(gate, devices.Wait(tmp_path, None, 0, 1.0, ("A", "B")))
    said = capsys.readouterr().err
    assert said.count("A: nothing was heard for 0.1 s. Leave its page open") == 1
    assert "B: nothing" not in said, "nobody has opened it yet"


def test_what_a_device_says_of_its_progress_commands_no_terminal() -> None:
    gate = Gate(("phone",), lambda guest, raw: (), 1000, deadline=time.monotonic() + 60)
    said = json.dumps({"done": 0, "of": 3, "now": "\x1b]0;owned\x07\r fp32" + "x" * 200}).encode()
    gate.take("/progress", f"/{gate.tokens[0]}/progress", said).then()
    heard = gate.arrivals.get().what
    assert isinstance(heard, Progress)
    assert heard.now == "?]0;owned?? fp32" + "x" * 84


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lan",), "--lan means nothing without --device browser."),
        (("--device", "browser", "--vs", "x"), "--vs means nothing to --device browser. Leave it out."),
        (("--device", "browser", "--threads", "2"), "--threads means nothing to --device browser. Leave it out."),
        (("--device", "browser", "--devices", "0"), "--devices 0 is not a whole number from 1 to 16."),
        (("--device", "browser", "--devices", "3", "--name", "a"), "--devices 3 and 1 names do not agree."),
        (("--device", "browser", "--name", "a", "--name", "a"), "--name is up to 100 characters that print"),
        (("--device", "browser", "--timeout", "nan"), "up to 86400. Give one, such as 900."),
        (("--device", "browser", "--lan", "203.0.113.7"), "203.0.113.7 is no address of this machine."),
        (("--device", "browser", "--lan", "phone"), "--lan 'phone' is no IPv4 address"),
        (("--device", "browser", "--port", "70000"), "ports are 0 to 65535"),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(folder: Path, options: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(said)):
        bench_command.run([str(folder), *options])


# -------------------------------------------------------------------------------------------------------------- tools


def connect(url: str) -> HTTPConnection:
    place = urlsplit(url)
    if place.scheme == "http":
        return HTTPConnection(place.netloc, timeout=20)
    trusting = ssl._create_unverified_context()
    return HTTPSConnection(place.netloc, timeout=20, context=trusting)


def send(
    url: str, verb: str, path: str = "", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int | None, bytes]:
    """Status and text; None where nobody answers, or hangs up while something is still sent."""
    connection = connect(url)
    headers = {"Content-Type": "application/json", **(headers or {})}
    try:
        connection.request(verb, f"{urlsplit(url).path}{path}", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (ConnectionError, ssl.SSLError):
        return None, b""
    finally:
        connection.close()


def get(url: str, path: str = "") -> tuple[int | None, bytes]:
    return send(url, "GET", path)


def post(
    url: str, path: str, body: bytes, length: str | None = None, *, chunked: bool = False
) -> tuple[int | None, bytes]:
    headers = {"Content-Length": length} if length else {"Transfer-Encoding": "chunked"} if chunked else {}
    return send(url, "POST", path, body, headers)


def _fingerprint(url: str) -> str:
    import hashlib

    place = urlsplit(url)
    pem = ssl.get_server_certificate((place.hostname or "", place.port or 0))
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, 64, 2))


def _posted_report(folder: Path) -> bytes:
    """A report of one cell, as a page would post it."""
    import hashlib

    manifest = (folder / "webgpu" / "manifest.json").read_bytes()
    cell = {
        "precision": "fp32",
        "provider": "wasm",
        "size": {"height": 32, "width": 32},
        "parity": {"verdict": "passed", "drift": 1e-7, "snr_db": 120.0, "cosine": 1.0, "agreement": 1.0, "images": 2},
        "latency": {"verdict": "passed", "load_ms": 9.0, "cold_ms": 3.0, "times_ms": [1.0] * 30},
    }
    report = {
        "schema_version": 1,
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "device": {"name": "A phone", "runtime": "onnxruntime-web 1.30.0 in Safari 26", "provider": "browser"},
        "cells": [cell],
    }
    return json.dumps(report).encode()
