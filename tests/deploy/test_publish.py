"""Networks on the Hub: its own client against a small server, and against its cache offline."""

import base64
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants as hub
import pytest
import torch
import yaml
from builders import folder

import pipa
from pipa.deploy.card import write_card
from pipa.errors import PipaError

LABELS = pipa.LabelSpace(("road", "sky | <b>"), ((1, 2, 3), (4, 5, 6)))
COMMIT = "c0ffee" * 6 + "cafe"


class Site(BaseHTTPRequestHandler):
    """As much of the Hub as upload and download of a small repository need."""

    files: dict[str, bytes]
    tokens: set[str | None]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.tokens.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            self.answer({"url": f"{hub.ENDPOINT}/user/model"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == "/api/models/user/model/preupload/main":
            files = [file["path"] for file in json.loads(body)["files"]]
            ways = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": path, **ways} for path in files]})
        else:
            assert self.path == "/api/models/user/model/commit/main"
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[line["value"]["path"]] = content
            page = f"{hub.ENDPOINT}/user/model/commit/{COMMIT}"
            self.answer({"success": True, "commitOid": COMMIT, "commitUrl": page})

    def do_GET(self):
        _, _, name = self.path.partition(f"/user/model/resolve/{COMMIT}/")
        if name in self.files:
            self.answer(self.files[name])
        elif self.path.startswith("/api/models/user/model/tree/"):
            about = [
                {"type": "file", "path": path, "size": len(data), "oid": f"{i:040}"}
                for i, (path, data) in enumerate(self.files.items())
            ]
            self.answer(about)
        elif self.path.startswith("/api/models/user/model/revision/"):
            files = [{"rfilename": path} for path in self.files]
            self.answer({"id": "user/model", "sha": COMMIT, "siblings": files})
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def answer(self, content):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        kind = "application/octet-stream" if data is content else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{len(data):040}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def site():
    kind = type("OneSite", (Site,), {"files": {}, "tokens": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", kind
        server.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_up_to_the_hub_and_down_again(cache, monkeypatch):
    torch.manual_seed(0)
    model = pipa.create_segmenter("small", 2)
    model.labels = LABELS
    with site() as (address, kept):
        monkeypatch.setattr(hub, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        page = pipa.push_to_hub(model, "user/model", token="hf_secret")
        assert page == f"{address}/user/model"
        assert kept.tokens == {"Bearer hf_secret"}
        assert sorted(kept.files) == ["README.md", "config.json", "model.safetensors"]
        found = pipa.load_segmenter("user/model")
        assert same(found, model)
        with pytest.raises(PipaError, match=r"user/other: no such file .* not to be had .*404"):
            pipa.load_segmenter("user/other")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert same(pipa.from_pretrained("user/model"), model), "the cache is enough from now on"
    with pytest.raises(PipaError, match="user/other: no such file or folder"):
        pipa.load_segmenter("user/other")


def same(found, model):
    weights = model.state_dict()
    equal = (torch.equal(weights[name], value) for name, value in found.state_dict().items())
    return found.labels == model.labels and not found.training and all(equal)


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(cache, tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(PipaError, match=r"runs/mien: no such file$|runs/mien: no such file\."):
        pipa.load_segmenter("runs/mien")


def run(tmp_path, seed, miou):
    run = tmp_path / f"seed{seed}"
    run.mkdir()
    data = {"source": "gta5:/home/me/secret/gta5", "target": "/home/me/secret/photos"}
    student = {"name": "daformer_mit_b5", "pretrained": "auto"}
    method = {"name": "pipa"}
    text = yaml.safe_dump({"seed": seed, "data": data, "student": student, "method": method})
    (run / "config.yaml").write_text(text)
    scores = {"seed": seed, "miou": miou, "iou": {"road": miou + 10, "sky | <b>": None}}
    (run / "results.json").write_text(json.dumps(scores))
    return run


def test_the_card_says_what_a_user_must_know(tmp_path):
    model = pipa.create_segmenter("small", 2)
    model.labels = LABELS
    runs = [run(tmp_path, seed, miou) for seed, miou in ((0, 50.0), (1, 52.0), (2, 54.0))]
    pipa.save_pretrained(model, tmp_path / "model", runs=runs, name="user/model")
    card = (tmp_path / "model" / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    about = yaml.safe_load(head)
    assert about["base_model"] == "nvidia/mit-b5"
    assert about["license"] == "other"
    assert "research" in about["license_name"]
    assert "| 1 | sky \\| &lt;b&gt; | 4, 5, 6 |" in text, "names are data"
    assert "| class | seed 0 | seed 1 | seed 2 |" in text
    assert "| road | 60.0 | 62.0 | 64.0 |" in text
    assert "mIoU over 3 seeds: 52.0 ± 2.0." in text
    assert "source: gta5:gta5 (labelled)" in text
    assert "target: photos (no label was used)" in text
    assert "secret" not in card
    assert re.search(r"nvidia/mit-b5.*bound to their licence: NVIDIA.*research", text)
    pipa.save_pretrained(model, tmp_path / "model", runs=runs[:1])
    assert "One seed: another one" in (tmp_path / "model" / "README.md").read_text()
    assert pipa.load_segmenter(tmp_path / "model").labels == LABELS
    with pytest.raises(PipaError, match="not a saved network"):
        pipa.save_segmenter(model, tmp_path / "model")  # it would remove the card


def test_the_card_has_the_scores_of_the_model_that_was_kept(tmp_path):
    folder = run(tmp_path, 0, 30.0)
    scores = json.loads((folder / "results.json").read_text())
    scores["judgement"] = {"outcome": "worse", "kept": "source_only"}
    scores["source_only"] = {"miou": 45.0, "iou": {"road": 55.0}}
    (folder / "results.json").write_text(json.dumps(scores))
    card = write_card(pipa.create_segmenter("small", 2), [folder], "user/model")
    assert "| class | seed 0 |" in card
    assert "| **mIoU** | 45.0 |" in card
    assert "| road | 55.0 |" in card
    del scores["judgement"]["kept"]  # as runs wrote it before labelled images decided
    (folder / "results.json").write_text(json.dumps(scores))
    card = write_card(pipa.create_segmenter("small", 2), [folder], "user/model")
    assert "| **mIoU** | 45.0 |" in card


def test_a_card_without_a_run_claims_nothing(tmp_path):
    card = write_card(pipa.create_segmenter("small", 2), [], "user/model")
    assert "license" not in card.split("---")[1]
    assert "Not measured." in card
    assert "2, without names." in card
    with pytest.raises(PipaError, match=r"config\.yaml and results\.json .* has ended"):
        write_card(pipa.create_segmenter("small", 2), [folder(tmp_path / "d", 1)], "user/model")
