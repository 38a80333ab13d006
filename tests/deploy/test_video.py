"""Videos: what is written plays in a browser, and is read as it was."""

import shutil
import struct
import subprocess
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue

import av
import numpy as np
import pytest

from pipa.deploy.video import VideoReader, VideoWriter

PAGE = b"""<video id=v muted autoplay src=/x.webm></video><script>
const tell = text => fetch('/found', {method: 'POST', body: text})
v.onerror = () => tell(v.error.message)
v.onended = () => {
    const c = document.createElement('canvas').getContext('2d')
    c.drawImage(v, 0, 0)
    const found = [v.videoWidth, v.videoHeight, v.duration.toFixed(1)]
    tell([...found, ...c.getImageData(20, 15, 1, 1).data].join(' '))
}
</script>"""


@pytest.fixture
def path(tmp_path):
    """Three red frames, then three blue ones; the sides are odd."""
    path = tmp_path / "x.webm"
    with VideoWriter(path, Fraction(12)) as sink:
        for colour in [(250, 0, 0)] * 3 + [(0, 0, 250)] * 3:
            sink.write(np.full((33, 47, 3), colour, np.uint8))
    return path


def test_what_is_written_is_read(path):
    with VideoReader(path) as reader:
        assert (reader.rate, reader.estimate) == (12, 6)
        frames = list(reader)
    assert [frame.shape for frame in frames] == [(33, 47, 3)] * 6
    assert np.abs(frames[0].astype(int) - (250, 0, 0)).max() < 12
    assert np.abs(frames[5].astype(int) - (0, 0, 250)).max() < 12


def test_a_video_of_a_telephone_is_turned_upright(tmp_path):
    """The matrix of its track says: by 90 degrees clockwise, so what is left comes to the top."""
    path = tmp_path / "x.mp4"
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:, :24] = 200
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for picture in (av.VideoFrame.from_ndarray(frame, format="rgb24"), None):
            container.mux(stream.encode(picture))
    as_is = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    head, track, rest = path.read_bytes().partition(b"tkhd")
    path.write_bytes(head + track + rest.replace(as_is, turned, 1))
    with VideoReader(path) as reader:
        (upright,) = reader
    assert upright.shape == (48, 32, 3)
    assert upright[:20].mean() > 180
    assert upright[28:].mean() < 20


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_plays_the_video(path, tmp_path):
    """Chromium finds its size and length, plays it, and ends with its last frame."""
    found = Queue()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self):
            is_video = self.path == "/x.webm"
            self.send_response(200)
            self.send_header("Content-Type", "video/webm" if is_video else "text/html")
            self.end_headers()
            self.wfile.write(path.read_bytes() if is_video else PAGE)

        def do_POST(self):
            found.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command = ["chromium", *options, f"--user-data-dir={tmp_path / 'profile'}", address]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as browser:
            try:
                width, height, seconds, *colour = found.get(timeout=90).split()
            finally:
                browser.terminate()
                server.shutdown()
    assert (width, height, seconds) == ("47", "33", "0.5")
    assert np.abs(np.array(colour, int) - (0, 0, 250, 255)).max() < 12
