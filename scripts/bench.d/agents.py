"""Agents for measurements of their own: a database with endpoints, processes, what they say of themselves."""

import contextlib
import os
import subprocess
import time

from world import CORES, MEASURED, Process, free_port, get, wait_for


def environment(url, **settings):
    """Of a watcher process: nothing of the caller's."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("WATCHER_", "PG"))}
    return env | {"DATABASE_URL": url} | settings


def prepared(bench, name, base_url, count, interval, *more):
    """A database with so many endpoints: its URL, and how long inserting them took."""
    url = bench.database.fresh(name)
    env = environment(url)
    subprocess.run([bench.watcher, "migrate"], env=env, check=True, capture_output=True)
    begun = time.monotonic()
    if count:
        subprocess.run([bench.watcher, "endpoints", "generate", "--count", str(count), "--interval", interval,
                        "--base-url", base_url, *more], env=env, check=True, capture_output=True)
    return url, time.monotonic() - begun


class Watcher:
    """A running `watcher up` or `watcher agent`."""

    def __init__(self, process, listen):
        self.process, self.listen = process, listen

    def metric(self, name):
        """A metric, summed over its series."""
        lines = (line for line in get(f"http://{self.listen}/metrics").splitlines() if line and line[0] != "#")
        return sum(float(line.split()[-1]) for line in lines if line.partition("{")[0].split()[0] == name)

    def is_ready(self):
        return get(f"http://{self.listen}/ready") is not None


@contextlib.contextmanager
def running(bench, name, arguments, url, cores=None, **settings):
    """Stopped at the end, however that comes."""
    listen = f"127.0.0.1:{free_port()}"
    env = environment(url, WATCHER_LISTEN=listen, SSL_CERT_FILE=str(bench.nginx.ca)) | settings
    process = Process(name, [bench.watcher, *arguments], bench.work, cores or MEASURED, env)
    try:
        yield Watcher(process, listen)
    finally:
        process.stop()


def ready(watcher, seconds=120):
    wait_for(watcher.process.name, watcher.process, watcher.is_ready, seconds)


ALL_CORES = set(CORES)
