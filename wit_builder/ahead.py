"""What is read from afar is asked for ahead of its use, by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], at_once: int
) -> Iterator[Result]:
    """Yield what a function returns of each item, in their order.

    Unlike an executor's ``map``, it holds no more than ``at_once`` results, whatever takes them.

    Raises:
        Whatever the function does, in the item's turn.
    """
    waiting = deque[Future[Result]]()
    with ThreadPoolExecutor(at_once, "wit-ahead") as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) == at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
