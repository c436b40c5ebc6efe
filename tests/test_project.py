"""The project's own promises: its lists agree, its notebooks are executed and small, it leaks no path."""

import ast
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import tta_iqa_lib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
NOTEBOOKS = [ROOT / "index.ipynb", *sorted((ROOT / "book").glob("*.ipynb"))]


def read_requirements(lines: list[str]) -> dict[str, Requirement]:
    requirements = map(Requirement, lines)
    return {canonicalize_name(CONDA_NAMES.get(r.name, r.name)): r for r in requirements}


ELSEWHERE = {"ray"}  # extras for machines that others set up: not among the tested versions


def project_requirements() -> dict[str, Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    tested = (extras[name] for name in extras if name not in ELSEWHERE)
    return read_requirements(sum(tested, start=PROJECT["project"]["dependencies"]))


def locked_versions() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def tracked_files() -> list[Path]:
    """What a clone holds, and what will be: files that git tracks or does not ignore."""
    command = "git -c safe.directory=* ls-files -z --cached --others --exclude-standard"
    try:
        listing = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_environment_and_pyproject_name_the_same_ranges():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert "-e ." in pip
    lines = [entry for entry in conda if isinstance(entry, str)] + [entry for entry in pip if entry != "-e ."]
    environment = {name: r.specifier for name, r in read_requirements(lines).items() if name != "pip"}
    assert environment.pop("python") == SpecifierSet(PROJECT["project"]["requires-python"])
    assert environment == {name: r.specifier for name, r in project_requirements().items()}


def test_lock_satisfies_every_range():
    locked = locked_versions()
    for name, requirement in project_requirements().items():
        assert name in locked, f"{name} is not in requirements.lock"
        assert locked[name] in requirement.specifier, f"{name}: {locked[name]} not {requirement.specifier}"


def test_lock_leaves_the_cuda_packages_to_torch():
    assert not [name for name in locked_versions() if re.match("cuda|nvidia|triton", name)]


def test_hooks_before_a_commit_run_the_locked_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    pinned = [hook["additional_dependencies"] for hook in hooks]
    assert pinned == [[f"ruff=={locked_versions()['ruff']}"]] * len(hooks) and hooks


def test_installed_versions_are_in_range():
    for name, requirement in project_requirements().items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            pytest.fail(f'{name} is not installed: pip install -e ".[book,test]"')
        assert requirement.specifier.contains(installed, prereleases=True), f"{name} {installed}"


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tta_iqa_lib.__version__
    assert f"## {tta_iqa_lib.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


LIBRARY = ROOT / "tta_iqa_lib"
# From the ground up. A room imports from those before it in the list; the method from two of them alone.
ROOMS = ("store", "metrics", "imaging", "datasets", "adaptation", "models", "experiments", "teaching", "apps")
ONLY = {"adaptation": {"imaging", "metrics"}}


def test_every_module_is_packaged_and_on_the_api_page():
    packages = {p.parent.relative_to(ROOT).as_posix().replace("/", ".") for p in LIBRARY.rglob("__init__.py")}
    assert packages <= set(PROJECT["tool"]["setuptools"]["packages"])
    modules = {p.relative_to(LIBRARY).with_suffix("").as_posix().replace("/", ".") for p in LIBRARY.rglob("*.py")}
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"automodule:: tta_iqa_lib\.([\w.]+)", page))
    assert "](command_line)" in page  # the command line has a page of its own; test_cli.py keeps it true
    elsewhere = re.compile(r"(.*\.)?__init__|apps\.cli\..*|teaching\.course\.chapter\d\d")
    assert {m for m in modules if not elsewhere.fullmatch(m)} == documented - {
        "experiments.baselines",
        "teaching.display",
        "teaching.course",
        "teaching.kit",
    }


def imported_rooms(file: Path) -> set[str]:
    """The rooms of the library that a module imports from, inside its functions, too."""
    package, rooms = file.relative_to(LIBRARY).parts[:-1], set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == len(package) + 1:
            rooms |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return rooms


def test_a_room_imports_only_from_rooms_below_it():
    """Data goes one way, from the ground up; and the method knows nothing of what is adapted, on what, and what came of it."""
    rooms = {
        p.name.removesuffix(".py") for p in LIBRARY.iterdir() if not p.name.startswith("_") and p.name != "py.typed"
    }
    assert rooms == set(ROOMS)
    wrong = []
    for file in LIBRARY.rglob("*.py"):
        own = file.relative_to(LIBRARY).parts[0].removesuffix(".py")
        if own in ROOMS:
            allowed = ONLY.get(own, set(ROOMS[: ROOMS.index(own)])) | {"__version__"}
            wrong += [f"{file.relative_to(LIBRARY)} imports {room}" for room in imported_rooms(file) - allowed]
    assert wrong == []


def test_the_api_page_lists_the_rooms_from_the_ground_up():
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    assert tuple(dict.fromkeys(re.findall(r"automodule:: tta_iqa_lib\.(\w+)", page))) == ROOMS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_executed_in_order_and_small(path):
    """Pages show the stored outputs and nbval compares with them: a stripped notebook passes anything."""
    assert path.stat().st_size <= 500_000
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and c.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_gives_a_reason_for_each_output_that_may_differ(path):
    for cell in nbformat.read(path, as_version=4).cells:
        tags = set(cell.metadata.get("tags", []))
        assert "nbval-skip" not in tags, f"cell {cell.id} is never run by the tests"
        differs = "nbval-ignore-output" in tags or "nbval_units" in cell.metadata
        assert not differs or cell.metadata.get("nbval_reason"), (
            f"cell {cell.id}: say in its metadata, under nbval_reason, why its output may differ"
        )


def test_repository_is_small():
    sizes = {path: path.stat().st_size for path in tracked_files()}
    largest = sorted(sizes, key=sizes.get)[-5:]
    assert sum(sizes.values()) <= 40_000_000, [f"{p.name}: {sizes[p]}" for p in largest]


def test_no_file_names_a_path_of_one_machine():
    """A path of the author's machine helps no reader; a notebook's output or a traceback lets it in."""
    machine = re.compile(r"(?<![\w./~<-])/(?:home|root|work|opt|Users|tmp/ipykernel)[\w./-]+")
    outside = re.compile(r"\.\./shared\b")
    may_name_outside = ("tests", ".ci")
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures and weights
        name = path.relative_to(ROOT)
        found += [f"{name}: {match[0]}" for match in machine.finditer(text)]
        if name.parts[0] not in may_name_outside:
            found += [f"{name}: {match[0]}" for match in outside.finditer(text)]
    assert found == []
