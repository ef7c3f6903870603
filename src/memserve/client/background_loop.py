"""An event loop on a thread of its own, so that sync calls work anywhere, inside a running loop too."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from memserve.errors import Closed, InvalidInput

T = TypeVar("T")
_STOP_SECONDS = 10.0


class BackgroundLoop:
    """A daemon thread that runs one event loop until `stop`."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name="memserve-loop", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False in a forked child: threads do not survive a fork."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; an interrupt of the waiting thread cancels it."""
        if threading.current_thread() is self._thread:
            work.close()
            raise InvalidInput("a sync call from inside memserve's own loop would wait for itself")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise Closed("closed while the answer was on its way") from None
        except BaseException:
            future.cancel()
            raise

    async def join(self, work: Coroutine[Any, Any, T]) -> T:
        """Await, from another loop, a coroutine that runs on this one."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def stop(self) -> None:
        """Cancel what still runs, end the thread and close the loop."""
        if not self.alive or threading.current_thread() is self._thread:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(_end_tasks())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


async def _end_tasks() -> None:
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
