"""A peer: the agent that a good Python engineer would write in an afternoon, on uvloop, aiohttp and asyncpg.

One task an endpoint, a new connection for each probe (or kept ones with --keep-alive), status and pattern checked,
rows copied into TimescaleDB once a second. Run by scripts/bench, which reads its CPU time from outside.
"""

import argparse
import asyncio
import datetime
import re
import ssl
import time

import aiohttp
import asyncpg
import uvloop

TABLE = """
create extension if not exists timescaledb;
create table if not exists peer_metrics (
    time timestamptz not null, endpoint_id bigint not null, up boolean not null, status smallint,
    matched boolean, duration_us integer, bytes_received integer);
select create_hypertable('peer_metrics', 'time', if_not_exists => true);
create unique index if not exists peer_metrics_once on peer_metrics (endpoint_id, time);
"""
COLUMNS = ["time", "endpoint_id", "up", "status", "matched", "duration_us", "bytes_received"]


async def watch(session, number, url, interval, pattern, rows):
    due = time.time() // interval * interval + interval * (number * 0.6180339887 % 1.0)
    while True:
        # The next instant, never one again: a timer may fire a moment early.
        due += interval * max(1, -(-(time.time() - due) // interval))
        await asyncio.sleep(due - time.time())
        begun = time.perf_counter()
        try:
            async with session.get(url) as response:
                body = await response.text()
                status, matched, received = response.status, bool(pattern.search(body)), len(body)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            status, matched, received = None, None, 0
        took = int((time.perf_counter() - begun) * 1_000_000)
        up = status == 200 and bool(matched)
        at = datetime.datetime.fromtimestamp(due, datetime.timezone.utc)
        rows.append((at, number, up, status, matched, took, received))


async def keep(database, rows, stored):
    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
    await pool.execute(TABLE)
    while True:
        await asyncio.sleep(1)
        batch = list(rows)
        rows.clear()
        if batch:
            await pool.copy_records_to_table("peer_metrics", records=batch, columns=COLUMNS)
            stored.write(f"{len(batch)}\n")
            stored.flush()


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--base-url", required=True)
    arguments.add_argument("--count", type=int, required=True)
    arguments.add_argument("--interval", type=float, default=5.0)
    arguments.add_argument("--pattern", required=True)
    arguments.add_argument("--database", required=True)
    arguments.add_argument("--ca")
    arguments.add_argument("--keep-alive", action="store_true")
    arguments.add_argument("--stored", required=True, help="a line with the number of rows for each batch stored")
    asked = arguments.parse_args()
    tls = ssl.create_default_context(cafile=asked.ca) if asked.ca else None
    connector = aiohttp.TCPConnector(limit=0, force_close=not asked.keep_alive, ssl=tls or True)
    timeout = aiohttp.ClientTimeout(total=5)
    rows = []
    pattern = re.compile(asked.pattern)
    with open(asked.stored, "w", encoding="ascii") as stored:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keep(asked.database, rows, stored))
                for number in range(1, asked.count + 1):
                    url = f"{asked.base_url}/e/{number}"
                    tasks.create_task(watch(session, number, url, asked.interval, pattern, rows))


uvloop.run(main())
