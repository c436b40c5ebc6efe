"""A file from elsewhere is data: nothing in the library, the workshop or the chapters runs code that a file holds."""

import ast
import json
from pathlib import Path

import pytest
import torch

from tta_iqa_lib.models.backbones import read_weights
from tta_iqa_lib.models.saving import load_source_model

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    *sorted((ROOT / "tta_iqa_lib").rglob("*.py")),
    *sorted((ROOT / "book").rglob("*.py")),
    *sorted((ROOT / "book").rglob("*.ipynb")),
    ROOT / "index.ipynb",
]
# Modules that run what a file says, and functions that do, or that write where an archive says.
UNSAFE_MODULES = {"cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
UNSAFE_NAMES = {"extract", "extractall", "read_pickle", "unpack_archive", "mktemp", "unsafe_load", "full_load"}


def code_of(path: Path) -> str:
    """A module's text, or that of a notebook's cells without what only IPython understands."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return "\n".join(line for line in "\n".join(cells).splitlines() if not line.startswith(("%", "!")))


def faults(code: str) -> list[str]:
    """What in a piece of code may run, or unpack, what a file says."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES | {"pickle"}]
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = node.module.split(".")[0]
            errors = {alias.name for alias in node.names} <= {"PicklingError", "UnpicklingError"}
            if module in UNSAFE_MODULES or (module == "pickle" and not errors):
                found.append(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            last = name.rpartition(".")[2]
            unsafe = (
                (last in UNSAFE_NAMES and "." in name)
                or (name.endswith("pickle.loads") or name.endswith("pickle.load"))
                or (name.startswith("torch.") and last.startswith("load") and options.get("weights_only") != "True")
                or (name == "torch.hub.load")
                or (name in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False")
                or (name == "yaml.load")
                or options.get("shell") == "True"
            )
            if unsafe:
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_code_of_a_file_is_run(path):
    assert faults(code_of(path)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.hub.load('a/b', 'c')",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "pd.read_pickle(path)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_the_search_finds(code):
    assert faults(code)


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return Path.write_text, (self.witness, "run")


@pytest.mark.parametrize("read", [read_weights, load_source_model])
def test_a_trap_in_a_model_file_does_not_close(read, tmp_path):
    torch.save({"weight": Trap(tmp_path / "witness")}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt"):
        read(tmp_path / "model.pt")
    assert not (tmp_path / "witness").exists()
    torch.load(tmp_path / "model.pt", weights_only=False)  # the trap is one
    assert (tmp_path / "witness").exists()
