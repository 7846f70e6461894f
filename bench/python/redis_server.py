"""Redis over a unix socket, driven from C: redis_server.py OPERATION CLIENTS IN_FLIGHT N

OPERATION is rpush, hget or hset. One server process for the side's life, no persistence.
"""

import csv
import io
import shutil
import subprocess
import sys
import tempfile
import time

import side

COMMANDS = {
    "rpush": ["rpush", "items", "1"],
    "hget": ["hget", "table", "1"],
    "hset": ["hset", "table", "1", "1"],
}


def benchmark(socket, operation, clients, in_flight, n):
    command = ["redis-benchmark", "-s", socket, "--csv", "-c", clients, "-P", in_flight, "-n", n]
    out = subprocess.run(command + COMMANDS[operation], capture_output=True, text=True, check=True)
    return float(list(csv.reader(io.StringIO(out.stdout)))[-1][1])


def serve(directory, operation, clients, in_flight, n):
    socket = f"{directory}/socket"
    options = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", directory]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    ping = ["redis-cli", "-s", socket, "ping"]
    while subprocess.run(ping, capture_output=True).stdout.strip() != b"PONG":
        if server.poll() is not None:
            side.skip("redis-server does not start")
        time.sleep(0.02)
    try:
        subprocess.run(["redis-cli", "-s", socket, "hset", "table", "1", "1"], capture_output=True)
        side.serve(lambda: benchmark(socket, operation, clients, in_flight, n))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    if not shutil.which("redis-server") or not shutil.which("redis-benchmark"):
        side.skip("redis-server or redis-benchmark is not installed")
    with tempfile.TemporaryDirectory() as directory:
        serve(directory, *sys.argv[1:])
