#!/usr/bin/python3
"""Stands for Apple's `container` where there is no Mac: its command line and what it prints, after the source of 1.2.2.

It loads OCI archives as the real one does, by their digests, keeps containers as JSON, and runs a process for each that
was started, which ends when its input does. Only the machine is missing: programs run on the host, and the launcher's
helpers in the guest are answered for by `guest`. Where it is told of a `runc.py` that runs, containers are real ones, with
loopback alone and the capabilities that were asked for, and so is everything in them. `fake.json` beside it says which version it is and what goes wrong.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time

sys.dont_write_bytecode = True
import guest

HERE = pathlib.Path(__file__).resolve().parent
WISH = json.loads((HERE / "fake.json").read_text())
STATE = pathlib.Path(os.environ["HOME"]) / ".fake-container"
INDEX = "application/vnd.oci.image.index.v1+json"
NAME = "com.apple.containerization.image.name"
FLAGS = ("--no-dns", "--init", "--ssh", "--read-only", "--interactive", "--tty", "--attach", "--force", "--all")
ONE = ("--name", "--platform", "--cpus", "--memory", "--network", "--uid", "--gid", "--workdir", "--format", "--input")
MANY = ("--label", "--cap-drop", "--cap-add", "--volume")


def fail(text, code=1):
    print(f"Error: {text}", file=sys.stderr)
    sys.exit(code)


def parse(arguments):
    """Options up to the first word that is none; everything behind that is passed through."""
    given, rest = {}, list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word in FLAGS:
            given[word] = True
        elif word in ONE:
            given[word] = rest.pop(0)
        elif word in MANY:
            given.setdefault(word, []).append(rest.pop(0))
        else:
            fail(f"Unknown option '{word}'", 64)
    return given, rest


def merge(into, wish):
    for key, value in wish.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif value == "nothing":
            into.pop(key, None)
        else:
            into[key] = value


def path(name):
    return STATE / "containers" / name / "container.json"


def read(name):
    try:
        return json.loads(path(name).read_text())
    except FileNotFoundError:
        fail(f'notFound: "container not found: {name}"')


def write(container):
    place = path(container["id"])
    new = place.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(container))
    new.rename(place)


def images():
    try:
        return json.loads((STATE / "images.json").read_text())
    except FileNotFoundError:
        return {}


def keep(all_images):
    STATE.mkdir(exist_ok=True)
    (STATE / "images.json").write_text(json.dumps(all_images))


def runc(*words):
    """Has root do it, with our own streams."""
    with socket.socket(socket.AF_UNIX) as call:
        call.connect(WISH["runc"])
        socket.send_fds(call, [json.dumps(words).encode()], [0, 1, 2])
        return call.recv(1)[0]


def bundle(container):
    """As Apple's runtime describes one to its guest, without `--init`: there is no program for it here."""
    configuration = container["configuration"]
    place = path(container["id"]).parent / "bundle"
    place.mkdir(parents=True)
    for layer in images()[configuration["image"]["reference"]]["layers"]:
        assert runc("unpack", layer, str(place / "rootfs")) == 0
    process = configuration["initProcess"]
    capabilities = configuration["capAdd"]
    assert configuration["capDrop"] == ["ALL"]
    quiet = ["nosuid", "noexec", "nodev"]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": [*quiet, "mode=1777"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]},
    ]
    for mount in configuration["mounts"]:
        options = ["bind", *mount["options"]]
        mounts.append({**mount, "type": "bind", "options": options})
    described = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": [process["executable"], *process["arguments"]],
            "env": process["environment"], "cwd": process["workingDirectory"],
            "capabilities": {key: capabilities for key in ("bounding", "effective", "permitted")},
        },
        "root": {"path": "rootfs"}, "hostname": container["id"], "mounts": mounts,
        "linux": {
            # Apple's machine has no interface; here it is the container that has none.
            "namespaces": [{"type": kind} for kind in ("ipc", "mount", "network", "pid", "uts")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }
    assert configuration["networks"] == []
    (place / "config.json").write_text(json.dumps(described))


def load(given, _):
    """By digests, from the index down to each layer."""
    files = {}
    with tarfile.open(given["--input"]) as archive:
        for entry in archive:
            files[entry.name] = archive.extractfile(entry).read()

    def blob(descriptor):
        algorithm, digest = descriptor["digest"].split(":")
        content = files[f"blobs/{algorithm}/{digest}"]
        assert hashlib.sha256(content).hexdigest() == digest and len(content) == descriptor["size"], descriptor
        return content

    assert json.loads(files["oci-layout"])["imageLayoutVersion"] == "1.0.0"
    known = images()
    for descriptor in json.loads(files["index.json"])["manifests"]:
        assert descriptor["mediaType"] == INDEX, descriptor
        for of_the_manifest in json.loads(blob(descriptor))["manifests"]:
            manifest = json.loads(blob(of_the_manifest))
            config = json.loads(blob(manifest["config"]))
            layers = ["sha256:" + hashlib.sha256(blob(layer)).hexdigest() for layer in manifest["layers"]]
            assert config["rootfs"]["diff_ids"] == layers, config
        name = descriptor["annotations"][NAME]
        kept = []
        for number, layer in enumerate(manifest["layers"]):
            STATE.mkdir(exist_ok=True)
            kept.append(STATE / f"layer-{layer['digest'][7:]}")
            kept[number].write_bytes(blob(layer))
        known[name] = {"descriptor": descriptor, "config": config, "layers": [str(layer) for layer in kept]}
        print(name)
    keep(known)


def delete_image(given, rest):
    known = images()
    if known.pop(rest[0], None) is None and not given.get("--force"):
        fail("image not found")
    keep(known)


def create(given, rest):
    name, reference, command = given["--name"], rest[0], rest[1:]
    if path(name).exists():
        fail(f"exists: container already exists: {name}")
    if reference not in images():
        fail(f"the image {reference} would be pulled")
    image = images()[reference]
    of_the_image = image["config"].get("config", {})
    command = of_the_image.get("Entrypoint", []) + (command or of_the_image.get("Cmd", []))
    mounts = []
    for volume in given.get("--volume", []):
        source, destination, *options = volume.split(":")
        if not pathlib.Path(source).exists():
            fail(f"path '{source}' does not exist")
        options = options[0].split(",") if options else []
        mounts.append({"type": {"virtiofs": {}}, "source": source, "destination": destination, "options": options})
    network = given.get("--network", "default")
    attachment = {"network": network, "options": {"hostname": name, "mtu": 1280}}
    system, architecture = given["--platform"].split("/")
    configuration = {
        "id": name,
        "image": {"reference": reference, "descriptor": image["descriptor"]},
        "mounts": mounts,
        "publishedPorts": [], "publishedSockets": [],
        "labels": dict(label.split("=") for label in given.get("--label", [])),
        "sysctls": {},
        "networks": [] if network == "none" else [attachment],
        "rosetta": False,
        "initProcess": {
            "executable": command[0], "arguments": command[1:], "environment": of_the_image.get("Env", []),
            "workingDirectory": given.get("--workdir", "/"), "terminal": False,
            "user": {"id": {"uid": int(given["--uid"]), "gid": int(given["--gid"])}},
            "supplementalGroups": [], "rlimits": [],
        },
        "platform": {"os": system, "architecture": architecture},
        "resources": {
            "cpus": int(given["--cpus"]), "memoryInBytes": int(given["--memory"].rstrip("M")) << 20, "cpuOverhead": 1,
        },
        "runtimeHandler": "container-runtime-linux", "virtualization": False, "ssh": bool(given.get("--ssh")),
        "readOnly": bool(given.get("--read-only")), "useInit": bool(given.get("--init")),
        "capAdd": given.get("--cap-add", []), "capDrop": given.get("--cap-drop", []),
        "creationDate": "2026-11-26T03:00:00Z",
    }
    if not given.get("--no-dns"):
        configuration["dns"] = {"nameservers": [], "searchDomains": [], "options": []}
    merge(configuration, WISH.get("configuration", {}))
    path(name).parent.mkdir(parents=True)
    container = {"id": name, "configuration": configuration, "status": {"state": "stopped", "networks": []}}
    if "runc" in WISH:
        bundle(container)
    write(container)
    print(name)


def inspect(_, rest):
    container = read(rest[0])
    if WISH.get("inspect") is not None:
        print(WISH["inspect"])
        return
    if container["status"]["state"] == "running":
        merge(container, WISH.get("running", {}))
    container.pop("pid", None)
    print(json.dumps([container], indent=2, sort_keys=True))


def listing(*_):
    names = sorted(place.parent.name for place in (STATE / "containers").glob("*/container.json"))
    print(json.dumps([read(name) for name in names]))


def start(given, rest):
    """Stays as the client of the first process, and hands its input on."""
    container = read(rest[0])
    if container["status"]["state"] == "running":
        fail("attach is currently unsupported on already running containers")
    with open(HERE / "started.jsonl", "a") as log:
        log.write(json.dumps(container) + "\n")
    if "runc" in WISH:
        container["status"].update(state="running", startedDate="2026-11-26T03:00:01Z")
        write(container)
        sys.exit(runc("run", rest[0], str(path(rest[0]).parent / "bundle")))
    machine = subprocess.Popen(
        [sys.executable, __file__, "_machine", rest[0]], stdin=subprocess.PIPE, start_new_session=True)

    def hand_on():
        while piece := os.read(0, 65536):
            machine.stdin.write(piece)
            machine.stdin.flush()
        machine.stdin.close()

    threading.Thread(target=hand_on, daemon=True).start()
    sys.exit(machine.wait())


def machine(name):
    """The machine: runs until its first process ends."""
    container = read(name)
    container.update(pid=os.getpid())
    write(container)
    place = path(name).parent

    # Listed as running a moment after it answers.
    if os.fork() == 0:
        time.sleep(WISH.get("late", 0))
        if os.getppid() != 1 and path(name).exists():
            container["status"].update(state="running", startedDate="2026-11-26T03:00:01Z")
            write(container)
        os._exit(0)
    try:
        guest.init(place, WISH)
    finally:
        for pid in place.glob("pid-*"):
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass
        if place.exists() and path(name).exists():
            container["status"] = {"state": "stopped", "networks": []}
            write(container)


def execute(given, rest):
    container = read(rest[0])
    if container["status"]["state"] != "running":
        fail(f'invalidState: "container {rest[0]} is not running"')
    if "runc" in WISH:
        sys.exit(runc("exec", *rest))
    guest.program(path(rest[0]).parent, int(rest[-1]), WISH)


def delete(given, rest):
    container = read(rest[0])
    if container["status"]["state"] == "running" and not given.get("--force"):
        fail("invalidState: container is running")
    try:
        if container.get("pid"):
            os.killpg(container["pid"], signal.SIGKILL)
    except ProcessLookupError:
        pass
    if "runc" in WISH:
        runc("delete", rest[0], str(path(rest[0]).parent / "bundle"))
    shutil.rmtree(path(rest[0]).parent)
    print(rest[0])


def status(*_):
    running = WISH.get("services", "running")
    version = WISH.get("service", f"container-apiserver version {WISH['version']} (build: release, commit: 0190097)")
    print(json.dumps({"status": running, "apiServerVersion": version, "appRoot": "/", "installRoot": "/usr/local/"}))
    sys.exit(0 if running == "running" else 1)


VERBS = {
    "system status": status, "image load": load, "image delete": delete_image, "create": create, "inspect": inspect,
    "list": listing, "start": start, "exec": execute, "delete": delete,
}


def strike(number):
    pid = int((HERE / "launcher.pid").read_text())
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def main():
    arguments = sys.argv[1:]
    if arguments[0] == "_machine":
        machine(arguments[1])
        return
    if arguments == ["--version"]:
        sys.stdout.write(WISH.get("says", f"container CLI version {WISH['version']} (build: release, commit: 0190097)\n"))
        return
    words = 2 if arguments[0] in ("system", "image") else 1
    verb = " ".join(arguments[:words])
    assert verb in VERBS, arguments
    number = -1
    # Questions of a preflight are no part of a start.
    if verb != "system status":
        with open(HERE / "calls.jsonl", "a+") as calls:
            fcntl.flock(calls, fcntl.LOCK_EX)
            calls.seek(0)
            number = len(calls.readlines())
            calls.write(json.dumps({"verb": verb, "arguments": arguments, "environment": dict(os.environ)}) + "\n")
    fault = WISH["fault"] if WISH.get("fault_at") == number else None
    if WISH.get("hangs") == verb:
        time.sleep(30)
    if fault == "error":
        fail("internalError: an injected fault")
    if fault == "signal":
        strike(signal.SIGTERM)
    if fault == "kill":
        strike(signal.SIGKILL)
    given, rest = parse(arguments[words:])
    if fault in ("error-after", "no-answer") and verb not in ("start", "exec"):
        VERBS[verb](given, rest)
        sys.stdout.flush()
        if fault == "error-after":
            fail("internalError: an injected fault")
        time.sleep(8)
        return
    if fault == "no-answer":
        time.sleep(8)
    if fault == "error-after":
        fail("internalError: an injected fault")
    VERBS[verb](given, rest)


main()
