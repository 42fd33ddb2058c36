"""Whether job number 1,000,000 costs more than job number 1,000: windows of a hundred, by processor time."""

import gc
import time
from array import array
from collections.abc import Iterator
from statistics import median

from benchmarks._run import Run, resident

WINDOW, FIRST, WINDOWS = 100, 10, 20

SECONDS = 90.0
"""After so long nobody is asked for more jobs."""


class LateJobs:
    """Iterates over windows of jobs, and leaves in the run what the late ones took beside the early ones.

    Args:
        run: The measurement; its size is the number of jobs.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[range]:
        """Yield one range for each window; the jobs are done in the loop's body."""
        number = self._run.size // WINDOW
        first = min(FIRST, number // 4)
        width = min(WINDOWS, (number - first) // 2)
        times, done = array("d", bytes(8 * number)), 0  # made before, so that it does not grow with the jobs
        gc.collect()
        end, before = time.perf_counter() + SECONDS, resident()
        while done < number and (done < first + 2 * width or time.perf_counter() < end):
            start = time.process_time()
            yield range(WINDOW)
            times[done] = time.process_time() - start
            done += 1
            if done == first + width:
                gc.collect()
                before = resident()
        gc.collect()
        early, late = median(times[first : first + width]), median(times[done - width : done])
        self._run.values |= {
            "ratio": late / early,
            "grown": max(0, resident() - before),
            "early": early / WINDOW,
            "late": late / WINDOW,
            "jobs": done * WINDOW,
        }
