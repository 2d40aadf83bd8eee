"""Read damaged .npz and .safetensors files: each is refused cleanly or loads completely.

    cd tests && python -m fuzz.fuzz_arrays [N] [--seed S]

The damage is to any bytes, to the entries of a complete zip file, to the headers of arrays, and to the JSON header of a
safetensors file, whose length is then put right.
"""
import contextlib
import io
import json
import pathlib
import struct
import tempfile
import zipfile

import numpy as np
from fuzz.fuzz_pytorch import entries_damaged, reader, unzipped, warm_up, zipped
from fuzz.mutations import damaged, deepened, edited, main

from minires import load_weights, models, save_weights


@contextlib.contextmanager
def cases():
    """Return {name: case} for mutations.run."""
    model = models.cifar(8, width=1)
    right = {name: np.full(t.shape, i + 1, np.float32) for i, (name, t) in enumerate(model.state().items())}
    model.load_state(right)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "damaged"
        save_weights(model, path.with_suffix(".npz"))
        save_weights(model, path.with_suffix(".safetensors"))
        npz, tensors = path.with_suffix(".npz").read_bytes(), path.with_suffix(".safetensors").read_bytes()
        deflated = io.BytesIO()
        np.savez_compressed(deflated, **right)
        entries = unzipped(npz)
        warm_up(model, entries)
        for name in ".npz", ".safetensors":
            load_weights(model, path.with_suffix(name))
        length = struct.unpack("<Q", tensors[:8])[0]
        header, numbers = json.loads(tensors[8:8 + length]), tensors[8 + length:]
        reads = reader(model, path, right)

        def npy_header(rng):
            made, i = list(entries), rng.randrange(len(entries))
            name, content = made[i]
            made[i] = name, damaged(content[:128], rng) + content[128:]
            return reads(zipped(made, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))

        def json_header(rng):
            text = deepened(json.dumps(edited(header, rng)), rng).encode()
            if rng.random() < 0.3:
                text = damaged(text, rng)
            return reads(struct.pack("<Q", len(text)) + text + numbers)

        def any_npz(rng):
            content = rng.choice([npz, deflated.getvalue()])
            return reads(damaged(content, rng, deflated.getvalue()), checksums=True)  # no donor without a checksum

        yield {
            "npz, any bytes": any_npz,
            "npz, its entries": lambda rng: reads(entries_damaged(entries, rng)),
            "npz, headers": npy_header,
            "safetensors, any bytes": lambda rng: reads(damaged(tensors, rng, npz)),
            "safetensors, header": json_header,
        }


if __name__ == "__main__":
    with cases() as found:
        main(__doc__.splitlines()[0], found)
