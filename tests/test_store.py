"""Finished work is kept whole or not at all."""

import pytest

from tta_iqa_lib.store import whole_file


def test_a_file_appears_when_it_is_written_to_the_end(tmp_path):
    file = tmp_path / "new" / "a.json"
    with whole_file(file) as partial:
        partial.write_text("half")
        assert not file.exists() and partial.suffix == ".json"
        partial.write_text("whole")
    assert file.read_text() == "whole" and list(file.parent.iterdir()) == [file]


def test_an_interruption_leaves_what_was_there_before(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(file) as partial:
        partial.write_text("ha")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
