"""A fresh run may round differently from the stored one, and may do nothing else."""

import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import nbformat
import pytest
from nbval.plugin import IPyNbCell, get_sanitize_patterns, nocolors
from test_project import ROOT
from workshop.outputs import agree, with_numbers

PLAYER = '<img alt="haze: SRCC {}, 20 crops." src="data:image/png;base64,{}"><input max="{}">'


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("SRCC 0.83", "SRCC 0.84"),
        ("[0.9999, 0.5000]", "[1.0000, 0.5000]"),
        ("9.99 and 10.0", "10.0 and 9.99"),
        ("change +0.00", "change −0.01"),
        ("change -0.01", "change  0.00"),
        ("34 % of 0.9%", "35 % of 1.0%"),
        ("at 1e-05, or 2.50e+03", "at 2e-05, or 2.51e+03"),
        ("between 0.10-0.20", "between 0.10-0.21"),
        ('"alt": "SRCC 0.83."', '"alt": "SRCC 0.82."'),
    ],
)
def test_a_unit_of_the_last_digit_is_rounding(stored, fresh):
    assert agree(stored, fresh) and agree(fresh, stored)


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("SRCC 0.83", "SRCC 0.85"),
        ("SRCC 0.83", "PLCC 0.83"),
        ("better by 0.83", "worse by 0.83"),
        ("0.83 0.84", "0.83"),
        ("0.83", "0.83 0.84"),
        ("+0.03", "-0.03"),
        ("+0.03", "−0.03"),
        ("34 %", "36 %"),
        ("0.83", "0.837"),
        ("1e-05", "1e-03"),
        ("1e-05", "1.2e-05"),
        ("20 crops", "21 crops"),
        ("conv1 0.5", "conv2 0.5"),
        ("layer2.0.conv1", "layer2.1.conv1"),
        ("net.2.0: 5", "net.2.1: 5"),
        ("torch 2.11.0", "torch 2.12.0"),
        ("#12.5em", "#12.6em"),
        ("nan", "0.00"),
        ("0.10-0.20", "0.10 0.20"),
    ],
)
def test_all_else_is_a_difference(stored, fresh):
    assert not agree(stored, fresh) and not agree(fresh, stored)


def test_units_widen_numbers_alone():
    assert agree("0.83 of 20", "0.86 of 20", units=3)
    assert not agree("0.83 of 20", "0.87 of 20", units=3)
    assert not agree("0.83 of 20", "0.83 of 21", units=3)


def compare(stored: str, fresh: str, **metadata) -> bool:
    """nbval's comparison of a cell that shows `stored` with a run of it that shows `fresh`."""
    cell = IPyNbCell.__new__(IPyNbCell)
    cell.sanitize = partial(with_numbers(IPyNbCell.sanitize), cell)
    cell.cell = nbformat.v4.new_code_cell(metadata=metadata)
    cell.colors = nocolors
    patterns = dict(get_sanitize_patterns((ROOT / "tests" / "nbval.cfg").read_text(encoding="utf-8")))
    cell.parent = SimpleNamespace(sanitize_patterns=patterns, skip_compare=("output_type", "metadata"))
    cell.format_output_compare = lambda *texts: None  # its diff needs a session
    outputs = ([nbformat.v4.new_output("display_data", {"text/html": text})] for text in (fresh, stored))
    return cell.compare_outputs(*outputs)


def test_a_player_is_compared_but_for_the_bytes_of_its_pictures():
    stored = PLAYER.format("0.83", "iVBO05+/=", 3)
    assert compare(stored, PLAYER.format("0.84", "iVBO1+1/2=", 3))
    assert not compare(stored, PLAYER.format("0.85", "iVBO", 3))
    assert not compare(stored, PLAYER.format("0.83", "iVBO", 4))


def test_a_cell_may_allow_more():
    assert not compare("0.83", "0.86")
    assert compare("0.83", "0.86", nbval_units=3)
    assert not compare("0.83", "0.87", nbval_units=3)


def test_nbval_compares_so_under_the_books_conftest(tmp_path):
    """Of two cells one is off by a unit of the last digit, the other by two."""
    cells = [nbformat.v4.new_code_cell(f"print('SRCC {value}')", execution_count=1) for value in (0.84, 0.85)]
    for cell in cells:
        cell.outputs = [nbformat.v4.new_output("stream", text="SRCC 0.83\n")]
    path = tmp_path / "chapter.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "--nbval", path]
    done = subprocess.run(command, cwd=ROOT / "book", capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
