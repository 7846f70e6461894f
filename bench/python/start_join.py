"""A process that does nothing, started and joined: start_join.py fork|forkserver|spawn"""

import multiprocessing
import sys

import side


def nothing():
    pass


if __name__ == "__main__":
    method = sys.argv[1]
    context = multiprocessing.get_context(method)

    def once():
        process = context.Process(target=nothing)
        process.start()
        process.join()

    side.serve(side.each_us({"fork": 20, "forkserver": 8, "spawn": 3}[method], once))
