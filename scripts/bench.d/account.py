"""Who spent what, from the operating system's account: threads by name, children, the database's processes."""

import os
import pathlib
import time

PROC = pathlib.Path("/proc")
PAGE = os.sysconf("SC_PAGE_SIZE")


def run_ns(folder):
    """CPU time of one thread (or of a process that has but one), exact: `stat` counts in steps of 10 ms."""
    return int((folder / "schedstat").read_text().split()[0])


def threads_us(pid):
    """CPU time of a process by the names of its threads, µs."""
    found = {}
    for thread in (PROC / str(pid) / "task").iterdir():
        try:
            name = (thread / "comm").read_text().strip()
            found[name] = found.get(name, 0) + run_ns(thread) / 1_000
        except OSError:
            pass
    return found


def children(pid):
    """Processes that it started."""
    found = []
    for entry in PROC.glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
        except OSError:
            pass
    return sorted(found)


def memory(pid, field="VmRSS"):
    """A line of /proc/PID/status, bytes."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def kernel_bytes():
    """What the kernel holds for sockets: its objects, and the pages with their data. Of the whole machine."""
    slab = next(int(line.split()[1]) * 1024 for line in (PROC / "meminfo").read_text().splitlines()
                if line.startswith("Slab:"))
    tcp = next(line.split() for line in (PROC / "net" / "sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return slab + int(tcp[tcp.index("mem") + 1]) * PAGE


def server_us(database, name):
    """CPU time of the database's processes, µs: {pid: (kind, µs)}; empty where they are not to be seen (a container).

    Kinds: `catalog` for connections whose last statement looked at the endpoints, `client` for other connections to
    this database, else what the server calls it.
    """
    rows = database.sql(f"""
        select pid, case when backend_type <> 'client backend' then backend_type
                         when datname is distinct from '{name}' or pid = pg_backend_pid() then 'other client'
                         when query ~ 'endpoint_changes' then 'catalog' else 'client' end
        from pg_stat_activity""").splitlines()
    # The postmaster has no row.
    found = {}
    for row in rows:
        pid, kind = row.split("|")
        try:
            if b"postgres" in (PROC / pid / "cmdline").read_bytes():
                found[int(pid)] = (kind, run_ns(PROC / pid) / 1_000)
        except OSError:
            pass
    return found


def spent_us(before, after):
    """By kind, what was spent in between. A process that came in between counts from its beginning."""
    found = {}
    for pid, (kind, us) in after.items():
        found[kind] = found.get(kind, 0) + us - before.get(pid, (kind, 0))[1]
    return found


def until(ready, seconds, every=0.05):
    """Seconds until `ready`, or None."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < seconds:
        if ready():
            return waited
        time.sleep(every)
    return None
