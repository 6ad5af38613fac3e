"""Runs containers for the program in `container`'s place with runc, which takes root: so it is a process of its own, and is
handed the standard streams of each call. Usage: runc.py SOCKET UID.

What it knows: `unpack LAYER ROOTFS`, `run NAME BUNDLE`, `exec NAME COMMAND …`, `delete NAME BUNDLE`.
"""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading

path, uid = sys.argv[1], int(sys.argv[2])
state = path + ".state"


def lines(words):
    verb, *rest = words
    if verb == "unpack":
        return ["tar", "-xf", rest[0], "-C", rest[1]]
    if verb == "run":
        return ["runc", "--root", state, "run", "--bundle", rest[1], rest[0]]
    if verb == "exec":
        return ["runc", "--root", state, "exec", "--cwd", "/", *rest]
    if verb == "delete":
        return ["runc", "--root", state, "delete", "--force", rest[0]]
    raise ValueError(verb)


def serve(call):
    with call:
        message, streams, _, _ = socket.recv_fds(call, 1 << 16, 3)
        words = json.loads(message)
        if words[0] == "unpack":
            # Root's, as an image's top is.
            os.makedirs(words[2], 0o755, exist_ok=True)
        ended = subprocess.run(lines(words), stdin=streams[0], stdout=streams[1], stderr=streams[2], cwd="/")
        for stream in streams:
            os.close(stream)
        if words[0] == "delete":
            shutil.rmtree(words[2], ignore_errors=True)
        try:
            call.sendall(bytes([ended.returncode & 0xFF]))
        except BrokenPipeError:
            pass


listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chown(path, uid, uid)
os.chmod(path, 0o600)
listener.listen()
print("ready", flush=True)
while True:
    call, _ = listener.accept()
    _, peer, _ = struct.unpack("3i", call.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if peer == uid:
        threading.Thread(target=serve, args=(call,), daemon=True).start()
    else:
        call.close()
