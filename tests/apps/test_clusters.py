"""A plan on engines that exist: local processes with what torchrun and Slurm tell them, and a local Ray."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tta_iqa_lib.apps import clusters
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.apps.clusters import own_part, run_on_ray
from tta_iqa_lib.apps.plans import Plan, PlanError, write_plan
from tta_iqa_lib.apps.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
PROGRAM = "from tta_iqa_lib.apps.cli import app\napp()"
SLOW = "import time\nfrom tta_iqa_lib.apps import scorers\ntrue = scorers.Scorer.__call__\n"
SLOW += "scorers.Scorer.__call__ = lambda self, rows: time.sleep(0.2) or true(self, rows)\n" + PROGRAM
# A model that kills its process at the fortieth pass, and never again: the passes are counted in a file.
MORTAL = """
import os, signal
from helpers import tiny_scorer

def count(module, arguments):
    with open(os.path.join(os.path.dirname(__file__), "passes"), "ab") as passes:
        passes.write(b".")
        passes.flush()
        if passes.tell() == 40:
            os.kill(os.getpid(), signal.SIGKILL)

def scorer():
    model = tiny_scorer()
    model.register_forward_pre_hook(count)
    return model
"""


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}, (3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "7"}, (6, 7)),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "3"}, (2, 3)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, (1, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # the batch script itself
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3", "RANK": "1", "WORLD_SIZE": "2"}, (3, 6)),
    ],
)
def test_each_engine_says_which_part_is_whose(environment, part):
    assert own_part(environment) == part


def test_an_array_with_gaps_does_not_say(plan):
    gaps = {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "2"}
    with pytest.raises(PlanError, match="--part"):
        own_part(gaps)


def begin(plan: Plan, *options: str, program: str = PROGRAM, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-c", program, "shard", str(plan.path), *options]
    return subprocess.Popen(command, env=ENVIRONMENT | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_slurm_array_one_task_of_which_is_killed_and_starts_again(plan, whole, merged):
    """Three processes at once, with what Slurm tells them; SIGKILL in the middle of one."""
    tasks = [{"SLURM_ARRAY_TASK_ID": str(i), "SLURM_ARRAY_TASK_COUNT": "3"} for i in range(3)]
    killed = begin(plan, program=SLOW, **tasks[0])
    journal = plan.parts / "0-of-3.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    processes = [begin(plan, **task) for task in tasks]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert {process.returncode for process in processes} <= {0, 1}, errors
    assert merged() == whole


@pytest.mark.slow
def test_torchrun_starts_the_same_program(plan, whole, tmp_path, merged):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517", script]
    done = subprocess.run([*command, "shard", plan.path], env=ENVIRONMENT, capture_output=True, timeout=900)
    assert {path.name for path in plan.parts.iterdir()} == {"0-of-2.jsonl", "1-of-2.jsonl"}, done.stderr
    assert merged() == whole


@pytest.fixture(scope="module")
def ray():
    """A cluster of this machine's own, said to have four cores."""
    ray = pytest.importorskip("ray", reason="Ray Data is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("actors", [1, 2, 3])
def test_a_ray_cluster_gives_the_same_in_any_order_also_when_it_is_stopped_half_way(
    ray, plan, whole, merged, actors, monkeypatch
):
    true = clusters.open_batches
    shuffle = random.Random(actors).sample
    monkeypatch.setattr(clusters, "open_batches", lambda *of: shuffle(numbers := true(*of), len(numbers)))
    first = run_on_ray(plan, actors)
    next(first), next(first)
    first.close()
    assert 2 + len(list(run_on_ray(Plan(plan.path), actors))) == plan.batches
    assert merged() == whole


@pytest.mark.slow
def test_a_ray_cluster_replaces_an_actor_that_is_killed(ray, twelve, whole, tmp_path, monkeypatch):
    (tmp_path / "mortal.py").write_text(MORTAL)
    monkeypatch.chdir(tmp_path)
    how = Settings(model="mortal:scorer", method="rank+gc", batch_size=2, crops=1)
    write_plan(tmp_path / "p.jsonl", sorted(twelve.iterdir()), how)
    done = CliRunner().invoke(app, ["shard", "p.jsonl", "--ray", "2"])
    assert done.exit_code == 1 and "1 files could not be scored" in done.stderr, done.output
    assert (tmp_path / "passes").stat().st_size > 40
    CliRunner().invoke(app, ["merge", "p.jsonl", "--out", "out.csv"])
    assert (tmp_path / "out.csv").read_bytes() == whole


@pytest.mark.slow
def test_what_stops_a_ray_actor_is_said_in_a_line(ray, plan, twelve):
    os.utime(twelve / "03.png", (5, 5))
    done = CliRunner().invoke(app, ["shard", str(plan.path), "--ray", "1"])
    assert done.exit_code == 2 and "03.png' has changed since the plan was made" in done.stderr
