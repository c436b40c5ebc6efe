"""Run the notebooks and store their outputs; check their figures."""

import base64
import io
import platform
import re
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image, ImageChops, ImageStat

from . import ROOT, list_notebooks

TIMES = ROOT / "book" / "execution.md"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

# Asked of each kernel after the last cell: its peak memory in megabytes.
PEAK_MEMORY = """
import sys as _sys
try:
    import resource as _resource
    print(_resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss >> (20 if _sys.platform == "darwin" else 10))
except ImportError:  # Windows
    import psutil as _psutil
    print(_psutil.Process().memory_info().peak_wset >> 20)
"""


def execute(paths: list[Path]) -> int:
    """Run notebooks in place. Running them twice changes no file but the page of execution times."""
    failed = []
    for path in paths:
        print(f"{path.relative_to(ROOT)} … ", end="", flush=True)
        try:
            seconds, megabytes = execute_one(path)
        except CellExecutionError as error:
            failed.append(path)
            print(f"failed\n{error}")
            continue
        print(f"{seconds:.0f} s, {megabytes} MB, {path.stat().st_size / 1000:.0f} kB")
        record_time(path, seconds, megabytes)
    return 1 if failed else 0


def execute_one(path: Path) -> tuple[float, int]:
    """Run one notebook and store its outputs → (wall seconds, peak megabytes)."""
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK_MEMORY))
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # no notes about the transport
        coalesce_streams=True,  # else the number of stream outputs depends on timing
    )
    start = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - start
    megabytes = int(notebook.cells.pop().outputs[0].text)
    clean(notebook)
    after = nbformat.writes(notebook) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8", newline="\n")
    return seconds, megabytes


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs from run to run or from machine to machine; keep outputs, counts and cell ids."""
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)  # dead on a page; the HTML beside it is alive
            if "image/png" in data:
                data["image/png"] = shrink(data["image/png"])


def shrink(png: str) -> str:
    """A chart with 256 colours takes a third of the room; a photograph would show it, and is left as it is."""
    before = base64.b64decode(png)
    image = Image.open(io.BytesIO(before)).convert("RGB")
    small = image.quantize(256, dither=Image.Dither.NONE)
    error = ImageStat.Stat(ImageChops.difference(image, small.convert("RGB"))).mean
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    if max(error) > 0.3 or buffer.tell() >= len(
        before
    ):  # grey levels of 255, on average
        return png
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def record_time(path: Path, seconds: float, megabytes: int) -> None:
    """Put one notebook's time and memory into the page of execution times; other rows stay."""
    name = path.relative_to(ROOT).as_posix()
    text = TIMES.read_text(encoding="utf-8") if TIMES.exists() else ""
    rows = {
        m[1]: m[0]
        for m in re.finditer(r"^\| `([^`]+\.ipynb)` \|.*$", text, re.MULTILINE)
    }
    size = path.stat().st_size / 1000
    rows[name] = (
        f"| `{name}` | {seconds:.0f} | {megabytes} | {size:.0f} | {date.today()} |"
    )
    rows = [
        rows[n]
        for n in (p.relative_to(ROOT).as_posix() for p in list_notebooks())
        if n in rows
    ]
    packages = [
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "scikit-image",
        "matplotlib",
        "piq",
    ]
    versions = ", ".join(
        [
            f"Python {platform.python_version()}",
            *(f"{p} {version(p)}" for p in packages),
        ]
    )
    lines = [
        "# Execution times\n",
        "Every page shows the stored outputs of its notebook. This is what storing them took, from a fresh",
        "kernel to the last cell. `make execute` writes this page; run twice, it changes no other file.\n",
        "| notebook | seconds | peak memory (MB) | size (kB) | date |",
        "|---|--:|--:|--:|---|",
        *rows,
        f"\nLast run: {platform.system()} {platform.machine()}, {versions}.",
    ]
    TIMES.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def check_figures(paths: list[Path]) -> list[str]:
    """What is wrong with the figures: each picture needs alt text of a sentence's length, and a caption."""
    faults = []
    for path in paths:
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if not any(
                "image/png" in output.get("data", {})
                for output in cell.get("outputs", [])
            ):
                continue
            mystnb = cell.metadata.get("mystnb", {})
            where = (
                f"{path.relative_to(ROOT)}, cell {number} ({cell.get('id', 'no id')})"
            )
            if len(mystnb.get("image", {}).get("alt", "").strip()) < 30:
                faults.append(
                    f"{where}: no alt text of at least 30 characters in metadata mystnb.image.alt"
                )
            if not mystnb.get("figure", {}).get("caption", "").strip():
                faults.append(f"{where}: no caption in metadata mystnb.figure.caption")
    return faults
