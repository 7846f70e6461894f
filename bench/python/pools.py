"""The pools of multiprocessing, concurrent.futures, loky, pebble and mpire, two workers each:
pools.py apply|small|small1|cpu|uneven|uneven1|big|create|idle mp|mp_spawn|ppe|loky|pebble|mpire"""

import multiprocessing
import sys
import time

import side

WORKERS = 2


def nothing():
    pass


def square(x):
    return x * x


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Mp:
    """multiprocessing.Pool"""

    def __init__(self, workers=WORKERS, method="fork"):
        self.pool = multiprocessing.get_context(method).Pool(workers)
        self.apply = self.pool.apply

    def map(self, f, items, chunk=None):
        return self.pool.map(f, items, chunk)

    def close(self):
        self.pool.terminate()
        self.pool.join()


class Executor:
    """What has the interface of concurrent.futures."""

    def __init__(self, executor):
        self.pool = executor

    def apply(self, f):
        return self.pool.submit(f).result()

    def map(self, f, items, chunk=None):
        return list(self.pool.map(f, items, chunksize=chunk or 1))

    def close(self):
        self.pool.shutdown()


class Pebble:
    """pebble.ProcessPool"""

    def __init__(self, workers=WORKERS):
        self.pool = side.need("pebble").ProcessPool(max_workers=workers)

    def apply(self, f):
        return self.pool.schedule(f).result()

    def map(self, f, items, chunk=None):
        return list(self.pool.map(f, items, chunksize=chunk or 1).result())

    def close(self):
        self.pool.stop()
        self.pool.join()


class Mpire:
    """mpire.WorkerPool"""

    def __init__(self, workers=WORKERS):
        self.pool = side.need("mpire").WorkerPool(workers, keep_alive=True)

    def apply(self, f):
        return self.pool.apply(f)

    def map(self, f, items, chunk=None):
        return self.pool.map(f, items, chunk_size=chunk)

    def close(self):
        self.pool.terminate()


def ppe(workers=WORKERS):
    return Executor(side.need("concurrent.futures").ProcessPoolExecutor(workers))


def loky(workers=WORKERS):
    return Executor(side.need("loky").get_reusable_executor(workers, timeout=600))


POOLS = {
    "mp": Mp,
    "mp_spawn": lambda workers=WORKERS: Mp(workers, "spawn"),
    "ppe": ppe,
    "loky": loky,
    "pebble": Pebble,
    "mpire": Mpire,
}


def apply(make):
    pool = make()
    return side.mean_us(1000, lambda: [pool.apply(nothing) for _ in range(1000)])


def small(make, n=100_000, chunk=None):
    pool = make()

    def all_of_it():
        assert pool.map(square, range(n), chunk)[-1] == (n - 1) ** 2

    return side.per_second(n, all_of_it)


def cpu(make):
    pool = make()
    ideal = 64 * 0.010 / WORKERS
    return side.seconds(lambda: pool.map(spin, [0.010] * 64), lambda s: ideal / s)


def uneven(make, chunk=None):
    pool = make()
    n = 40
    tasks = [(1 + i * 199 / (n - 1)) / 1000 for i in range(n)]
    best = sum(tasks) / WORKERS
    return side.seconds(lambda: pool.map(spin, tasks, chunk), lambda s: s / best)


def big(make):
    pool = make()
    payloads = [bytes([i]) * (4 << 20) for i in range(64)]

    def all_of_it():
        assert sum(pool.map(len, payloads, 1)) == 64 * (4 << 20)

    return side.seconds(all_of_it, lambda s: 64 * (4 << 20) / s / 1e9)


def create(make):
    def all_of_it():
        pool = make(4)
        pool.apply(nothing)
        pool.close()

    return side.seconds(all_of_it, lambda s: s * 1e3)


def idle(make):
    pool = make()
    pool.apply(nothing)

    def all_of_it():
        time.sleep(10)
        assert pool  # Else it would have been terminated: nobody else has it.

    return side.seconds(all_of_it, lambda s: s)


WORKS = {
    "apply": apply,
    "small": small,
    "small1": lambda make: small(make, 20_000, 1),
    "cpu": cpu,
    "uneven": uneven,
    "uneven1": lambda make: uneven(make, 1),
    "big": big,
    "create": create,
    "idle": idle,
}

if __name__ == "__main__":
    work, pool = sys.argv[1:]
    side.serve(WORKS[work](POOLS[pool]))
