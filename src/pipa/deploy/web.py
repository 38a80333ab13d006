"""A page in the browser on which one network, or two, label what is dropped (Gradio).

The server belongs to one process and one private folder: what is uploaded lies there and nowhere
else, nothing outside it is served, and it is removed at the end.
"""

import html
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import gradio as gr
import jinja2

from pipa.deploy.side_by_side import (
    Image,
    LabelledImage,
    Legend,
    Limits,
    Shown,
    SideBySide,
    is_video,
)
from pipa.errors import PipaError
from pipa.files.images import write_png

VIEWS = dict(zip(("Classes", "Confidence"), get_args(Shown), strict=True))
STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto }
.pipa { color: var(--body-text-color) }
.pipa h1 { font-size: 1.4rem; font-weight: 600; margin: 4px 0 }
.pipa p { margin: 0 0 6px; overflow-wrap: anywhere }
.pipa table { border-collapse: collapse; border: 0 !important; width: 100%;
  font-variant-numeric: tabular-nums; font-size: .9rem }
.pipa tr, .pipa th, .pipa td { border: 0 !important; text-align: right; font-weight: 400 }
.pipa th, .pipa td { padding: 4px 6px !important; white-space: nowrap }
.pipa thead th { vertical-align: bottom; white-space: normal }
.pipa thead tr:last-child th { border-bottom: 1px solid var(--border-color-primary) !important }
.pipa tbody tr + tr td { border-top: 1px solid var(--border-color-primary) !important }
.pipa th:first-child, .pipa td:first-child { text-align: left; white-space: normal }
.pipa i { display: inline-block; width: .85em; height: .85em; margin-right: .4em;
  border-radius: 3px; vertical-align: -.06em; border: 1px solid rgba(128,128,128,.5) }
@media (max-width: 640px) {
  .gradio-container main { padding: 12px !important }
  .pipa table { font-size: .8rem }
  .pipa th, .pipa td { padding: 4px 3px !important } }
