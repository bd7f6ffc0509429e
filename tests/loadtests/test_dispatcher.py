"""Who sends an arrival, and what happens to those that nobody can send. Real greenlets, milliseconds."""

from __future__ import annotations

import time

import gevent
import pytest

from loadtests.arrivals.dispatcher import Dispatcher
from loadtests.collector import Collector
from loadtests.record import Record
from loadtests.session import Session
from loadtests.turn import Turn
from loadtests.workloads.prompt import Prompt
from loadtests.workloads.workload import Request, Workload

MS = 1_000_000
PROMPTS = [Prompt(index, text=str(index), messages=None) for index in range(5)]
WORKLOAD = Workload("llm", PROMPTS)
REQUEST = Request(PROMPTS[0], 1)


def dispatcher(*due_ms: int) -> tuple[Dispatcher, Collector]:
    clock = Collector(None)
    turns = iter([Turn(REQUEST, n, time_ms * MS) for n, time_ms in enumerate(due_ms)])
    return Dispatcher(turns, clock.now), clock


def test_an_arrival_is_handed_out_when_it_is_due_and_never_before() -> None:
    sender, clock = dispatcher(20, 400)  # far enough apart that a busy machine has come back for the second
    sender.start()
    for due_ms in (20, 400):
        turn = sender.take()
        assert turn is not None
        assert turn.intended_ns == turn.ready_ns == due_ms * MS  # a user was waiting
        assert clock.now() >= due_ms * MS
    assert sender.take() is None


def test_the_user_that_became_free_last_gets_the_next_arrival() -> None:
    sender, _ = dispatcher(60_000)
    served: list[str] = []

    def user(name: str) -> None:
        while sender.take() is not None:
            served.append(name)

    users = [gevent.spawn(user, name) for name in ("first", "second")]
    gevent.sleep(0)
    for _ in range(3):
        sender._give(Turn(REQUEST, intended_ns=0))
        gevent.sleep(0.001)
    sender.close()
    gevent.joinall(users, timeout=5, raise_error=True)
    assert served == ["second", "second", "second"]


def test_an_arrival_without_a_free_user_waits_and_says_so() -> None:
    sender, clock = dispatcher(0, 10)
    sender.start()
    gevent.sleep(0.05)
    first, second = sender.take(), sender.take()
    assert first is not None
    assert second is not None
    assert (first.intended_ns, second.intended_ns) == (0, 10 * MS)  # the oldest first
    assert first.ready_ns is not None
    assert 45 * MS <= first.ready_ns <= clock.now()


def test_at_the_end_what_was_due_is_returned_and_users_are_woken() -> None:
    sender, _ = dispatcher(0, 1, 60_000)
    sender.start()
    gevent.sleep(0.02)
    assert [turn.intended_ns for turn in sender.close()] == [0, MS]
    assert sender.take() is None
    assert sender.close() == []

    waiting, _ = dispatcher(60_000)
    waiting.start()
    user = gevent.spawn(waiting.take)
    gevent.sleep(0.01)
    assert waiting.close() == []
    assert user.get(timeout=5) is None


def test_a_generator_that_lags_still_returns_all_that_was_due() -> None:
    sender, _ = dispatcher(0, 5, 60_000)
    sender.start()
    time.sleep(0.02)  # nothing else runs
    assert len(sender.close()) == 2


def test_what_becomes_due_while_the_load_is_stopped_is_after_its_end() -> None:
    sender, _ = dispatcher(5, 60_000)
    sender.start()
    user = gevent.spawn(sender.take)
    gevent.sleep(0)
    time.sleep(0.02)  # Locust stops, and nothing else runs
    assert sender.close() == []
    assert user.get(timeout=5) is None


def test_who_ends_the_load_at_once_misses_nothing_that_a_lagging_generator_did_not_send() -> None:
    sender, _ = dispatcher(5, 60_000)
    sender.start()
    user = gevent.spawn(sender.take)
    gevent.sleep(0)
    time.sleep(0.05)
    assert [turn.intended_ns for turn in sender.close(10 * MS)] == [5 * MS]
    assert user.get(timeout=5) is None


def test_an_arrival_of_a_killed_user_goes_to_another() -> None:
    sender, _ = dispatcher(60_000)
    victim = gevent.spawn(sender.take)
    gevent.sleep(0)
    victim.kill(block=False)
    handed = Turn(PROMPTS[1], intended_ns=0)
    sender._give(handed)  # before the kill is felt
    gevent.sleep(0.01)
    assert victim.dead
    assert sender.take() is handed


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_together_send_the_schedule_of_one_process(workers: int) -> None:
    times = [n * MS for n in range(10)]
    taken: list[tuple[int, int]] = []
    for rank in range(workers):
        session = Session(WORKLOAD, Collector(None), first=rank, step=workers, schedule=times)
        session.begin()
        while (turn := session.take()) is not None:
            assert turn.intended_ns is not None
            taken.append((turn.intended_ns, turn.request.prompt.index))
    # Each arrival once, with the prompt that it has in one process.
    assert sorted(taken) == [(n * MS, n % 5) for n in range(10)]


def test_arrivals_that_nobody_could_send_are_recorded() -> None:
    lines: list[str] = []

    class Sink:
        def write(self, text: str) -> None:
            lines.append(text)

    session = Session(WORKLOAD, Collector(Sink()), schedule=[0, MS, 60_000 * MS])
    session.begin()
    gevent.sleep(0.02)
    session.close()
    session.close()
    assert len(lines) == session.collector.unsent == 2
    import json

    record = Record(**json.loads(lines[0]))
    assert (record.outcome, record.user, record.asked_ns) == ("unsent", -1, 0)
    assert record.start_ns == record.end_ns >= 20 * MS * 0.9
