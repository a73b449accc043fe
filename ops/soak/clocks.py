"""Wall clocks that differ by node, although all nodes of a lab share a kernel: see `clock.c`."""
import os
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
ENVIRONMENT = "OTHERIX_TEST_CLOCKS"


def install(folder):
    """Makes the programs that this one starts from now on read the clock of their network namespace.

    `folder` is for the compiled library and the clocks, and must exist for as long as these programs run."""
    library = Path(folder) / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"], check=True)
    os.environ.update({ENVIRONMENT: str(folder), "LD_PRELOAD": str(library)})


def shifted(seconds):
    """The shell command that shifts the clock of the namespace that it runs in. The file is never empty meanwhile."""
    return f'echo "{seconds:<12}" 1<>"${ENVIRONMENT}/$(stat --dereference --format %i /proc/self/ns/net)"'


def folder():
    return tempfile.TemporaryDirectory(prefix="otherix-clocks-")
