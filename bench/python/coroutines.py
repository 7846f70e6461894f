"""asyncio: coroutines.py gather | sleep | sleep_pool"""

import asyncio
import multiprocessing
import sys

import side

WORKERS = 4


async def trivial(x):
    return x


async def gather(n):
    results = await asyncio.gather(*[trivial(x) for x in range(n)])
    assert len(results) == n


async def sleep(n):
    await asyncio.gather(*[asyncio.sleep(1) for _ in range(n)])


def sleep_in_worker(n):
    asyncio.run(sleep(n))


def sleep_in_pool():
    pool = multiprocessing.Pool(WORKERS)
    pool.map(sleep_in_worker, [1] * WORKERS, 1)
    return side.seconds(lambda: pool.map(sleep_in_worker, [1000] * WORKERS, 1), lambda s: s)


if __name__ == "__main__":
    side.serve(
        {
            "gather": lambda: side.per_second(100_000, lambda: asyncio.run(gather(100_000))),
            "sleep": lambda: side.seconds(lambda: asyncio.run(sleep(4_000)), lambda s: s),
            "sleep_pool": sleep_in_pool,
        }[sys.argv[1]]()
    )