"""
LEGEND = jinja2.Environment(autoescape=True).from_string("""\
<div class="pipa">
<p>{% for name in names %}{{ name }} is sure of its classes to
{{ "%.0f" | format(100 * legend.confidence[loop.index0]) }} % on average.
{% endfor %}{% if legend.same is not none %}They agree on
{{ "%.1f" | format(100 * legend.same) }} % of the pixels.{% endif %}</p>
<table><thead>
<tr><th>class</th><th colspan="{{ names | length }}">share</th>
<th colspan="{{ names | length }}">confidence</th></tr>
{% if names[1:] %}<tr><th></th>
{% for name in names + names %}<th>{{ name }}</th>{% endfor %}</tr>{% endif %}
</thead><tbody>
{% for row in legend.rows %}<tr>
<td><i style="background: rgb{{ row.colour }}"></i>{{ row.name }}</td>
{% for share in row.shares %}<td>{{ "%.1f" | format(100 * share) }} %</td>{% endfor %}
{% for sure in row.confidence %}
<td>{% if sure is none %}&ndash;{% else %}{{ "%.0f" | format(100 * sure) }} %{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
""")


@contextmanager
def serving(
    models: SideBySide,
    examples: Sequence[Image],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
) -> Iterator[str]:
    """Serve the page until the end of the context; yield its address.

    Args:
        models: The networks.
        examples: Images to choose from.
        host: The address of this machine to listen at; 127.0.0.1: nobody else can reach it.
        port: The port; None: the first free one from 7860 on.

    Raises:
        PipaError: It cannot listen there.
    """
    private = Path(tempfile.mkdtemp(prefix="pipa-web-")).resolve()
    # Gradio serves its upload folder, which all its pages share by default, and its cache, which
    # is in the working folder by default.
    given = {"GRADIO_TEMP_DIR": "files", "GRADIO_EXAMPLES_CACHE": "cache"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update({name: str(private / folder) for name, folder in given.items()})
    (private / "served").mkdir()
    page = _page(models, _written(examples, private / "examples"), private)
    try:
        yield _launch(page, models.limits, private / "served", host, port)
    finally:
        page.close(verbose=False)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(private, ignore_errors=True)


def _launch(page: gr.Blocks, limits: Limits, served: Path, host: str, port: int | None) -> str:
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            allowed_paths=[str(served)],  # not empty: else GRADIO_ALLOWED_PATHS would widen it
            max_file_size=limits.megabytes * 2**20,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            enable_monitoring=False,
            mcp_server=False,
            run_history=False,
            ssr_mode=False,
            footer_links=[],
            state_session_capacity=20,
            css=STYLE,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"]),
        )
    except (OSError, ValueError) as error:  # ValueError: a proxy is asked for this machine
        remedy = "Give another --host or --port; where there is a proxy, set NO_PROXY=127.0.0.1."
        raise PipaError("cannot be listened at", f"{host}:{port or 7860}", remedy) from error
    return str(address)


def _written(images: Sequence[Image], folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{i + 1}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_png(path, image)
    return paths


def _page(models: SideBySide, examples: list[Path], private: Path) -> gr.Blocks:
    """Lay the page out, and say what happens when."""
    limits = models.limits
    answers = _Answers(models, private)
    names = models.names if len(models.names) == 2 else ("image", *models.names)
    heading = f"<h1>pipa: {html.escape(' and '.join(models.names))}</h1>"
    about = (
        f"<p>An image (reduced to {limits.side} pixels) or a video of at most {limits.frames} "
        f"frames, up to {limits.megabytes} MB. It never leaves the machine that runs pipa.</p>"
    )
    # no telemetry; files older than an hour are deleted
    page = gr.Blocks(analytics_enabled=False, title="pipa", delete_cache=(600, 3600))
    with page:
        gr.HTML(f'<div class="pipa">{heading}{about}</div>')
        shown = gr.State()
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                given = gr.File(
                    label="Image or video",
                    file_types=["image", "video"],
                    height=150,
                    elem_id="given",
                )
                samples = gr.Dataset(
                    label="Examples",
                    components=[gr.Image(visible=False, label="example")],
                    samples=[[str(path)] for path in examples],
                    type="index",
                    layout="gallery",
                    elem_id="examples",
                )
                view = gr.Radio(list(VIEWS), value="Classes", label="Show", elem_id="view")
                opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", elem_id="opacity")
            with gr.Column(scale=3, min_width=320):
                label = f"left: {names[0]} | right: {names[1]}"
                slider = gr.ImageSlider(label=label, interactive=False, elem_id="slider")
                video = gr.Video(label=label, visible=False, autoplay=True, elem_id="video")
                legend = gr.HTML(elem_id="legend")
        results = [shown, slider, video, legend]
        alone: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
        given.upload(answers.file, [given, view, opacity], results, **alone)
        samples.click(answers.example(examples), [samples, view, opacity], results, **alone)
        for control in (view, opacity):
            control.change(
                answers.repaint,
                [shown, view, opacity],
                slider,
                trigger_mode="always_last",
                show_progress="hidden",
            )
    page.queue(max_size=20)
    return page


class _Answers:
    """What the page does: each method returns values of its components."""

    def __init__(self, models: SideBySide, private: Path) -> None:
        self.models, self.private = models, private

    def file(
        self,
        given: str,
        view: str,
        alpha: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio looks for it in the signature)
    ) -> tuple[Any, ...]:
        """Label an uploaded file."""
        path = Path(given)
        try:
            if is_video(path):
                return self._video(path, view, alpha, progress)
            return self._image(self.models.read(path), view, alpha)
        except PipaError as error:
            said = f"{path.name} {error.problem}. {error.remedy}"  # no path of this machine
            raise gr.Error(html.escape(said), duration=None, print_exception=False) from error

    def example(self, paths: list[Path]) -> Any:
        """Return the function that labels one of the examples."""

        def chosen(index: int, view: str, alpha: float) -> tuple[Any, ...]:
            return self._image(self.models.read(paths[index]), view, alpha)

        return chosen

    def repaint(self, shown: LabelledImage | None, view: str, alpha: float) -> Any:
        """Paint the same answers differently; a video stays as it is."""
        if shown is None:
            return gr.skip()
        return self.models.pictures(shown, VIEWS[view], alpha)

    def _image(self, image: Image, view: str, alpha: float) -> tuple[Any, ...]:
        shown = self.models.label(image)
        return (
            shown,
            gr.ImageSlider(self.models.pictures(shown, VIEWS[view], alpha), visible=True),
            gr.Video(None, visible=False),
            self._legend(self.models.legend(shown)),
        )

    def _video(self, path: Path, view: str, alpha: float, progress: gr.Progress) -> tuple[Any, ...]:
        folder = Path(tempfile.mkdtemp(dir=self.private / "files"))
        out = folder / f"{path.stem}.webm"
        legend = self.models.video(
            path,
            out,
            view=VIEWS[view],
            alpha=alpha,
            tick=lambda done, count: progress((done, count), unit="frames"),
        )
        slider, video = gr.ImageSlider(None, visible=False), gr.Video(str(out), visible=True)
        return None, slider, video, self._legend(legend)

    def _legend(self, legend: Legend) -> str:
        return LEGEND.render(names=self.models.names, legend=legend)
