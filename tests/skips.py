"""On the build server a test may skip only if skips.txt names it: else tests get lost without a word."""

import os
from fnmatch import fnmatch
from pathlib import Path

import pytest

ALLOWED = [
    line.split("#")[0].strip()
    for line in (Path(__file__).parent / "skips.txt").read_text(encoding="utf-8").splitlines()
    if line.split("#")[0].strip()
]
unexpected: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport | pytest.CollectReport) -> None:
    # A parametrised id holds brackets, which fnmatch would read as a set of characters.
    allowed = any(fnmatch(report.nodeid, pattern.replace("[", "[[]")) for pattern in ALLOWED)
    if report.skipped and not hasattr(report, "wasxfail") and not allowed:
        unexpected.append(report.nodeid)


pytest_collectreport = pytest_runtest_logreport  # a whole module can skip, too


def pytest_sessionfinish(session: pytest.Session) -> None:
    controller = not hasattr(session.config, "workerinput")  # with -n, the workers' reports arrive here
    if controller and unexpected and os.environ.get("CI"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    if unexpected and os.environ.get("CI"):
        terminalreporter.section("skipped, but not named in tests/skips.txt", red=True)
        terminalreporter.write_line("\n".join(unexpected))
