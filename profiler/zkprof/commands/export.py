# SPDX-License-Identifier: MIT OR Apache-2.0
"""`zkprof export`: counters of a fleet of processes for Prometheus."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

from zkprof.arguments import is_pid
from zkprof.errors import Exit, ZkprofError
from zkprof.runner import stop_on_interrupt

if TYPE_CHECKING:
    from zkprof.arguments import Commands

DEFAULT = "127.0.0.1:9469"


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="serve counters of running processes to Prometheus",
        description="Serve page faults, memory and libzknalloc's counters of running processes "
        "at http://ADDR:PORT/metrics, until Ctrl-C. There is no password: listen only where "
        "everybody may read them.",
    )
    parser.add_argument(
        "processes",
        metavar="PID|NAME",
        nargs="+",
        help="process numbers, or names as the kernel shows them (at most 15 letters): "
        "all processes of that name, whenever they start",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDR:PORT",
        type=_address,
        default=DEFAULT,
        help=f"where to listen (default {DEFAULT}; [::1]:PORT for IPv6)",
    )
    parser.set_defaults(call=export)


def export(args: argparse.Namespace) -> int:
    """Serve metrics until interrupted."""
    from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415  (slow)

    from zkprof.openmetrics import Fleet  # noqa: PLC0415

    pids = [int(p) for p in args.processes if is_pid(p)]
    names = [p[:15] for p in args.processes if not is_pid(p)]
    host, port = args.listen
    fleet = Fleet(pids, names)
    registry = CollectorRegistry()
    registry.register(fleet)
    with stop_on_interrupt() as stop:
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ZkprofError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        shown = f"[{host}]" if ":" in host else host
        number = server.server_address[1]
        sys.stderr.write(f"zkprof: serving http://{shown}:{number}/metrics (Ctrl-C ends)\n")
        sys.stderr.flush()
        _wait(stop)
        server.shutdown()
        thread.join()
        server.server_close()
    return Exit.OK


def _wait(stop: threading.Event) -> None:
    while not stop.wait(3600):
        pass


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: give ADDR:PORT, like {DEFAULT}")
    return host, int(port)
