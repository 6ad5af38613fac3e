#!/usr/bin/python3
"""Stands for `smolvm` where libkrun cannot boot: the command line, the state and the processes of the real one.

It speaks the command line of the version that it is told to be, keeps its machines in a real SQLite file as that
version does, and runs a process for each that is started. Only the guest is missing: programs run on the host, and the
launcher's helpers in the guest are answered for here. `fake.json` beside it says which version it is and what goes
wrong.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import guest

HERE = pathlib.Path(__file__).resolve().parent
WISH = json.loads((HERE / "fake.json").read_text())
HOME = pathlib.Path(os.environ["HOME"])
DATA = pathlib.Path(os.environ.get("XDG_DATA_HOME") or HOME / ".local/share") / "smolvm/server"
STEPS = ("create", "start", "stop", "delete", "exec", "ls", "data-dir")


def fail(text, code=1):
    print(f"Error: {text}", file=sys.stderr)
    sys.exit(code)


def database():
    DATA.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(DATA / "smolvm.db", timeout=15, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS vms (name TEXT PRIMARY KEY NOT NULL, data BLOB NOT NULL)")
    connection.execute("CREATE TABLE IF NOT EXISTS config (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)")
    return connection


def read(name):
    found = database().execute("SELECT data FROM vms WHERE name = ?", (name,)).fetchone()
    if not found:
        fail(f"vm not found: {name}")
    return json.loads(found[0])


def write(row):
    text = json.dumps(row).encode()
    database().execute("INSERT OR REPLACE INTO vms (name, data) VALUES (?, ?)", (row["name"], text))


def directory(name):
    return HOME / ".cache/smolvm/vms" / hashlib.sha256(name.encode()).hexdigest()[:16]


def alive(pid):
    try:
        return bool(pid) and f"{directory_of(pid)}" != ""
    except OSError:
        return False


def directory_of(pid):
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return words[3].decode() if b"_boot-vm" in words else ""


def options(arguments):
    """The options, each with all its values, and what comes after `--`."""
    found, rest = {}, []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest = list(words)
        elif word in ("-f", "-i", "-t", "--json"):
            found[word] = [True]
        elif word.startswith("--"):
            if word.lstrip("-") not in WISH["options"] and word != "--name":
                fail(f"unexpected argument '{word}' found", 2)
            found.setdefault(word, []).append(next(words))
        else:
            fail(f"unexpected argument '{word}' found", 2)
    return found, rest


def version():
    return tuple(int(number) for number in WISH["version"].split("."))


def create(given, command):
    name = given["--name"][0]
    if database().execute("SELECT 1 FROM vms WHERE name = ?", (name,)).fetchone():
        fail(f"machine '{name}' already exists or is being created")
    if not pathlib.Path(given.get("--image", given.get("--from"))[0]).is_file():
        fail("no such image")
    mounts = []
    for volume in given.get("--volume", []):
        parts = volume.split(":")
        mounts.append([parts[0], parts[1], parts[2:] == ["ro"]])
    sockets = [dict(zip(("host_path", "guest_path"), mount.split(":"))) for mount in given.get("--mount-socket", [])]
    row = {
        "name": name, "created_at": 1, "state": "created", "pid": None, "pid_start_time": None,
        "cpus": int(given["--cpus"][0]), "mem": int(given["--mem"][0]), "mounts": mounts, "ports": [],
        "published_sockets": [{"direction": "mount", **mount} for mount in sockets],
        "network": "--allow-cidr" in given, "env": [], "init": [], "allowed_cidrs": given.get("--allow-cidr"),
        "labels": dict(label.split("=", 1) for label in given.get("--label", [])), "ssh_agent": False,
        "entrypoint": [], "cmd": command,
    }
    if "--allow-host-pattern" in given:
        row["dns_filter_hosts"] = ["=" + pattern for pattern in given["--allow-host-pattern"]]
    if "--allow-host" in given:
        fail(f"--allow-host: failed to resolve '{given['--allow-host'][0]}'")
    if WISH.get("drop_list"):
        row["allowed_cidrs"] = None
    if "--from" in given and version() < (1, 8, 0):
        row.update(network=False, allowed_cidrs=None)
        row.pop("dns_filter_hosts", None)
    row.update(WISH.get("row", {}))
    write(row)
    if WISH.get("read_only"):
        os.chmod(DATA / "smolvm.db", 0o444)
    print(f"Created machine: {name}")


def interceptor(row, given):
    """As 1.32.2: told by an option, known by a token of the environment, and needed ever after."""
    address = given.get("--egress-interceptor", [None])[0]
    token = os.environ.get("SMOLVM_INTERCEPTOR_TOKEN", "")
    if address is None:
        if row.get("external_interceptor_required"):
            fail("egress interceptor: this machine requires an external interceptor on every start")
        return None
    if len(token) != 64 or not any(bytes.fromhex(token)):
        fail("egress interceptor: SMOLVM_INTERCEPTOR_TOKEN must be 64 hex digits")
    if not address.startswith("127."):
        fail("egress interceptor: the address must be loopback")
    if not WISH.get("forget_interceptor"):
        row["external_interceptor_required"] = True
    return address


def start(given):
    row = read(given["--name"][0])
    handed_to = interceptor(row, given)
    # Older ones start the image's own, and ours has none.
    if not row["cmd"] and version() < (1, 32, 2):
        fail("start background CMD: no command given and image defines no entrypoint or cmd")
    place = directory(row["name"])
    place.mkdir(parents=True, exist_ok=True)
    config = place / "boot-config.json"
    config.write_text(json.dumps(row))
    resources = {"network": row["network"], "allowed_cidrs": row["allowed_cidrs"]}
    (place / "agent.config.json").write_text(json.dumps({"version": 1, "resources": resources}))
    with open(HERE / "started.jsonl", "a") as log:
        log.write(json.dumps(row) + "\n")
    # As the real one: a process that outlives this call.
    machine = subprocess.Popen(
        [sys.executable, __file__, "_boot-vm", str(config), handed_to or "none"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True)
    row.update(state="running", pid=machine.pid)
    row.update(WISH.get("running_row", {}))
    write(row)
    print(f"Machine '{row['name']}' running (PID: {machine.pid})")


def end(row):
    if alive(row["pid"]):
        os.kill(row["pid"], signal.SIGKILL)
    row.update(state="stopped", pid=None)


def stop(given):
    row = read(given["--name"][0])
    end(row)
    write(row)


def delete(given):
    name = given["--name"][0]
    end(read(name))
    shutil.rmtree(directory(name), ignore_errors=True)
    database().execute("DELETE FROM vms WHERE name = ?", (name,))


def listing(_):
    rows = [json.loads(data) for (data,) in database().execute("SELECT data FROM vms")]
    keys = ("name", "network", "state", "pid", "labels") + (("allowed_cidrs",) if WISH["version"] >= "1.3" else ())
    print(json.dumps([{key: row.get(key) for key in keys} for row in rows]))


def join(one, other):
    while piece := one.recv(65536):
        other.sendall(piece)
    other.shutdown(socket.SHUT_WR)


def hand_over(agent, handed_to, wanted):
    """A connection of the guest's: nothing of it is passed on before the interceptor has answered."""
    host, port = wanted.rsplit(":", 1)
    host = WISH.get("dials", host)
    try:
        with agent, socket.create_connection(handed_to.rsplit(":", 1), timeout=30) as there:
            token = bytes.fromhex(os.environ["SMOLVM_INTERCEPTOR_TOKEN"])
            hello = b"SMOLICPT\x01" + token + b"\x04" + struct.pack(">H", int(port)) + socket.inet_aton(host)
            there.sendall(hello)
            if there.recv(1) != b"\0":
                # A reset.
                agent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            back = threading.Thread(target=join, args=(there, agent))
            back.start()
            join(agent, there)
            back.join()
    except OSError:
        pass


