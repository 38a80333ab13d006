"""`pipa web` as a visitor and an intruder meet it: the real command, driven by Chromium."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from fractions import Fraction
from http.client import HTTPConnection
from pathlib import Path

import builders
import numpy as np
import pytest
import torch

from pipa.classes import LabelSpace
from pipa.deploy.video import VideoWriter
from pipa.files.images import read_image
from pipa.files.paint import colourise
from pipa.models.build import create_segmenter
from pipa.models.saved import load_segmenter, save_segmenter

gradio = pytest.importorskip("gradio", reason='needs pip install "pipa-uda[web]"')
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

SPACE = LabelSpace(("ground", "<b>water", "forest"), ((90, 60, 40), (30, 60, 200), (20, 140, 30)))
PATIENCE = 120_000  # milliseconds; a busy machine


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a source-only and an adapted model, and the target that it had."""
    run = tmp_path_factory.mktemp("web") / "run"
    for seed, name in enumerate(("source_only", "model")):
        torch.manual_seed(seed)
        save_segmenter(create_segmenter("small", num_classes=3), run / name, SPACE)
    target = builders.folder(run.parent / "photos", 2, labelled=False)
    (run / "config.yaml").write_text(f"data: {{target: '{target}'}}\n")
    return run


@pytest.fixture(scope="module")
def port(run):
    """The page's port; at the end it is stopped by Ctrl-C, and leaves nothing behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = run.parent / "temporary"
    folder.mkdir()
    command = [sys.executable, "-m", "pipa", "web", str(run), f"--port={port}", "--device=cpu"]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    place = {"cwd": run.parent, "env": environment(TMPDIR=str(folder))}
    with subprocess.Popen(command, **given, **place) as server:
        try:
            said = server.stdout.readline()
            assert f"source-only and adapted: http://127.0.0.1:{port}/" in said, (
                server.stderr.read()
            )
            yield port
        finally:
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate()
    assert server.returncode == 0
    faults = re.findall(r"^[\w.]*(?:Error|Exception|Warning)\b.*", errors, re.MULTILINE)
    assert not [fault for fault in faults if "it was not uploaded by a user" not in fault], errors
    assert not list(folder.glob("pipa-web-*"))


def environment(**further):
    path = str(Path(sys.modules["pipa"].__file__).parents[1])
    return {**os.environ, "PYTHONPATH": path, "GRADIO_ALLOWED_PATHS": "/", **further}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def context(browser):
    """It keeps the page's scripts for the next test."""
    with browser.new_context(viewport={"width": 1000, "height": 900}) as context:
        yield context


@pytest.fixture
def page(context, port):
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    hosts = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto(f"http://127.0.0.1:{port}/")
    yield page
    page.close()
    assert {host for host in hosts if host} <= {f"127.0.0.1:{port}"}  # data: has none


def give(page, path):
    page.locator("#given input[type=file]").set_input_files(path)


def refusal(page):
    toast = page.get_by_test_id("toast-body")
    toast.wait_for()
    said = toast.inner_text()
    toast.get_by_test_id("toast-close").click()
    toast.wait_for(state="detached")
    return said


def pictures(page):
    """The two pictures of the slider."""
    found = page.locator("#slider img")
    sources = [found.nth(i).get_attribute("src") for i in range(2)]
    return [decode(source) for source in sources]


