"""The writer of a child's stdin, on a real pipe: whole lines, in order, and never more than the bound."""

from __future__ import annotations

import fcntl
import os
import tracemalloc

import pytest
import trio

from controlplane.protocol.outbox import Outbox, OutboxFull
from tests.protocol.conftest import WAIT_S, Pipe, drain

PAGE = 4096
F_SETPIPE_SZ = 1031


async def read_all(fd: int, size: int, *, step: int = 2**16) -> bytes:
    """Read so many bytes, as a child that takes `step` at a time."""
    os.set_blocking(fd, False)
    data = bytearray()
    with trio.fail_after(WAIT_S):
        while len(data) < size:
            await trio.lowlevel.wait_readable(fd)
            data += os.read(fd, step)
    return bytes(data)


async def test_a_line_is_in_the_pipe_at_once_while_the_pipe_takes_it(pipe: Pipe) -> None:
    outbox = Outbox(pipe.writes, pipe.close_writes)

    outbox.send_nowait(b"one\n")
    outbox.send_nowait(b"two\n")

    assert drain(pipe.reads) == b"one\ntwo\n"
    assert (outbox.queued_bytes, outbox.stuck_since) == (0, None)


async def test_lines_that_may_wait_a_moment_are_written_together_and_never_overtaken(pipe: Pipe) -> None:
    outbox = Outbox(pipe.writes, pipe.close_writes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        await trio.testing.wait_all_tasks_blocked()
        outbox.send_nowait(b"one\n", soon=True)
        outbox.send_nowait(b"two\n", soon=True)
        outbox.send_nowait(b"three\n")
        assert (drain(pipe.reads), outbox.queued_bytes, outbox.stuck_since) == (b"", 14, None)

        await trio.testing.wait_all_tasks_blocked()

        assert (drain(pipe.reads), outbox.queued_bytes, outbox.stuck_since) == (b"one\ntwo\nthree\n", 0, None)
        nursery.cancel_scope.cancel()


async def test_what_the_pipe_does_not_take_waits_and_comes_out_whole_and_in_order(pipe: Pipe) -> None:
    outbox = Outbox(pipe.writes, pipe.close_writes)
    lines = [b"%06d " % number + b"x" * (number * 37 % 5000) + b"\n" for number in range(400)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        for line in lines:
            outbox.send_nowait(line)
        assert outbox.queued_bytes > 0

        assert await read_all(pipe.reads, sum(map(len, lines)), step=3000) == b"".join(lines)

        await trio.testing.wait_all_tasks_blocked()
        assert (outbox.queued_bytes, outbox.stuck_since) == (0, None)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [1, PAGE, 2**16, 2**16 + 1, 2**20])
async def test_a_line_that_does_not_fit_is_refused_whole(pipe: Pipe, size: int) -> None:
    outbox = Outbox(pipe.writes, pipe.close_writes, max_bytes=100)
    outbox.send_nowait(b"a" * 100)
    fill(pipe)
    outbox.send_nowait(b"b" * 60)

    with pytest.raises(OutboxFull):
        outbox.send_nowait(b"c" * (40 + size))

    assert outbox.queued_bytes == 60
    outbox.send_nowait(b"d" * 40)
    assert outbox.queued_bytes == 100
    with pytest.raises(OutboxFull):
        outbox.send_nowait(b"e")


async def test_one_line_larger_than_the_bound_is_refused_though_nothing_waits(pipe: Pipe) -> None:
    outbox = Outbox(pipe.writes, pipe.close_writes, max_bytes=2**17)

    with pytest.raises(OutboxFull):
        outbox.send_nowait(b"x" * (2**17 + 1))

    assert drain(pipe.reads) == b""
    assert outbox.queued_bytes == 0


async def test_it_is_known_since_when_a_child_has_read_nothing(pipe: Pipe, mock_clock: trio.testing.MockClock) -> None:
    outbox = Outbox(pipe.writes, pipe.close_writes)
    fill(pipe)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        outbox.send_nowait(b"x" * 3 * PAGE)
        began = trio.current_time()
        assert outbox.stuck_since == began

        mock_clock.jump(7)
        outbox.send_nowait(b"more")
        assert outbox.stuck_since == began

        os.read(pipe.reads, PAGE)
        await trio.testing.wait_all_tasks_blocked()
        assert outbox.stuck_since == began + 7
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("queued", [False, True], ids=["nothing waits", "something waits"])
async def test_a_closed_stdin_is_noticed(pipe: Pipe, queued: bool) -> None:
    outbox = Outbox(pipe.writes, pipe.close_writes)
    if queued:
        fill(pipe)
        outbox.send_nowait(b"x" * PAGE)
    pipe.close_reads()

    if queued:
        with trio.fail_after(WAIT_S):
            await outbox.run()
    else:
        with pytest.raises(BrokenPipeError):
            outbox.send_nowait(b"y")
        with trio.fail_after(WAIT_S):
            await outbox.run()

    assert outbox.broken.is_set()
    with pytest.raises(BrokenPipeError):
        outbox.send_nowait(b"z")


@pytest.mark.parametrize("queued", [False, True], ids=["nothing waits", "something waits"])
async def test_closing_ends_the_writer_and_drops_what_waits(pipe: Pipe, queued: bool) -> None:
    outbox = Outbox(pipe.writes, pipe.close_writes)
    if queued:
        fill(pipe)
        outbox.send_nowait(b"x" * PAGE)

    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            await trio.testing.wait_all_tasks_blocked()
            outbox.close()
            outbox.close()

    assert pipe.writes == -1
    assert (outbox.queued_bytes, outbox.stuck_since) == (0, None)
    with pytest.raises(BrokenPipeError):
        outbox.send_nowait(b"y")


async def test_a_child_that_reads_in_sips_costs_no_copy_of_the_rest_for_each_sip(pipe: Pipe) -> None:
    """Eight MiB, a page at a time, is two thousand writes; copying what is left each time would be gigabytes."""
    outbox = Outbox(pipe.writes, pipe.close_writes)
    fcntl.fcntl(pipe.writes, F_SETPIPE_SZ, PAGE)
    line = b"x" * (2**21 - 1) + b"\n"
    tracemalloc.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            outbox.send_nowait(line)
            assert await count_bytes(pipe.reads, len(line)) == len(line)
            nursery.cancel_scope.cancel()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < len(line) / 4


async def count_bytes(fd: int, size: int) -> int:
    os.set_blocking(fd, False)
    count = 0
    with trio.fail_after(WAIT_S):
        while count < size:
            await trio.lowlevel.wait_readable(fd)
            count += len(os.read(fd, PAGE))
    return count


def fill(pipe: Pipe) -> None:
    """Fill the pipe to the last byte."""
    size = PAGE
    while size:
        try:
            os.write(pipe.writes, b"." * size)
        except BlockingIOError:
            size //= 2
