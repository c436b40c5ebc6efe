"""The book's workshop: run the notebooks, check their figures, build the pages.

python book/tools.py execute [NOTEBOOK ...]   run notebooks and store their outputs
python book/tools.py check-figures            every figure has alt text and a caption
python book/tools.py build                    the static pages, in _build/html
python book/tools.py vendor                   MathJax for the pages (build does it, too)
"""

import argparse
import base64
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import distribution, version
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image, ImageChops, ImageStat

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
TIMES = ROOT / "book" / "execution.md"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def list_notebooks() -> list[Path]:
    """The welcome page and the chapters, in order."""
    return [ROOT / "index.ipynb", *sorted((ROOT / "book").glob("*.ipynb"))]


# --- vendor -----------------------------------------------------------------------------------------------


def vendor() -> None:
    """Copy what the pages need of MathJax out of its Python package: a tenth of it, and no other host."""
    source = Path(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax"))
    target = ROOT / "_vendor" / "mathjax"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(source / "tex-chtml.js", target)
    for part in ["output/chtml/fonts/woff-v2", "input/tex/extensions"]:  # \boldsymbol loads its extension
        shutil.copytree(source / part, target / part)


# --- execute ----------------------------------------------------------------------------------------------

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
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
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
    if max(error) > 0.3 or buffer.tell() >= len(before):  # grey levels of 255, on average
        return png
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def record_time(path: Path, seconds: float, megabytes: int) -> None:
    """Put one notebook's time and memory into the page of execution times; other rows stay."""
    name = path.relative_to(ROOT).as_posix()
    text = TIMES.read_text(encoding="utf-8") if TIMES.exists() else ""
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `([^`]+\.ipynb)` \|.*$", text, re.MULTILINE)}
    size = path.stat().st_size / 1000
    rows[name] = f"| `{name}` | {seconds:.0f} | {megabytes} | {size:.0f} | {date.today()} |"
    rows = [rows[n] for n in (p.relative_to(ROOT).as_posix() for p in list_notebooks()) if n in rows]
    packages = ["torch", "torchvision", "numpy", "scipy", "scikit-image", "matplotlib", "piq"]
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)])
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


# --- check figures ----------------------------------------------------------------------------------------


def check_figures(paths: list[Path]) -> list[str]:
    """What is wrong with the figures: each picture needs alt text of a sentence's length, and a caption."""
    faults = []
    for path in paths:
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if not any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
                continue
            mystnb = cell.metadata.get("mystnb", {})
            where = f"{path.relative_to(ROOT)}, cell {number} ({cell.get('id', 'no id')})"
            if len(mystnb.get("image", {}).get("alt", "").strip()) < 30:
                faults.append(f"{where}: no alt text of at least 30 characters in metadata mystnb.image.alt")
            if not mystnb.get("figure", {}).get("caption", "").strip():
                faults.append(f"{where}: no caption in metadata mystnb.figure.caption")
    return faults


# --- build ------------------------------------------------------------------------------------------------


def build() -> int:
    """Build the pages; a warning is an error. Sphinx keeps what it has read, so a second build is quick."""
    faults = check_figures(list_notebooks())
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 1
    vendor()
    shutil.rmtree(SITE, ignore_errors=True)  # else pages and scripts of an older build stay
    # There is no `python -m jupyter_book`: look for the console script beside this Python.
    folder = Path(sys.executable).parent
    script = shutil.which("jupyter-book", path=f"{folder}{os.pathsep}{folder / 'Scripts'}")
    if script is None:
        print('jupyter-book is not installed here: pip install -e ".[book]"', file=sys.stderr)
        return 1
    code = subprocess.run([script, "build", str(ROOT), "-W", "--keep-going"], cwd=ROOT).returncode
    if code == 0:
        print(f"\nThe book is built. Open it:   xdg-open {SITE / 'index.html'}")
        print(f"or serve it:                  {sys.executable} -m http.server --directory {SITE}")
    return code


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("vendor")
    commands.add_parser("build")
    commands.add_parser("check-figures")
    commands.add_parser("execute").add_argument("notebooks", nargs="*", type=Path)
    arguments = parser.parse_args()
    match arguments.command:
        case "execute":
            return execute([path.resolve() for path in arguments.notebooks] or list_notebooks())
        case "build":
            return build()
        case "check-figures":
            faults = check_figures(list_notebooks())
            print("\n".join(faults) or "every figure has alt text and a caption")
            return 1 if faults else 0
        case _:
            vendor()
            return 0


if __name__ == "__main__":
    sys.exit(main())
