"""Tells everybody who connects from which address they come: `python3 caller.py [PORT]`. Says when it listens."""

import socketserver
import sys


class Teller(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(f"you come from {self.client_address[0]}\n".encode())


socketserver.TCPServer.allow_reuse_address = True
with socketserver.TCPServer(("", int(sys.argv[1]) if len(sys.argv) > 1 else 7), Teller) as server:
    print("listening", flush=True)
    server.serve_forever()
