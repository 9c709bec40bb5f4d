"""The process: listens, tells its endpoint on the first line, and serves until it is ended."""

import argparse
import socket
import ssl
import sys
import threading
from contextlib import suppress
from pathlib import Path

from responder.access import Gate
from responder.server import Service, serve_forever


def main() -> None:
    """Serve until the process is ended, or its input is, if it was told to watch that."""
    options = _parser().parse_args()
    tls = _context(options.certificate, options.private_key) if options.certificate else None
    gate = Gate(options.account_key) if options.account_key else None
    listener = socket.create_server((options.host, options.port), backlog=1024)
    port = listener.getsockname()[1]
    print(f"{'https' if tls else 'http'}://{options.host}:{port}/{options.account}", flush=True)
    service = Service(
        gate, discards_bodies=options.discard_bodies, believes_checksums=options.believe_checksums
    )
    arguments = (listener, service, tls)
    if not options.end_with_input:
        serve_forever(*arguments)
    threading.Thread(target=serve_forever, args=arguments, daemon=True).start()
    sys.stdin.buffer.read()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m responder", description="A Blob service in memory.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0, the default: one that is free")
    parser.add_argument("--account", default="devstoreaccount1", help="for the printed address; any will do")
    parser.add_argument("--certificate", type=Path, help="serve TLS; needs --private-key")
    parser.add_argument("--private-key", type=Path)
    parser.add_argument("--account-key", help="check every SAS by this key, which everybody may see")
    parser.add_argument("--discard-bodies", action="store_true", help="keep only the sizes of uploads")
    parser.add_argument("--believe-checksums", action="store_true", help="do not compare them with uploads")
    parser.add_argument("--end-with-input", action="store_true", help="end when standard input does")
    return parser


def _context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private_key)
    return context


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
