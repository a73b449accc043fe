"""Replies to every TCP connection with the client's address: `python3 caller.py [PORT]`."""

import socketserver
import sys


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(f"your address is {self.client_address[0]}\n".encode())


socketserver.TCPServer.allow_reuse_address = True
with socketserver.TCPServer(("", int(sys.argv[1]) if len(sys.argv) > 1 else 7), Handler) as server:
    print("listening", flush=True)
    server.serve_forever()
