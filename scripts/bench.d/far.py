"""Names and connections that take their time, in a network namespace of the bench's own.

A name server answers on port 53 of loopback, and a `resolv.conf` that says so lies over the machine's in a mount
namespace. A SYN to an address of its own is routed to a pair of links, at whose other end the truth server finds it on a
packet socket, with the kernel's stamp, and puts it back later: all else of the connection goes over loopback as ever.
(netem is not in every kernel.)
"""

import os
import shutil
import socket
import subprocess

from world import Trouble

NAME_SERVER = "127.0.0.1"
FAR, LINK, OTHER_END, MARK = "10.77.0.1", "syn0", "syn1", 77
# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h: what Python has no names for.
ETH_P_IP, SOL_PACKET, PACKET_VNET_HDR, SO_TIMESTAMPNS = 0x0800, 263, 15, 35
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
        self.work, self.syns, self.names = work, None, False

    def missing(self, parts):
        """Why a kind with these phases cannot be had here; nothing where it can."""
        wanted = [part for part in ("resolve", "connect") if part in parts]
        if wanted and not self.own:
            return "it needs network and mount namespaces of its own, which need root"
        try:
            if "resolve" in wanted and not self.names:
                self.serve_names()
            if "connect" in wanted and self.syns is None:
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
        run("ip", "link", "add", LINK, "type", "veth", "peer", "name", OTHER_END)
        for setting in ("all/rp_filter=0", f"{LINK}/rp_filter=0", f"{LINK}/accept_local=1", f"{LINK}/forwarding=0"):
            name, _, value = setting.partition("=")
            with open(f"/proc/sys/net/ipv4/conf/{name}", "w", encoding="ascii") as file:
                file.write(value)
        # Without ARP a frame goes to the link's own address: nobody's at the other end, ours when it is put back.
        run("ip", "link", "set", LINK, "up", "arp", "off")
        run("ip", "link", "set", OTHER_END, "up", "arp", "off")
        run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
        # The table of local addresses comes after ours: else no mark would be asked for.
        run("ip", "rule", "add", "pref", "10", "fwmark", MARK, "iif", "lo", "lookup", MARK)
        run("ip", "rule", "add", "pref", "100", "lookup", "local")
        run("ip", "rule", "del", "pref", "0")
        run("ip", "route", "add", "default", "dev", LINK, "table", MARK)
        run("nft", "-f", "-", text=RULES)
        syns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        syns.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        # What it says of a checksum that is still to be made goes back with the frame.
        syns.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        syns.bind((OTHER_END, ETH_P_IP))
        self.syns = syns

    def address(self, parts):
        """Where the server listens."""
        return FAR if "connect" in parts else "127.0.0.1"

    def flags(self, parts):
        """What the server has to be told."""
        return ["--dns", f"{NAME_SERVER}:53", "--answer", self.address(parts)] if "resolve" in parts else []

    def close(self):
        if self.syns is not None:
            self.syns.close()


def run(*command, text=None):
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
