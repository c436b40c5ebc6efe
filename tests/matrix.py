"""`make matrix`: what is published, in environments of its own: each Python there is, the newest packages and the oldest.

    python tests/matrix.py [--python 3.12 ...] [what pytest is to run]

A wheel and an sdist are built. Every environment gets the wheel and nothing of this folder, scores a photograph from an
empty folder, and runs a fast selection of the tests, unless others are named. The oldest PyTorch and NumPy that
pyproject.toml admits run on the oldest Python, and the sdist is tried there, too. A Python that is neither installed nor to
be had is named, and fails nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "_build" / "matrix"
TOOLS = PLACE / "tools" / "bin"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [f"3.{n}" for n in range(30) if f"3.{n}" in SpecifierSet(PROJECT["requires-python"])]
INSTALL = (TOOLS / "uv", "pip", "install", "--quiet", "--python")
OLDEST = ("torch", "torchvision", "numpy")
FAST = ["tests/test_metrics.py", "tests/test_store.py", "tests/imaging", "tests/adaptation", "-m", "not slow", "-q"]

SAVE = """
import sys
from pathlib import Path
import numpy, torch
from PIL import Image
import tta_iqa_lib as tta
assert Path(tta.__file__).is_relative_to(sys.prefix), f"not the installed library: {tta.__file__}"
pixels = (tta.photograph("coffee") * 255).byte().permute(1, 2, 0).numpy()
Image.fromarray(pixels).save("coffee.png")
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, numpy {numpy.__version__}")
"""


def say(*command, **options) -> str:
    """Run a command without this folder's library → what it printed; raises `CalledProcessError`."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"OMP_NUM_THREADS": "1"}
    print("$", *(Path(part).name if os.sep in str(part) else part for part in command), flush=True)
    done = subprocess.run([*map(str, command)], env=environment, stdout=subprocess.PIPE, text=True, **options)
    print(done.stdout[-3000:], flush=True)
    done.check_returncode()
    return done.stdout


def oldest() -> list[str]:
    """The floors of `OLDEST` in pyproject.toml, as constraints."""
    floors = {r.name: next(iter(r.specifier)).version for r in map(Requirement, PROJECT["dependencies"])}
    return [f"{name}=={floors[name]}.*" for name in OLDEST]


def score_a_photograph(python: Path) -> str:
    """From an empty folder, as somebody would who has just installed the library → the versions."""
    command = python.with_name("tta-iqa")
    with tempfile.TemporaryDirectory() as folder:
        versions = say(python, "-c", SAVE, cwd=folder)
        say(command, "--help", cwd=folder)
        assert "coffee.png" in say(command, "score", "coffee.png", cwd=folder)
    return versions.strip()


def create(version: str, age: str) -> Path:
    """An empty environment → its interpreter. uv finds a Python or, where it can, fetches it; pyenv's hide from it."""
    hidden = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python")
    python = next(hidden, version)
    say(TOOLS / "uv", "venv", "--quiet", "--clear", "--python", python, PLACE / f"{version}-{age}")
    return PLACE / f"{version}-{age}" / "bin" / "python"


def check(python: Path, wheel: Path, constraints: list[str], tests: list[str]) -> str:
    """The wheel in one environment → the versions."""
    limits = PLACE / "constraints.txt"
    limits.write_text("\n".join(constraints) + "\n", encoding="utf-8")
    say(*INSTALL, python, "--constraint", limits, f"{wheel}[test]")
    versions = score_a_photograph(python)
    say(python.with_name("pytest"), *tests, cwd=ROOT)
    return versions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", choices=PYTHONS)
    arguments, tests = parser.parse_known_args()
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PLACE / "tools", with_pip=True)
    say(TOOLS / "python", "-m", "pip", "install", "--quiet", "uv", "build")
    say(TOOLS / "python", "-m", "build", "--outdir", PLACE / "dist", ROOT)
    (wheel,), (sdist,) = ((PLACE / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    rows, failures, tried = [], 0, 0
    for version in arguments.python or PYTHONS:
        try:
            ages = {"newest": (create(version, "newest"), [])}
            if version == PYTHONS[0]:
                ages["oldest"] = (create(version, "oldest"), oldest())
        except subprocess.CalledProcessError:
            rows.append(f"{version}         not tried: no such Python here")
            continue
        for age, (python, constraints) in ages.items():
            try:
                rows.append(f"{version} {age}  passed: {check(python, wheel, constraints, tests or FAST)}")
                if age == "oldest":
                    say(*INSTALL, python, "--reinstall-package", "tta-iqa-lib", "--no-deps", sdist)
                    rows.append(f"{version} sdist   passed: {score_a_photograph(python)}")
            except (subprocess.CalledProcessError, AssertionError) as error:
                failures += 1
                rows.append(f"{version} {age}  failed: {error}")
        tried += 1
    print("\n".join(rows))
    return 1 if failures or not tried else 0


if __name__ == "__main__":
    sys.exit(main())
