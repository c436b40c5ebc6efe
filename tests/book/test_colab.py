"""The buttons that open a chapter in Colab, and the cell that installs the library there."""

import re
import sys
import types

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from workshop import ROOT, colab
from workshop.pages import jupyter_book


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A book of one notebook, with the configuration of ours, built for a repository."""
    folder = tmp_path_factory.mktemp("book")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A chapter"), nbformat.v4.new_code_cell("1")]
    )
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "book").mkdir()
    nbformat.write(notebook, folder / "book" / "one.ipynb")
    (folder / "book" / "references.bib").touch()
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/one\n")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    sphinx = settings["sphinx"]["config"]
    del settings["html"]
    settings["sphinx"]["local_extensions"] = {"citations": str(ROOT / "book" / "workshop")}
    for files in ("html_static_path", "html_css_files", "html_js_files", "mathjax_path"):
        del sphinx[files]
    (folder / "_config.yml").write_text(yaml.safe_dump(settings))
    assert jupyter_book(str(folder), "--config", str(colab.configure("owner/name", folder / "_config.yml"))) == 0
    colab.add_install_cells("owner/name", folder / "_build" / "html")
    return folder / "_build" / "html"


def test_the_button_opens_the_notebook_of_the_branch(site):
    page = (site / "book" / "one.html").read_text()
    found = re.findall(r'href="(https://colab[^"]+)"', page)
    assert found == ["https://colab.research.google.com/github/owner/name/blob/colab/book/one.ipynb"]
    assert (site / "_sources" / "book" / "one.ipynb").is_file()  # what lies on the branch, at the same path


def test_the_first_cell_installs_the_library_in_colab_and_only_there(site, monkeypatch):
    notebook = nbformat.read(site / "_sources" / "book" / "one.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells[1:]] == ["# A chapter", "1"]
    code, calls = TransformerManager().transform_cell(notebook.cells[0].source), []
    shell = types.SimpleNamespace(run_line_magic=lambda *call: calls.append(call))
    exec(code, {"get_ipython": lambda: shell})
    assert calls == []
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(code, {"get_ipython": lambda: shell})
    assert calls == [("pip", 'install --quiet "tta-iqa-lib @ git+https://github.com/owner/name"')]


@pytest.mark.parametrize(("own", "workflow", "found"), [("", "a/b", "a/b"), ("c/d", "a/b", "c/d"), ("", "", None)])
def test_who_names_the_repository(own, workflow, found, monkeypatch):
    monkeypatch.setenv("TTA_BOOK_REPOSITORY", own)
    monkeypatch.setenv("GITHUB_REPOSITORY", workflow)
    assert colab.repository() == found


def test_a_url_is_no_repository(monkeypatch):
    monkeypatch.setenv("TTA_BOOK_REPOSITORY", "https://github.com/owner/name")
    with pytest.raises(ValueError, match="must be owner/name"):
        colab.repository()
