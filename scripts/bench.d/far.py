"""Names and connections that take their time, in a network namespace of the bench's own.

A name server answers on port 53 of loopback, and a `resolv.conf` that says so lies over the machine's in a mount
namespace. A SYN to an address of its own is routed to a TUN device, from where the truth server puts it back later: all
else of the connection goes over loopback as ever. (netem is not in every kernel.)
"""

import fcntl
import os
import shutil
import struct
import subprocess

from world import Trouble

NAME_SERVER = "127.0.0.1"
FAR, LINK, MARK = "10.77.0.1", "syn0", 77
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
RULES = f"""
table ip truth {{
    chain out {{
        type route hook output priority mangle; policy accept;
        ip daddr {FAR} tcp flags & (syn | ack) == syn meta mark set {MARK};
    }}
}}
"""


class Far:
    """What the phases before the first byte need."""

    def __init__(self, work):
        self.own = os.environ.get("WATCHER_BENCH_NAMESPACE") == "own"
        self.work, self.tun, self.names, self.why = work, None, False, ""

    def missing(self, parts):
        """Why a kind with these phases cannot be had here; nothing where it can."""
        wanted = [part for part in ("resolve", "connect") if part in parts]
        if wanted and not self.own:
            return "it needs network and mount namespaces of its own, which need root"
        try:
            if "resolve" in wanted and not self.names:
                self.serve_names()
            if "connect" in wanted and self.tun is None:
                self.route_syns()
        except (OSError, Trouble) as error:
            return str(error)
        return ""

    def serve_names(self):
        file = self.work / "resolv.conf"
        file.write_text(f"nameserver {NAME_SERVER}\n")
        run("mount", "--bind", file, os.path.realpath("/etc/resolv.conf"))
        self.names = True

    def route_syns(self):
        if not shutil.which("nft"):
            raise Trouble("nft is missing: apt-get install nftables")
        tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", LINK.encode(), IFF_TUN | IFF_NO_PI))
        for setting in ("all/rp_filter=0", f"{LINK}/rp_filter=0", f"{LINK}/accept_local=1", f"{LINK}/forwarding=0"):
            name, _, value = setting.partition("=")
            with open(f"/proc/sys/net/ipv4/conf/{name}", "w", encoding="ascii") as file:
                file.write(value)
        run("ip", "link", "set", LINK, "up", "mtu", "65000")
        run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
        # The table of local addresses comes after ours: else no mark would be asked for.
        run("ip", "rule", "add", "pref", "10", "fwmark", MARK, "iif", "lo", "lookup", MARK)
        run("ip", "rule", "add", "pref", "100", "lookup", "local")
        run("ip", "rule", "del", "pref", "0")
        run("ip", "route", "add", "default", "dev", LINK, "table", MARK)
        run("nft", "-f", "-", text=RULES)
        self.tun = tun

    def address(self, parts):
        """Where the server listens."""
        return FAR if "connect" in parts else "127.0.0.1"

    def flags(self, parts):
        """What the server has to be told."""
        return ["--dns", f"{NAME_SERVER}:53", "--answer", self.address(parts)] if "resolve" in parts else []

    def close(self):
        if self.tun is not None:
            os.close(self.tun)


def run(*command, text=None):
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
