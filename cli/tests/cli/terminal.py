"""Runs a program whose stdin and stderr are a terminal and whose stdout is a pipe, and types input at the terminal.

Arguments: the input, then the program and its arguments. Prints JSON: exit code, stdout, and the terminal's output.
"""

import json
import os
import pty
import subprocess
import sys
import termios
import threading

typed, *program = sys.argv[1:]
ours, theirs = pty.openpty()
modes = termios.tcgetattr(theirs)
modes[1] &= ~termios.OPOST  # no conversion of line feeds
modes[3] &= ~termios.ECHO
termios.tcsetattr(theirs, termios.TCSANOW, modes)
child = subprocess.Popen(program, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
os.close(theirs)
os.write(ours, typed.encode())

shown = bytearray()


def watch():
    while True:
        try:
            shown.extend(os.read(ours, 4096))
        except OSError:  # no process has the terminal open any more
            return


watcher = threading.Thread(target=watch)
watcher.start()
stdout = child.stdout.read()
code = child.wait()
watcher.join()
print(json.dumps({"code": code, "stdout": stdout.decode(), "terminal": shown.decode()}))
