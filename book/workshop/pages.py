"""Build the static pages with Jupyter Book."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import ROOT, SITE, colab, list_notebooks
from .notebooks import check_figures
from .vendor import vendor


def build() -> int:
    """Build the pages; a warning is an error. Sphinx keeps what it has read, so a second build is quick."""
    faults = check_figures(list_notebooks())
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 1
    vendor()
    shutil.rmtree(
        SITE, ignore_errors=True
    )  # else pages and scripts of an older build stay
    repository = colab.repository()
    code = jupyter_book(
        str(ROOT),
        *(["--config", str(colab.configure(repository))] if repository else []),
    )
    if code == 0:
        trim_icons()
        guard()
        if repository:
            colab.add_install_cells(repository)
        print(f"\nThe book is built. Open it:   xdg-open {SITE / 'index.html'}")
        print(
            f"or serve it:                  {sys.executable} -m http.server --directory {SITE}"
        )
    return code


ICON = re.compile(
    r'(?:"([a-z0-9-]+)"|\b([a-z0-9]+)):\[\d+,\d+,(\[[^\]]*\]),"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?'
)


def trim_icons() -> None:
    """Leave out of the theme's icon script what no page uses: two thousand drawings, half of what a first visit fetches."""
    script = SITE / "_static" / "scripts" / "fontawesome.js"
    others = [
        p for suffix in ("html", "js") for p in SITE.rglob(f"*.{suffix}") if p != script
    ]
    used = set(
        re.findall(
            r"\bfa-([a-z0-9-]+)",
            "\n".join(p.read_text(encoding="utf-8") for p in others),
        )
    )

    def keep(icon: re.Match) -> str:
        names = {icon[1] or icon[2], *re.findall(r'"([^"]+)"', icon[3])}
        return icon[0] if names & used else ""

    script.write_text(
        ICON.sub(keep, script.read_text(encoding="utf-8")), encoding="utf-8"
    )
    script.with_suffix(".js.map").unlink(missing_ok=True)


# What a page may load and run: its own site's files and what it makes itself (`file:` stands for the site of a page that
# is opened from a folder). The theme and the players have scripts inside their pages; the model's runtime is
# WebAssembly; a text is never run as code.
POLICY = "; ".join(
    [
        "default-src 'self' file:",
        "script-src 'self' file: blob: 'unsafe-inline' 'wasm-unsafe-eval'",
        "style-src 'self' file: 'unsafe-inline'",
        "img-src 'self' file: data: blob:",
        "font-src 'self' file: data:",
        "connect-src 'self' file: blob: data:",
        "worker-src 'self' file: blob:",
        "object-src 'none'",
        "base-uri 'none'",
    ]
)
GUARD = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'


def guard() -> None:
    """Put every page under `POLICY`, before its first script."""
    for page in SITE.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if "_static" not in page.parts and GUARD not in text:
            charset = '<meta charset="utf-8" />'
            page.write_text(
                text.replace(charset, f"{charset}\n    {GUARD}", 1), encoding="utf-8"
            )


def jupyter_book(*arguments: str, strict: bool = True) -> int:
    """Run `jupyter-book build`; returns its exit code. `strict`: a warning is an error."""
    # There is no `python -m jupyter_book`: look for the console script beside this Python.
    folder = Path(sys.executable).parent
    script = shutil.which(
        "jupyter-book", path=f"{folder}{os.pathsep}{folder / 'Scripts'}"
    )
    if script is None:
        print(
            'jupyter-book is not installed here: pip install -e ".[book]"',
            file=sys.stderr,
        )
        return 1
    strictly = ["-W", "--keep-going"] if strict else []
    return subprocess.run([script, "build", *arguments, *strictly], cwd=ROOT).returncode
