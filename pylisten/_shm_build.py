"""Builds pylisten._shm: the C code of mod_listen/shm, as it stands in mod_listen.so.

cffi cannot parse the header's preprocessor lines and comments, so the declarations are taken from
it by leaving those out; there is one header, and nothing to keep in step by hand.
"""

import re
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
SHM = Path("mod_listen", "shm")
SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / SHM).glob("*.c"))


def declarations(header: str) -> str:
    """The header without comments; of the preprocessor lines only numeric constants are kept."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            lines.append(line)
        elif match := re.fullmatch(r"#define (LSN_\w+) (0x[0-9a-f]+|\d+)u?\s*", line):
            lines.append(f"#define {match[1]} {match[2]}")
    return "\n".join(lines)


ffibuilder = FFI()
ffibuilder.cdef(declarations((ROOT / SHM / "shm.h").read_text(encoding="utf-8")))
ffibuilder.set_source(
    "pylisten._shm",
    '#include "shm.h"',
    sources=SOURCES,
    include_dirs=[str(SHM)],
    extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden"],
    depends=[str(path.relative_to(ROOT)) for path in (ROOT / SHM).glob("*.h")],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
