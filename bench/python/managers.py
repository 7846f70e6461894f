"""multiprocessing.Manager: managers.py append|append4|get|set|memory"""

import multiprocessing
import sys

import side

N = 3_000


def append(items, n):
    for i in range(n):
        items.append(i)


def get(table, n):
    for i in range(n):
        table[i % 100]


def set_(table, n):
    for i in range(n):
        table[i % 100] = i


def client(work, proxy, go, done, n):
    while True:
        go.acquire()
        work(proxy, n)
        done.release()


def clients(count, work, proxy):
    """Operations per second of so many client processes together."""
    gos, done = [multiprocessing.Semaphore(0) for _ in range(count)], multiprocessing.Semaphore(0)
    for go in gos:
        args = (work, proxy, go, done, N)
        multiprocessing.Process(target=client, args=args, daemon=True).start()

    def all_of_it():
        for go in gos:
            go.release()
        for _ in range(count):
            done.acquire()

    all_of_it.proxy = proxy  # When the last proxy in this process goes, so may the value.
    return side.per_second(count * N, all_of_it)


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024


def memory(manager):
    """The server's memory after 1,000,000 numbers, in times the data (8 bytes each)."""

    def repetition():
        items = manager.list()
        for start in range(0, 1_000_000, 100_000):
            items.extend(list(range(start, start + 100_000)))
        assert len(items) == 1_000_000
        return resident_mib(manager._process.pid) / (8_000_000 / (1 << 20))

    return repetition


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    manager = multiprocessing.Manager()
    side.serve(
        {
            "append": lambda: clients(1, append, manager.list()),
            "append4": lambda: clients(4, append, manager.list()),
            "get": lambda: clients(1, get, manager.dict({i: i for i in range(100)})),
            "set": lambda: clients(1, set_, manager.dict()),
            "memory": lambda: memory(manager),
        }[sys.argv[1]]()
    )
