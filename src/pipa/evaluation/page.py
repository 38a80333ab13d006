"""The style sheet and the frame of the report's page. `report` has its contents."""

from collections.abc import Sequence
from html import escape
from string import Template

_STYLE = Template("""
:root { color-scheme: light dark;
  --ground: #fbfbfc; --card: #fff; --ink: #20242b; --soft: #636b78; --line: #e3e6ea;
  --good: #007a58; --bad: #b3431a; $light }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171b; --card: #1c2026; --ink: #e6e8ec; --soft: #9aa3b0; --line: #31363f;
  --good: #3fcf9f; --bad: #f0916a; $dark } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 56px }
h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; margin: 0 0 8px;
  letter-spacing: -.01em }
h2 { font-size: 1.15rem; margin: 48px 0 4px }
p { margin: 0 0 14px; max-width: 90ch }
.lead { font-size: 1.1rem; color: var(--soft); margin-bottom: 24px }
.lead b { color: var(--ink) }
.note { color: var(--soft); font-size: .92rem }
.up { color: var(--good) } .down { color: var(--bad) }
.cards { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)) }
.card { background: var(--card); border: 1px solid var(--line); border-top: 4px solid var(--tone);
  border-radius: 10px; padding: 14px 18px 16px }
.card h3 { margin: 0; font-size: 1rem; font-weight: 600 }
.card .big { font-size: 2.5rem; font-weight: 650; line-height: 1.15; white-space: nowrap;
  letter-spacing: -.02em }
.card .big small { font-size: .95rem; margin-left: -.3em; font-weight: 400;
  color: var(--soft); letter-spacing: 0 }
.pair { display: grid; gap: 14px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)) }
figure { margin: 0 }
.plot { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 14px 8px }
.plot figcaption { font-weight: 600; margin-bottom: 6px }
.plot img { display: block; width: 100%; height: auto }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .95rem }
th, td { padding: 6px 14px; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 2px solid var(--line); font-weight: 600 }
tbody td { border-bottom: 1px solid var(--line) }
tfoot td { font-weight: 650 }
.best { font-weight: 650 }
details { margin-top: 14px } summary { cursor: pointer; padding: 4px 0; color: var(--soft) }
.chip { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .5em;
  vertical-align: -.04em; border: 1px solid rgba(128,128,128,.5) }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; padding: 0;
  margin: 6px 0 16px; font-size: .9rem }
.row { display: grid; gap: 10px; grid-template-columns: repeat($columns, 1fr); margin-bottom: 22px }
.row img { display: block; width: 100%; height: auto; border-radius: 6px }
.row .ids { image-rendering: pixelated }
.row figcaption { font-size: .85rem; margin-bottom: 4px; display: flex; gap: 8px;
  justify-content: space-between; flex-wrap: wrap }
.row figcaption span { color: var(--soft) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 22px; margin: 8px 0 0;
  font-size: .93rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 640px) {
  main { padding: 24px 14px 40px } h2 { margin-top: 36px }
  .row { grid-template-columns: repeat(2, 1fr); padding-bottom: 14px;
    border-bottom: 1px solid var(--line) }
  .cards { grid-template-columns: repeat(auto-fit, minmax(145px, 1fr)); gap: 10px }
  .card { padding: 10px 14px 12px } .card .big { font-size: 2rem }
  table { font-size: .86rem } th, td { padding: 6px 8px }
  dl { grid-template-columns: 1fr } dd { margin-bottom: 6px }
}
@media print { body { background: none } .plot, .row { break-inside: avoid } }
""")


def page(title: str, body: str, *, columns: int, light: Sequence[str], dark: Sequence[str]) -> str:
    """Return a whole HTML document that needs no other file.

    Args:
        title: Plain text, for the window and the bookmark.
        body: HTML of the page.
        columns: Pictures per row of the gallery on a wide screen.
        light: The methods' colours on a light page; in CSS they are `--tone0`, `--tone1`, ...
        dark: The methods' colours on a dark page.
    """
    style = _STYLE.substitute(columns=columns, light=_tones(light), dark=_tones(dark))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _tones(colours: Sequence[str]) -> str:
    return " ".join(f"--tone{i}: {colour};" for i, colour in enumerate(colours))
