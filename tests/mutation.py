"""`make mutation`: small faults are put into the metrics and the method, one at a time. Do the tests notice?

    python tests/mutation.py [--sample 40] [--seed 0] [module ...]

mutmut makes the faults, in a copy of the library and an environment of its own, and tries each against those tests of its
module (see `TESTS`) that reach it. All faults of all modules take hours; `--sample` draws so many of each module. Those that
nobody notices are shown; the command fails if they are more than a tenth.
"""

import argparse
import json
import random
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

from matrix import ROOT, say

PLACE = ROOT / "_build" / "mutation"
TOOLS = PLACE / "tools" / "bin"
COPY = PLACE / "copy"
WANTED = 0.9
SETTINGS = "tests/test_bad_input.py"  # what the arguments of any module may be
# The tests of each module, where they are not in the one file of its name.
TESTS = {
    "metrics": ["tests/test_metrics.py", SETTINGS],
    "adaptation/adapter": [
        *(f"tests/adaptation/test_{name}.py" for name in ("adapter", "batches", "screens", "streams", "promises")),
        SETTINGS,
    ],
    "adaptation/context": ["tests/adaptation/test_losses.py", "tests/adaptation/test_loop.py"],
    "adaptation/copies": ["tests/adaptation/test_copies.py", SETTINGS],
    "adaptation/episodes": ["tests/adaptation/test_loop.py", "tests/adaptation/test_adapter.py"],
    "adaptation/functional": ["tests/adaptation/test_functional.py", SETTINGS],
    "adaptation/gates": ["tests/adaptation/test_gates.py", SETTINGS],
    "adaptation/batches": [
        *(f"tests/adaptation/test_{name}.py" for name in ("batches", "adapter", "screens")),
        SETTINGS,
    ],
    "adaptation/loop": [
        *(f"tests/adaptation/test_{name}.py" for name in ("loop", "adapter", "gates", "promises")),
        SETTINGS,
    ],
    "adaptation/losses": ["tests/adaptation/test_losses.py", "tests/adaptation/test_state.py", SETTINGS],
    "adaptation/normalisation": [
        "tests/adaptation/test_normalisation.py",
        "tests/adaptation/test_stateless.py",
        SETTINGS,
    ],
    "adaptation/optimise": ["tests/adaptation/test_optimise.py", "tests/adaptation/test_loop.py"],
    "adaptation/passes": ["tests/adaptation/test_stateless.py"],
    "adaptation/protocols": ["tests/adaptation/test_protocols.py", "tests/models/test_foreign.py"],
    "adaptation/recipes": [*(f"tests/adaptation/test_{name}.py" for name in ("recipes", "adapter", "gates"))],
    "adaptation/rules": ["tests/adaptation/test_rules.py", SETTINGS],
    "adaptation/shadow": ["tests/adaptation/test_shadow.py", "tests/adaptation/test_odd_models.py"],
    "adaptation/state": ["tests/adaptation/test_state.py", "tests/adaptation/test_gates.py", SETTINGS],
    "adaptation/stateless": [
        *(f"tests/adaptation/test_{name}.py" for name in ("stateless", "odd_models", "adapter")),
    ],
    "adaptation/streams": [*(f"tests/adaptation/test_{name}.py" for name in ("streams", "promises"))],
    "adaptation/steps": [*(f"tests/adaptation/test_{name}.py" for name in ("loop", "optimise", "promises", "state"))],
}
NOTICED = {1, 3, 24, 36, 152, 255, -11, -24, -9}  # exit status of a try: a failure, an error, out of time, a crash
MODULES = ["metrics", *(f"adaptation/{p.stem}" for p in sorted((ROOT / "tta_iqa_lib/adaptation").glob("[a-z]*.py")))]


def tests_of(module: str) -> list[str]:
    return TESTS.get(module, [f"tests/adaptation/test_{Path(module).stem}.py"])


def prepare() -> None:
    """mutmut beside the packages that are installed here, and a copy without what it need not copy again and again."""
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PLACE / "tools", with_pip=True)
    say(TOOLS / "python", "-m", "pip", "install", "--quiet", "mutmut")
    (own,) = (PLACE / "tools").glob("lib/python*/site-packages")
    (own / "book.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    COPY.mkdir(parents=True)
    for folder in ("tta_iqa_lib", "data", "tests", "book/workshop"):
        shutil.copytree(ROOT / folder, COPY / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "book/tools.py"):
        shutil.copy(ROOT / file, COPY / file)


def configure(module: str) -> None:
    settings = {
        "source_paths": ["tta_iqa_lib"],
        "only_mutate": [f"tta_iqa_lib/{module}.py"],
        "also_copy": ["data", "tests", "book", "README.md"],
        "pytest_add_cli_args_test_selection": tests_of(module),
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text += "\n".join(["\n[tool.mutmut]", *lines, 'process_isolation = "forkserver"', ""])
    (COPY / "pyproject.toml").write_text(text, encoding="utf-8")
    shutil.rmtree(COPY / "mutants", ignore_errors=True)


def outcomes(module: str) -> dict[str, int | None]:
    """By the name of each fault, how its try ended; None where there was none."""
    meta = COPY / "mutants" / "tta_iqa_lib" / f"{module}.py.meta"
    return json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"] if meta.is_file() else {}


def mutmut(*arguments: str) -> str:
    return say(TOOLS / "python", "-m", "mutmut", *arguments, cwd=COPY)


def attempt(module: str, sample: int | None, seed: int) -> tuple[int, list[str]]:
    """How many faults were tried, and the names of those that nobody noticed."""
    configure(module)
    try:
        mutmut("run", "--max-children", "1", "none of them")  # makes them, and learns which test reaches which function
    except subprocess.CalledProcessError:
        if not outcomes(module):
            raise
    names = sorted(outcomes(module))
    if sample is not None and sample < len(names):
        names = sorted(random.Random(f"{seed} {module}").sample(names, sample))
    if names:
        mutmut("run", *names)
    found = outcomes(module)
    return len(names), [name for name in names if found[name] not in NOTICED]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", choices=[*MODULES, []], help="default: all")
    parser.add_argument("--sample", type=int, help="so many faults of each module, at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    prepare()
    rows, tried, missed = [], 0, 0
    for module in arguments.modules or MODULES:
        count, survivors = attempt(module, arguments.sample, arguments.seed)
        tried, missed = tried + count, missed + len(survivors)
        rows.append(f"{module:28s}{count - len(survivors):5d} of {count:4d} noticed")
        for name in survivors:
            mutmut("show", name)
    print("\n".join(rows))
    share = 1 - missed / max(tried, 1)
    print(f"{share:.1%} of {tried} faults noticed; {WANTED:.0%} are wanted")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