def decode(address):
    from PIL import Image

    with urllib.request.urlopen(address) as answer:
        return np.array(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(int)


def test_a_dropped_image_is_labelled_by_both_models(page, run):
    """Shares are those of the models; at full opacity the slider shows their classes."""
    photo = next((run.parent / "photos").rglob("*.png"))
    page.locator("#opacity input[type=number]").fill("1")
    give(page, photo)
    page.locator("#legend tbody tr").first.wait_for()
    image = read_image(photo)
    ids = [load_segmenter(run / name).predict(image) for name in ("source_only", "model")]
    shares = [np.bincount(one.ravel(), minlength=3) / one.size for one in ids]
    rows = {}
    for row in page.locator("#legend tbody tr").all():
        name, *values = row.locator("td").all_inner_texts()
        rows[name.strip()] = [float(value.removesuffix(" %")) for value in values[:2]]
    expected = {
        name: [round(100 * float(share[k]), 1) for share in shares]
        for k, name in enumerate(SPACE.names)
        if shares[0][k] + shares[1][k]
    }
    assert rows == {name: pytest.approx(values, abs=0.051) for name, values in expected.items()}
    agree = 100 * (ids[0] == ids[1]).mean()
    assert f"agree on {agree:.1f} %" in " ".join(page.locator("#legend").inner_text().split())
    for found, one in zip(pictures(page), ids, strict=True):
        assert np.abs(found - colourise(one, SPACE.colours)).mean() < 12  # WebP

    before = page.locator("#slider img").first.get_attribute("src")
    page.locator("#opacity input[type=number]").fill("0")
    page.locator("#opacity input[type=number]").press("Enter")
    page.wait_for_function(
        "src => document.querySelector('#slider img').getAttribute('src') != src", arg=before
    )
    for found in pictures(page):
        assert np.abs(found - image).mean() < 12


def test_examples_of_the_target_are_built_in(page):
    page.get_by_label("Confidence").click()
    page.locator("#examples img").nth(1).click()
    page.locator("#legend tbody tr").first.wait_for()
    for found in pictures(page):
        assert (np.ptp(found, axis=2) < 8).all()  # grey


def test_a_video_plays_with_both_models_beside_each_other(page, run, tmp_path):
    with VideoWriter(tmp_path / "x.webm", Fraction(10)) as sink:
        for shade in (60, 120, 180):
            sink.write(np.full((48, 64, 3), shade, np.uint8))
    give(page, tmp_path / "x.webm")
    page.locator("#legend tbody tr").first.wait_for()
    page.wait_for_function("document.querySelector('#video video')?.videoWidth == 128")


def test_what_is_no_picture_or_too_large_is_refused_in_words(page, port, tmp_path):
    (tmp_path / "x.txt").write_text("no picture")
    give(page, tmp_path / "x.txt")
    assert "nvalid file type" in refusal(page)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(53_000_000)
    give(page, tmp_path / "large.png")
    assert "exceed the maximum allowed size of 50.0 Mb" in refusal(page)
    assert post(port, "upload", *form("x.png", bytes(53_000_000)))[0] == 413
    (tmp_path / "x.png").write_text("no picture")
    give(page, tmp_path / "x.png")
    said = refusal(page)
    assert "x.png is neither an image nor a video that is read. Take a JPEG" in said
    assert "/" not in said  # no path of the machine


def test_no_file_of_the_machine_is_served(port, run):
    """Though GRADIO_ALLOWED_PATHS would allow all, and the models lie in the working folder."""
    config = run / "model" / "config.json"
    paths = ["/etc/passwd", "../../../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd"]
    paths += ["%2e%2e/%2e%2e/%2e%2e/etc/passwd", str(config), "run/model/config.json"]
    paths += [f"{config}%00.png", "file:///etc/passwd"]
    status, sent = post(port, "upload", *form("../../../../evil.png", b"x"))
    assert status == 200
    kept = Path(json.loads(sent)[0])
    assert kept.is_relative_to((run.parent / "temporary").resolve())
    paths += [f"{kept}/../../../../run/config.yaml", f"{kept.parent}/../../../run/config.yaml"]
    for path in paths:
        for route in ("gradio_api/file=", "gradio_api/file/", "assets/", "static/"):
            status, content = get(port, f"/{route}{path}")
            assert status >= 400, (route, path)
            assert b"root:" not in content
            assert b"pipa-segmenter" not in content


def test_the_models_are_given_no_file_that_was_not_uploaded(page, port, run):
    """What a browser sends after an upload, with a path of the machine in place of the upload's."""
    photo = next((run.parent / "photos").rglob("*.png"))
    kept = json.loads(post(port, "upload", *form("x.png", photo.read_bytes()))[1])[0]
    assert "process_completed" in answer(port, kept)
    assert re.search(r'"success": ?true', answer(port, kept))
    assert re.search(r'"success": ?false', answer(port, str(photo)))


def test_nobody_else_can_reach_it(port):
    with socket.socket() as elsewhere, pytest.raises(ConnectionRefusedError):
        elsewhere.connect(("127.0.0.2", port))


def answer(port, path):
    """The events of a call of the page's first function with a file."""
    data = {"path": path, "meta": {"_type": "gradio.FileData"}}
    call = {"data": [data, "Classes", 0.5], "fn_index": 0, "session_hash": f"s{abs(hash(path))}"}
    head = {"Content-Type": "application/json"}
    assert post(port, "queue/join", json.dumps(call).encode(), head)[0] == 200
    status, events = get(port, f"/gradio_api/queue/data?session_hash={call['session_hash']}")
    assert status == 200
    return events.decode()


def form(name, content):
    """A file in a form, as a browser sends it."""
    head = f'--cut\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--cut--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=cut"}


def post(port, route, body, head):
    return request(port, "POST", f"/gradio_api/{route}", body, head)


def get(port, path):
    return request(port, "GET", path)


def request(port, method, path, body=None, head=None):
    """Send a path as it is: a client for people would tidy `..` away."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE / 1000)
    connection.request(method, path, body, head or {})
    answered = connection.getresponse()
    content = answered.read()
    connection.close()
    return answered.status, content
