"""The processes of a bench: started on a core, watched by their own operating system's account, stopped."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
# What is measured has a core of its own, where there are two.
MEASURED = {CORES[0]}
REST = set(CORES[1:]) or MEASURED


class Stolen:
    """What part of the measured core's time its host gave to others since this was made, percent: a figure taken
    while that was much says little."""

    def __init__(self):
        self.before = self.look()

    @staticmethod
    def look():
        lines = pathlib.Path("/proc/stat").read_text().splitlines()
        times = {name: list(map(int, ticks)) for name, *ticks in map(str.split, lines) if name[3:].isdigit()}
        cores = [times[f"cpu{core}"][:8] for core in MEASURED]
        return sum(core[7] for core in cores), sum(map(sum, cores))

    def percent(self):
        stolen, all_of_it = (now - before for now, before in zip(self.look(), self.before))
        return 100 * stolen / max(all_of_it, 1)


class Trouble(Exception):
    """Something that the bench needs is not there; the text says what and where to look."""


class Process:
    """A child on given cores, with its log. A prompt one goes before all others that want the
    core, and before those less prompt."""

    def __init__(self, name, command, folder, cores=REST, env=None, stdin=subprocess.DEVNULL, prompt=0):
        self.name = name
        self.log = folder / f"{name}.log"

        def placed():
            os.sched_setaffinity(0, cores)
            if prompt:
                try:
                    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(prompt))
                except PermissionError:
                    os.nice(-20 if os.getuid() == 0 else 0)

        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
                preexec_fn=placed,
            )

    def cpu(self):
        """User and system time so far, µs, all threads."""
        with open(f"/proc/{self.child.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return tuple(int(fields[at]) * 1_000_000 // TICK for at in (11, 12))

    def resident_bytes(self):
        with open(f"/proc/{self.child.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS"):
                    return int(line.split()[1]) * 1024
        return 0

    def must_run(self):
        if self.child.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise Trouble(f"{self.name} ended with {self.child.returncode}; {self.log}:\n{tail}")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()
        return self.child.returncode


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def server_port():
    """Below the ports that the kernel gives to clients, as servers' are: the agent looks twice at a connection to those."""
    for port in random.sample(range(10_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Trouble("no free port below 30 000")


def get(url, seconds=5):
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return answer.read().decode()


def wait_for(what, process, ready, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.must_run()
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise Trouble(f"{what}: not after {seconds} s; see {process.log}")


def answers(port, host="127.0.0.1"):
    with socket.create_connection((host, port), 1):
        return True


class Nginx:
    """1 KiB with the word that the pattern looks for, 64 KiB, the same by TLS with a P-256 certificate."""

    PATTERN = "you.*welcome"

    def __init__(self, binary, folder):
        self.plain, self.tls = server_port(), server_port()
        root = folder / "nginx"
        (root / "www").mkdir(parents=True, exist_ok=True)
        (root / "tmp").mkdir(exist_ok=True)
        self.ca = certificates(root)
        line = "hello, you are welcome here. "
        small = (line * 40)[:1024]
        (root / "www" / "64k").write_text((line * 2400)[: 64 * 1024])
        temporary = "".join(
            f"{kind}_temp_path {root}/tmp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        location = f"""
            location /e/ {{ default_type text/plain; return 200 '{small}'; }}
            location = /requests {{ stub_status; }}
            location /64k/ {{ default_type text/plain; root {root}/www; try_files /64k =404; }}"""
        (root / "nginx.conf").write_text(f"""
{"user root; " if os.getuid() == 0 else ""}worker_processes 1; daemon off; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 20000; multi_accept on; }}
http {{
    access_log off; {temporary}
    keepalive_requests 1000000000; keepalive_timeout 75s; sendfile on; tcp_nodelay on;
    open_file_cache max=10; open_file_cache_valid 1h;
    server {{ listen 127.0.0.1:{self.plain} backlog=4096; {location} }}
    server {{
        listen 127.0.0.1:{self.tls} ssl backlog=4096;
        ssl_certificate {root}/server.pem; ssl_certificate_key {root}/server.key;
        ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off; {location}
    }}
}}
""")
        self.process = Process("nginx", [binary, "-p", root, "-c", root / "nginx.conf", "-e", root / "error.log"], folder)
        wait_for("nginx", self.process, lambda: answers(self.plain) and answers(self.tls))


    def requests(self):
        """How many it has served, for peers that do not count what they do."""
        numbers = get(f"http://127.0.0.1:{self.plain}/requests").splitlines()[2].split()
        return int(numbers[2])


def certificates(root, names="DNS:localhost,IP:127.0.0.1"):
    """An authority and a server certificate."""
    ca = root / "ca.pem"
    if (root / "server.pem").exists():
        return ca

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=root, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", "-new", *curve, "-subj", "/CN=bench CA", "-days", "3650",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-new", *curve, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (root / "server.ext").write_text(
        f"basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName={names}\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "3650", "-extfile", "server.ext", "-out", "server.pem")
    return ca


class Database:
    """A TimescaleDB of the bench's own."""

    def __init__(self, script, nice=0):
        self.script, self.nice = str(script), nice

    def start(self):
        def placed():
            os.sched_setaffinity(0, REST)
            os.nice(self.nice)

        subprocess.run([self.script, "start"], check=True, preexec_fn=placed)

    def stop(self):
        subprocess.run([self.script, "stop"], check=False)

    def url(self, name):
        return subprocess.run([self.script, "url", name], check=True, capture_output=True, text=True).stdout.strip()

    def sql(self, text, name="postgres"):
        done = subprocess.run(
            [self.script, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text],
            capture_output=True, text=True, env=dict(os.environ, WATCHER_TIMESCALEDB_DATABASE=name), check=False)
        if done.returncode:
            raise Trouble(f"psql: {done.stderr.strip()}\n{text}")
        return done.stdout.strip()

    def fresh(self, name):
        self.sql(f"drop database if exists {name} with (force)")
        self.sql(f"create database {name}")
        return self.url(name)


def machine():
    """What these figures were taken on."""
    facts = {"cores": len(CORES), "namespace": os.environ.get("WATCHER_BENCH_NAMESPACE", "the machine's")}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            facts["cpu"] = line.partition(":")[2].strip()
            break
    facts["kernel"] = os.uname().release
    return facts


def audit(watcher, url, since_s):
    done = subprocess.run([watcher, "audit", "--json", "--since", f"{since_s}s"], capture_output=True, text=True,
                          env=dict(os.environ, DATABASE_URL=url), check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise Trouble(f"watcher audit: {done.stderr.strip() or done.stdout.strip()}") from None
