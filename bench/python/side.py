"""The Python end of the harness: one line in, one repetition, one line out.

    import side
    side.serve(lambda: seconds_of_one_repetition)

`serve` prints `ready`, then `= figure` for every line of standard input, until it ends. A script
that cannot run here calls `side.skip(why)` first.
"""

import statistics
import sys
import time

# Kept for the answers: what user code prints must not be mixed with them.
_out = sys.stdout


def skip(why):
    """Says that this side cannot take part, and ends."""
    print("skip", str(why).replace("\n", " "), file=_out, flush=True)
    sys.exit(0)


def need(module):
    """Imports a module that may be missing; skips if it is."""
    try:
        return __import__(module, fromlist=["_"])
    except ImportError:
        skip(f"the Python module {module} is not installed")


def serve(repetition):
    """Runs a repetition for each line of standard input."""
    print("ready", file=_out, flush=True)
    while sys.stdin.readline():
        try:
            print("=", repetition(), file=_out, flush=True)
        except Exception as error:
            print("failed", repr(error).replace("\n", " "), file=_out, flush=True)


def each_us(n, once):
    """The median time of one of n calls, in microseconds, as a repetition."""

    def repetition():
        samples = []
        for _ in range(n):
            start = time.perf_counter()
            once()
            samples.append(time.perf_counter() - start)
        return statistics.median(samples) * 1e6

    return repetition


def seconds(all_of_it, figure):
    """What `figure` makes of the seconds that one call takes, as a repetition."""

    def repetition():
        start = time.perf_counter()
        all_of_it()
        return figure(time.perf_counter() - start)

    return repetition


def per_second(n, all_of_it):
    """Things per second, as a repetition."""
    return seconds(all_of_it, lambda s: n / s)


def mean_us(n, all_of_it):
    """Microseconds for each thing, as a repetition."""
    return seconds(all_of_it, lambda s: s * 1e6 / n)