def network(place, handed_to):
    """The machine's process: what the guest's relay dials is handed over. The relay itself is on the host here."""
    path = place / "relay.json"
    while not path.exists():
        time.sleep(0.02)
    relay = json.loads(path.read_text())
    listener = socket.create_server((relay["alias"], relay["port"]))
    (place / "relay.up").write_text("")
    while True:
        agent, _ = listener.accept()
        threading.Thread(target=hand_over, args=(agent, handed_to, relay["to"]), daemon=True).start()


def listen(place, briefing):
    """The guest's relay on the alias, for a machine whose connections are handed over."""
    if "Address" not in briefing["way"] or not read_boot(place).get("external_interceptor_required"):
        return
    relay = {"alias": briefing["alias"], "port": briefing["port"], "to": briefing["way"]["Address"]}
    new = place / "relay.new"
    new.write_text(json.dumps(relay))
    new.rename(place / "relay.json")
    until = time.monotonic() + 20
    while not (place / "relay.up").exists() and time.monotonic() < until:
        time.sleep(0.02)


def read_boot(place):
    return json.loads((place / "boot-config.json").read_text())


def execute(given, command):
    row = read(given["--name"][0])
    place = directory(row["name"])
    if not alive(row["pid"]):
        fail(f"connect: machine '{row['name']}' is not running")
    late = place / "late"
    if WISH.get("late") and not late.exists():
        late.write_text("")
        fail(f"connect: machine '{row['name']}' is not running")
    if "__machine-init" in command:
        guest.init(place, WISH, lambda briefing: listen(place, briefing))
    else:
        guest.program(place, int(command[-1]), WISH)


def strike(number):
    pid = int((HERE / "launcher.pid").read_text())
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["_boot-vm"]:
        if arguments[2] != "none":
            place = pathlib.Path(arguments[1]).parent
            threading.Thread(target=network, args=(place, arguments[2]), daemon=True).start()
        while pathlib.Path(arguments[1]).exists():
            time.sleep(0.2)
        return
    if arguments == ["--version"]:
        sys.stdout.write(WISH.get("says", f"smolvm {WISH['version']}\n"))
        return
    if arguments[-1:] == ["--help"]:
        for option in WISH["options"]:
            print(f"      --{option} <VALUE>\n          Its text")
        return
    verb = arguments[1]
    assert arguments[0] == "machine" and verb in STEPS, arguments
    with open(HERE / "calls", "a+") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.seek(0)
        number = len(calls.readlines())
        calls.write(verb + "\n")
    fault = WISH["fault"] if WISH.get("fault_at") == number else None
    if fault == "error":
        fail("an injected fault")
    if fault == "signal":
        strike(signal.SIGTERM)
    if fault == "kill":
        strike(signal.SIGKILL)
    given, command = options(arguments[2:])
    if fault in ("error-after", "no-answer") and verb != "exec":
        {"create": lambda given: create(given, command), "start": start, "stop": stop, "delete": delete, "ls": listing,
         "data-dir": lambda given: print(directory(given["--name"][0]))}[verb](given)
        sys.stdout.flush()
        if fault == "error-after":
            fail("an injected fault")
        time.sleep(8)
        return
    if fault == "no-answer":
        time.sleep(8)
    if fault == "error-after":
        fail("an injected fault")
    if verb == "create":
        create(given, command)
    elif verb == "start":
        start(given)
    elif verb == "stop":
        stop(given)
    elif verb == "delete":
        delete(given)
    elif verb == "ls":
        listing(given)
    elif verb == "data-dir":
        print(directory(given["--name"][0]))
    else:
        execute(given, command)


main()
