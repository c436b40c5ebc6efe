"""A contact sheet of scored pictures, in one file of HTML that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..imaging.files import ImageError, read_thumbnail
from ..store import atomic_write
from .results import Row

SHOWN, SIDE = 8, 200  # pictures of a kind; pixels of a thumbnail
BINS, WIDTH, HEIGHT = 24, 640, 180  # of the histogram

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fdfdfb; --soft: #5c5f66; --new: #1f6feb; --old: #b35900 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ea; --paper: #16171a; --soft: #a6a9b0; --new: #79b8ff; --old: #ffa657 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; padding: 0; list-style: none }
figure { margin: 0 }
img { max-width: 100%; height: auto; border-radius: 4px }
figcaption, p { font-size: .85rem; color: var(--soft); overflow-wrap: anywhere }
svg { width: 100%; height: auto }
svg text { font-size: 12px; fill: var(--soft) }
.new { fill: var(--new) }
.old { fill: none; stroke: var(--old); stroke-width: 2 }
.axis { stroke: var(--soft) }
"""


def write_sheet(
    path: Path, rows: Sequence[Row], title: str, notes: Sequence[str] = (), higher_is_better: bool = True
) -> None:
    """The histogram of the scores; the best and the worst pictures; those that adapting moved most.

    Args:
        rows: as scored; those without a score are counted. Pictures are read again, for small copies that stand in the file.
        notes: sentences below the title, such as what the model predicts.

    Raises:
        OSError: it could not be written; what was there before is still there.
    """
    scored = [row for row in rows if not row.error]
    moved = [row for row in scored if row.score != row.source_score]
    best = sorted(scored, key=lambda row: row.score, reverse=higher_is_better)
    few = min(SHOWN, (len(best) + 1) // 2)
    sections = [_figure(scored, bool(moved))]
    sections.append(_pictures("Best", best[:few]))
    sections.append(_pictures("Worst", best[::-1][: min(few, len(best) - few)]))
    sections.append(_pictures("Moved most by adapting", sorted(moved, key=lambda row: -abs(_move(row)))[:SHOWN]))
    counts = f"{len(scored)} pictures"
    if len(scored) < len(rows):
        counts += f"; {len(rows) - len(scored)} more could not be scored"
    text = "".join(f"<p>{html.escape(_printable(note))}</p>\n" for note in (counts, *notes))
    title = html.escape(_printable(title))
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{text}{"".join(sections)}</main>
</body>
</html>
"""
    with atomic_write(path.resolve()) as partial:
        partial.write_text(page, encoding="utf-8")


def _move(row: Row) -> float:
    return row.score - row.source_score


def _printable(text: str) -> str:
    """Bytes of a file name that are no text become codes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _pictures(heading: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    items = "\n".join(f"<li>{_picture(row)}</li>" for row in rows)
    return f"<h2>{heading}</h2>\n<ul>\n{items}\n</ul>\n"


def _picture(row: Row) -> str:
    name = html.escape(_printable(row.path.name))
    moved = f", moved by {_move(row):+.3f}" if row.score != row.source_score else ""
    caption = f"<strong>{row.score:.3f}</strong>{moved}<br>{name}"
    try:
        image = read_thumbnail(row.path, SIDE)
    except ImageError:  # gone since it was scored
        return f"<figure><figcaption>{caption} (cannot be read any more)</figcaption></figure>"
    buffer = io.BytesIO()
    Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = image.shape[1:]
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" '
        f'alt="{name}, scored {row.score:.3f}{moved}"><figcaption>{caption}</figcaption></figure>'
    )


def _figure(rows: Sequence[Row], adapted: bool) -> str:
    """Bars of the scores; where adapting moved some, a line of the source model's."""
    scores, source = (np.array([getattr(row, name) for row in rows]) for name in ("score", "source_score"))
    if not len(rows):
        return ""
    both = np.concatenate([scores, source])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    bars, outline = (np.histogram(values, edges)[0] for values in (scores, source))
    floor, step = HEIGHT - 20, WIDTH / BINS
    unit = (floor - 10) / max(bars.max(), outline.max())
    parts = [
        f'<rect class="new" x="{i * step + 1:.1f}" y="{floor - unit * n:.1f}" width="{step - 2:.1f}" height="{unit * n:.1f}"/>'
        for i, n in enumerate(bars)
    ]
    if adapted:
        line = " ".join(f"H{i * step:.1f} V{floor - unit * n:.1f}" for i, n in enumerate(outline))
        parts.append(f'<path class="old" d="M0 {floor} {line} H{WIDTH} V{floor}"/>')
    median = float(np.median(scores))
    about = f"Histogram of {len(rows)} scores from {scores.min():.3f} to {scores.max():.3f}, median {median:.3f}"
    legend = "Bars: the scores. Line: the source model's." if adapted else "The scores."
    return f"""<h2>Histogram</h2>
<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{about}">
<line class="axis" x1="0" x2="{WIDTH}" y1="{floor}" y2="{floor}"/>
{"".join(parts)}
<text x="0" y="{HEIGHT - 5}">{edges[0]:.3f}</text><text x="{WIDTH}" y="{HEIGHT - 5}" text-anchor="end">{edges[-1]:.3f}</text>
</svg><figcaption>{legend} {about}.</figcaption></figure>
"""
