"""The plain scan that people write for mitmproxy: rules as regular expressions, secrets in some writings, whole bodies."""

import base64
import os
import re

from mitmproxy import http

RULES = [
    re.compile(rule)
    for rule in (
        rb"AKIA[0-9A-Z]{16}",
        rb"ASIA[0-9A-Z]{16}",
        rb"gh[pousr]_[A-Za-z0-9]{36,255}",
        rb"github_pat_[A-Za-z0-9_]{22,255}",
        rb"glpat-[A-Za-z0-9_\-]{20,}",
        rb"sk-ant-[A-Za-z0-9_\-]{24,}",
        rb"sk-proj-[A-Za-z0-9_\-]{24,}",
        rb"sk-[A-Za-z0-9]{32,}",
        rb"xox[abprs]-[A-Za-z0-9\-]{10,}",
        rb"AIza[0-9A-Za-z_\-]{35}",
        rb"sk_live_[0-9A-Za-z]{24,}",
        rb"npm_[A-Za-z0-9]{36}",
        rb"pypi-[A-Za-z0-9_\-]{50,}",
        rb"eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}",
        rb"-----BEGIN (?:RSA |EC |OPENSSH |DSA )?PRIVATE KEY-----",
    )
]


def writings(secret: bytes) -> set[bytes]:
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), secret[::-1]}
    found.add("".join(f"%{byte:02X}" for byte in secret).encode())
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            text = encode(b"\0" * before + secret)
            found.add(text[(0, 2, 3)[before] : len(text) - 4])
    return found


SECRETS = [
    writing
    for secret in os.environb[b"BENCH_SECRETS"].split(b"\n")
    for writing in writings(secret)
]


def server_connect(data):
    """The names of the load are known here and nowhere else."""
    data.server.address = ("127.0.0.1", data.server.address[1])


def request(flow: http.HTTPFlow) -> None:
    text = [flow.request.url.encode(), flow.request.raw_content or b""]
    text += [value for field in flow.request.headers.fields for value in field]
    for part in text:
        if any(rule.search(part) for rule in RULES) or any(secret in part for secret in SECRETS):
            flow.response = http.Response.make(403, b"blocked")
            return
