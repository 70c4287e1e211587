"""The numbers of connections: none twice, whatever process or iterator they are taken from."""

from __future__ import annotations

import itertools
import os

from culvert.idents import BLOCK, ConnectionNumbers

from .forked import bound_life, read_to_end


def in_children(numbers: ConnectionNumbers, children: int, count: int, fate: str = "") -> list[list[int]]:
    """What each of some processes at the same time takes; `fate` is a signal's number for their end."""
    gate, opening = os.pipe()
    readers = []
    pids = []
    for _ in range(children):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            bound_life()
            os.close(opening)
            os.read(gate, 1)  # all at once: when the last writer of the gate has closed it
            taken = list(itertools.islice(numbers, count))
            os.write(writer, " ".join(map(str, taken)).encode())
            if fate:
                os.kill(os.getpid(), int(fate))
            os._exit(0)
        os.close(writer)
        readers.append(reader)
        pids.append(pid)
    os.close(gate)
    os.close(opening)
    each = [[int(number) for number in read_to_end(reader).split()] for reader in readers]
    for pid in pids:
        os.waitpid(pid, 0)
    return each


def test_one_process_counts_from_0() -> None:
    assert list(itertools.islice(ConnectionNumbers(), 3 * BLOCK)) == list(range(3 * BLOCK))


def test_processes_at_the_same_time_take_different_ones() -> None:
    each = in_children(ConnectionNumbers(), children=4, count=200)
    everything = [number for taken in each for number in taken]
    assert len(everything) == 800
    assert len(set(everything)) == 800
    assert all(taken == sorted(taken) for taken in each)
    assert max(everything) < 4 * (200 + BLOCK)


def test_a_process_that_was_killed_takes_its_numbers_along() -> None:
    numbers = ConnectionNumbers()
    before = in_children(numbers, children=1, count=3, fate="9")[0]
    assert before == [0, 1, 2]
    assert next(iter(numbers)) == BLOCK


def test_two_iterators_of_one_process_do_not_meet() -> None:
    numbers = ConnectionNumbers()
    first, second = iter(numbers), iter(numbers)
    taken = [next(source) for _ in range(2 * BLOCK) for source in (first, second)]
    assert len(set(taken)) == len(taken)


def test_two_daemons_count_for_themselves() -> None:
    assert next(iter(ConnectionNumbers())) == next(iter(ConnectionNumbers())) == 0
