"""Which checkpoint `last`, `best` and a version mean."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.trace.checkpoint_choice import Which, choose_checkpoint, parse_which
from engine.trace.checkpoint_file import CheckpointInfo, info_of, read_info, tidy, verify
from tests.helpers.engine.checkpoint_files import write_checkpoint
from tests.helpers.paths import REPOSITORY

RECORDED = REPOSITORY / "tests" / "recorded" / "finished" / "checkpoints" / "v0000000008.json"
"""Written before checkpoints knew returns."""


def chosen(directory: Path, which: Which) -> tuple[str, int]:
    """Directory and version."""
    found = choose_checkpoint(directory, which)
    assert not found.refused
    assert found.info == read_info(found.path)
    return found.path.parent.name, found.info.version


def spoil(path: Path) -> None:
    """Damages the tensors of a checkpoint."""
    tensors = path.with_name(read_info(path).tensors_name)
    data = tensors.read_bytes()
    tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("returns", "best"),
    [
        ({1: 5.0, 2: 7.0, 3: 6.0}, 2),
        ({1: 5.0, 2: 7.0, 3: 7.0}, 3),
        ({1: -5.0, 2: None, 3: -9.0}, 1),
        ({1: 0.0, 2: -1.0, 3: None}, 1),
        ({1: None, 2: None}, 2),
        ({9: 1.0, 10: 1.0}, 10),
        ({4: 1e300, 5: -1e300}, 4),
    ],
)
def test_the_best_has_the_largest_return_and_of_equal_ones_is_the_newest(
    tmp_path: Path, returns: dict[int, float | None], best: int
):
    for version, mean in returns.items():
        write_checkpoint(tmp_path, version, mean)
    assert chosen(tmp_path, "best") == (tmp_path.name, best)
    assert chosen(tmp_path, "last") == (tmp_path.name, max(returns))


def test_the_checkpoints_of_all_groups_are_compared(tmp_path: Path):
    write_checkpoint(tmp_path, 3, 1.0)  # what a resumed run began from
    write_checkpoint(tmp_path / "group-0", 10, 4.0)
    write_checkpoint(tmp_path / "group-0", 20, 2.0)
    write_checkpoint(tmp_path / "group-1", 11, 4.0)
    write_checkpoint(tmp_path / "group-1", 20, 3.0)
    write_checkpoint(tmp_path / "elsewhere", 99, 99.0)
    assert chosen(tmp_path, "best") == ("group-1", 11)
    assert chosen(tmp_path, "last") == ("group-0", 20)
    assert chosen(tmp_path, 20) == ("group-1", 20), "of one version the best"
    assert chosen(tmp_path, 3) == (tmp_path.name, 3)


def test_a_damaged_best_one_is_named_and_the_next_best_taken(tmp_path: Path):
    for version, mean in ((1, 1.0), (2, 8.0), (3, 9.0), (4, 2.0), (5, 3.0)):
        write_checkpoint(tmp_path, version, mean)
    spoil(tmp_path / "v0000000003.json")
    (tmp_path / "v0000000005.json").write_bytes(b"{")
    found = choose_checkpoint(tmp_path, "best")
    assert found.info.version == 2
    assert len(found.refused) == 2
    assert "v0000000005" in found.refused[0], "nobody knows how good it was"
    assert "v0000000003" in found.refused[1]
    last = choose_checkpoint(tmp_path, "last")
    assert last.info.version == 4
    assert len(last.refused) == 1, "the older damaged one is of no concern"


def test_a_version_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path: Path):
    for version, mean in ((1, None), (2, 8.25)):
        write_checkpoint(tmp_path, version, mean)
    with pytest.raises(ConfigError) as caught:
        choose_checkpoint(tmp_path, 7)
    words = str(caught.value)
    assert caught.value.where == str(tmp_path)
    assert "no checkpoint of version 7" in words
    assert "version 2, return 8.25 (training)\n    version 1, return unknown" in words
    spoil(tmp_path / "v0000000002.json")
    with pytest.raises(ConfigError, match="version 2 cannot be used") as caught:
        choose_checkpoint(tmp_path, 2)
    assert "checksum" in str(caught.value)
    assert "version 2, return" not in str(caught.value), "it is no choice"


@pytest.mark.parametrize(
    ("keep", "keep_best", "kept"),
    [
        (2, 0, [5, 6]),
        (2, 1, [2, 5, 6]),
        (2, 2, [2, 4, 5, 6]),
        (2, 9, [1, 2, 4, 5, 6]),
        (3, 2, [2, 4, 5, 6]),
        (1, 1, [2, 6]),
    ],
)
def test_the_newest_are_kept_and_the_best_beside_them(
    tmp_path: Path, keep: int, keep_best: int, kept: list[int]
):
    """One without a return is never kept for its return; of equal ones the newest is better."""
    for version, mean in enumerate((1.0, 9.0, None, 8.0, 1.0, None), 1):
        write_checkpoint(tmp_path, version, mean)
        tidy(tmp_path, keep, keep_best)
    infos = [read_info(tmp_path / f"v{version:010d}.json") for version in kept]
    names = {name for info in infos for name in (info.name, info.tensors_name)}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_an_old_file_that_cannot_be_read_is_not_kept_as_the_best(tmp_path: Path):
    write_checkpoint(tmp_path, 1, 99.0)
    (tmp_path / "v0000000001.json").write_bytes(b"{")
    for version in (2, 3):
        write_checkpoint(tmp_path, version, 1.0)
    tidy(tmp_path, 1, 1)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert [path.name for path in tmp_path.glob("*.json")] == ["v0000000003.json"]


@pytest.mark.parametrize("which", ["last", "best", 5])
def test_without_any_checkpoint_the_directory_is_named(tmp_path: Path, which: Which):
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError) as caught:
            choose_checkpoint(place, which)
        assert caught.value.where == str(place)
    spoil(write_checkpoint(tmp_path, 5))
    with pytest.raises(ConfigError, match="checksum"):
        choose_checkpoint(tmp_path, which)


@pytest.mark.parametrize(
    ("text", "which"),
    [("last", "last"), ("best", "best"), ("0", 0), ("120", 120), ("v0000000120.json", 120)],
)
def test_a_checkpoint_is_named_by_a_word_or_a_version(text: str, which: Which):
    assert parse_which(text) == which


@pytest.mark.parametrize("text", ["", "Best", "-1", "1.5", "12345678901", "v", "../v1.json", "٣"])
def test_any_other_name_is_an_error(text: str):
    with pytest.raises(ConfigError) as caught:
        parse_which(text)
    assert caught.value.where == "--checkpoint"


# ---------------------------------------------------------------- files of other releases


def test_a_checkpoint_of_before_returns_is_read_and_chosen():
    info = verify(RECORDED)
    assert (info.schema_version, info.known_return) == (2, None)
    assert chosen(RECORDED.parent, "best") == ("checkpoints", 8)


@pytest.mark.parametrize("key", ["return_mean", "return_judge", "return_version"])
def test_a_former_checkpoint_cannot_be_given_a_return(key: str):
    """Its checksum does not cover it."""
    values = {"return_mean": 9.0, "return_judge": "training", "return_version": 1}
    data = {**msgspec.json.decode(RECORDED.read_bytes()), key: values[key]}
    with pytest.raises(ConfigError, match="checksum"):
        info_of(msgspec.json.encode(data), RECORDED.name, "it")


@pytest.mark.parametrize("key", ["return_mean", "return_judge", "return_version"])
def test_the_checksum_covers_the_return(tmp_path: Path, key: str):
    path = write_checkpoint(tmp_path, 3, 4.5)
    values = {"return_mean": 9.0, "return_judge": "evaluation", "return_version": 1}
    data = {**msgspec.json.decode(path.read_bytes()), key: values[key]}
    with pytest.raises(ConfigError, match="checksum"):
        info_of(msgspec.json.encode(data), path.name, "it")


def test_a_release_that_knows_no_returns_says_which_it_reads(tmp_path: Path):
    """A former release compares the schema version before it reads anything else."""
    path = write_checkpoint(tmp_path, 3, 4.5)
    assert msgspec.json.decode(path.read_bytes())["schema_version"] == 3
    later = msgspec.structs.replace(read_info(path), schema_version=4).sealed()
    path.write_bytes(msgspec.json.encode(later))
    with pytest.raises(ConfigError, match="schema_version is 4, this release reads 2 to 3"):
        read_info(path)


def test_returns_survive_the_file_exactly(tmp_path: Path):
    for number, mean in enumerate((0.1 + 0.2, -1e-300, 200.0, 1 / 3, 1e300)):
        info: CheckpointInfo = read_info(write_checkpoint(tmp_path, number, mean))
        assert info.return_mean == mean
