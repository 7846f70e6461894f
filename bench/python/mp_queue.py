"""multiprocessing.Queue: mp_queue.py small|2x2|big|rtt|rtt_idle"""

import multiprocessing
import statistics
import sys
import time

import side

SMALL, BIG = 30_000, 64
message = b"0123456789abcdef"


def produce(queue, go, n, payload):
    while True:
        go.acquire()
        for _ in range(n):
            queue.put(payload)


def consume(queue, go, done, n):
    while True:
        go.acquire()
        for _ in range(n):
            queue.get()
        done.release()


def echo(there, back):
    while True:
        back.put(there.get())


def start(target, *args):
    multiprocessing.Process(target=target, args=args, daemon=True).start()


def one_way(n, payload):
    queue, go = multiprocessing.Queue(), multiprocessing.Semaphore(0)
    start(produce, queue, go, n, payload)

    def all_of_it():
        go.release()
        for _ in range(n):
            queue.get()

    return all_of_it


def two_by_two(n):
    queue = multiprocessing.Queue()
    gos, done = [multiprocessing.Semaphore(0) for _ in range(4)], multiprocessing.Semaphore(0)
    for go in gos[:2]:
        start(produce, queue, go, n // 2, message)
    for go in gos[2:]:
        start(consume, queue, go, done, n // 2)

    def all_of_it():
        for go in gos:
            go.release()
        for _ in range(2):
            done.acquire()

    return all_of_it


def round_trip():
    there, back = multiprocessing.Queue(), multiprocessing.Queue()
    start(echo, there, back)

    def once():
        there.put(message)
        back.get()

    return once


def idle(once):
    def repetition():
        samples = []
        for _ in range(50):
            time.sleep(0.01)
            start = time.perf_counter()
            once()
            samples.append(time.perf_counter() - start)
        return statistics.median(samples) * 1e6

    return repetition


def hot(once):
    return side.mean_us(1000, lambda: [once() for _ in range(1000)])


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    side.serve(
        {
            "small": lambda: side.per_second(SMALL, one_way(SMALL, message)),
            "2x2": lambda: side.per_second(SMALL, two_by_two(SMALL)),
            "big": lambda: side.seconds(
                one_way(BIG, bytes(1 << 20)), lambda s: BIG * (1 << 20) / s / 1e9
            ),
            "rtt": lambda: hot(round_trip()),
            "rtt_idle": lambda: idle(round_trip()),
        }[sys.argv[1]]()
    )
