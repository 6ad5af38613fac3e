"""The guest of a stand-in's machine, which is the host: the launcher's helpers in there are answered for here, and programs
run as they are. `wish` is what goes wrong; `place` is the machine's directory.
"""

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time


def frame(stream):
    head = stream.read(4)
    if len(head) < 4:
        return None
    return json.loads(stream.read(struct.unpack(">I", head)[0]))


def say(message):
    print(json.dumps(message), flush=True)


def dies_with_us():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def init(place, wish, on_briefing=lambda briefing: None):
    """The launcher's `__machine-init`."""
    briefing = frame(sys.stdin.buffer)
    if briefing is None:
        sys.exit(1)
    on_briefing(briefing)
    if wish.get("init_error"):
        say({"ready": False, "error": wish["init_error"]})
        sys.exit(1)
    say({"ready": True, "error": None})
    if os.fork() == 0:
        told = set()
        while place.exists() and os.getppid() != 1:
            for path in place.glob("ended-*.json"):
                if path not in told:
                    told.add(path)
                    say(json.loads(path.read_text()))
            time.sleep(0.02)
        os._exit(0)
    while (order := frame(sys.stdin.buffer)) is not None:
        if "Program" in order:
            number = order["Program"]["number"]
            new = place / f"program-{number}.new"
            new.write_text(json.dumps(order["Program"]["program"]))
            new.rename(place / f"program-{number}.json")
        else:
            pid = (place / f"pid-{order['Signal']['number']}").read_text()
            os.killpg(int(pid), order["Signal"]["signal"])


def probe(wish):
    """The launcher's probe: what it reports is what it was told to, and what it reaches it reaches."""
    task = json.load(sys.stdin)
    if wish.get("leak"):
        address = next(canary for canary in task["canaries"] if canary.startswith("127.0.0.1:"))
        socket.create_connection(address.rsplit(":", 1), timeout=5).close()
    failed = wish.get("failed_check")
    print(json.dumps([{"name": name, "held": name != failed, "detail": "as told"} for name in wish["checks"]]))


def program(place, number, wish):
    """The launcher's `__machine-run`."""
    order = place / f"program-{number}.json"
    until = time.monotonic() + 20
    while not order.exists():
        if time.monotonic() > until:
            sys.exit(127)
        time.sleep(0.02)
    order = json.loads(order.read_text())
    if order["argv"][-1] == "__container-probe":
        probe(wish)
        code, by_signal = 0, None
    else:
        # A group of its own takes the signals, and the foreground where there is a terminal.
        group = None if os.isatty(0) else 0
        child = subprocess.Popen(
            order["argv"], env=dict(order["env"]), cwd=order["directory"], preexec_fn=dies_with_us,
            process_group=group)
        (place / f"pid-{number}").write_text(str(child.pid))
        status = child.wait()
        code, by_signal = (status, None) if status >= 0 else (None, -status)
    new = place / f"ended-{number}.new"
    new.write_text(json.dumps({"ended": number, "code": code, "signal": by_signal}))
    sys.stdout.flush()
    if place.exists():
        new.rename(place / f"ended-{number}.json")
    time.sleep(0.05)
    sys.exit(code if code is not None else 128 + by_signal)
