"""What viewers are sent: the newest states, made once for all of them and not without any."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.helpers.synthetic_run import make_trace, write_rows, write_synthetic_run
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.watch import feeds as feeds_module
from tianji_cli.watch.feeds import KEPT_RUNS, LiveFeed, LiveFeeds, Refreshed
from tianji_cli.watch.run_list import RunList

WITHIN_S = 30.0


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = write_synthetic_run(tmp_path / "results/run", num_batches=20, has_summary=False)
    (paths.logs / "box<1>/actor-0.log").write_text("one\ntwo\n")
    return paths


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds_module, "LIVE_S", 0.01)
    monkeypatch.setattr(feeds_module, "CALM_S", 0.01)


def within(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(WITHIN_S):
            await test()

    asyncio.run(bounded())


def parsed(event: bytes) -> tuple[str, dict[str, object]]:
    head, data, *rest = event.decode().split("\n")
    assert rest == ["", ""]
    return head.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def until(
    stream: AsyncIterator[bytes], kind: str, is_so: Callable[[dict[str, object]], object]
) -> dict[str, object]:
    async for event in stream:
        found, data = parsed(event)
        if found == kind and is_so(data):
            return data
    raise AssertionError("the stream has ended")


def test_the_list_is_told(run):
    async def test() -> None:
        feeds = LiveFeeds(RunList(run.root.parent))
        stream = feeds.stream("", "")
        data = await until(stream, "runs", lambda data: data["runs"])
        assert [row["run_id"] for row in data["runs"]] == ["run"]  # type: ignore[attr-defined]
        await stream.aclose()  # type: ignore[attr-defined]

    within(test)


def test_a_run_its_growth_and_its_logs_are_told(run):
    async def test() -> None:
        stream = LiveFeeds(RunList(run.root.parent)).stream("run", "box<1>/actor-0.log")
        logs = await until(stream, "logs", lambda data: True)
        assert logs["lines"] == ["one", "two"]
        first = await until(stream, "run", lambda data: not data["is_behind"])
        write_rows(run.trace, make_trace(1.0, 450.0, 60).rows)
        num_before = first["figures"]["episodes"]  # type: ignore[index]
        await until(stream, "run", lambda data: data["figures"]["episodes"] > num_before)  # type: ignore[index]
        await stream.aclose()  # type: ignore[attr-defined]

    within(test)


def test_a_log_that_is_not_there_is_told(run):
    async def test() -> None:
        stream = LiveFeeds(RunList(run.root.parent)).stream("run", "../manifest.json")
        data = await until(stream, "logs", lambda data: True)
        assert data["problem"]
        assert data["lines"] == []
        await stream.aclose()  # type: ignore[attr-defined]

    within(test)


@pytest.mark.parametrize("name", ["none", "../run", "/etc", "..", "run/trace"])
def test_a_run_that_is_not_there_is_told(run, name):
    async def test() -> None:
        stream = LiveFeeds(RunList(run.root.parent)).stream(name, "")
        assert await until(stream, "absent", lambda data: True) == {"run_id": name}
        await stream.aclose()  # type: ignore[attr-defined]

    within(test)


def test_a_run_that_is_replaced_by_a_link_is_not_shown(run, tmp_path):
    async def test() -> None:
        stream = LiveFeeds(RunList(run.root.parent)).stream("run", "")
        await until(stream, "run", lambda data: True)
        run.root.rename(tmp_path / "elsewhere")
        run.root.symlink_to(tmp_path / "elsewhere")
        await until(stream, "absent", lambda data: True)
        await stream.aclose()  # type: ignore[attr-defined]

    within(test)


def test_several_viewers_cost_one_reader_and_none_cost_nothing():
    async def test() -> None:
        refreshed = 0

        def refresh() -> Refreshed:
            nonlocal refreshed
            refreshed += 1
            return Refreshed("x", b"{}", 3600.0)

        changed = asyncio.Condition()
        feed = LiveFeed(refresh, changed)
        for num_before in range(2):
            assert refreshed == num_before
            for _ in range(5):
                feed.enter()
            async with changed:
                await changed.wait_for(lambda: refreshed > num_before)  # noqa: B023
            for _ in range(5):
                feed.leave()
            assert feed._task is None
        assert refreshed == 2

    within(test)


def test_viewers_share_what_was_read_and_few_runs_are_kept(run):
    async def test() -> None:
        for i in range(KEPT_RUNS + 3):
            write_synthetic_run(run.root.parent / f"other-{i}", num_batches=1)
        feeds = LiveFeeds(RunList(run.root.parent))
        first, second = (feeds.stream("run", "") for _ in range(2))
        await until(first, "run", lambda data: True)
        await until(second, "run", lambda data: True)
        assert feeds._of_runs["run"].viewers == 2
        for i in range(KEPT_RUNS + 3):
            stream = feeds.stream(f"other-{i}", "")
            await until(stream, "run", lambda data: True)
            await stream.aclose()  # type: ignore[attr-defined]
        assert len(feeds._of_runs) <= KEPT_RUNS + 1
        assert "run" in feeds._of_runs, "it has viewers"
        for stream in (first, second):
            await stream.aclose()  # type: ignore[attr-defined]

    within(test)


def test_closing_ends_all_streams(run):
    async def test() -> None:
        feeds = LiveFeeds(RunList(run.root.parent))
        streams = [feeds.stream("run", ""), feeds.stream("", "")]

        async def drain(stream: AsyncIterator[bytes]) -> None:
            async for _ in stream:
                pass

        tasks = [asyncio.create_task(drain(stream)) for stream in streams]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in tasks)
        await feeds.close()
        await asyncio.gather(*tasks)

    within(test)


def test_an_error_of_the_program_ends_the_streams(run, monkeypatch):
    async def test() -> None:
        runs = RunList(run.root.parent)
        monkeypatch.setattr(runs, "view", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await anext(LiveFeeds(runs).stream("", ""))

    within(test)
