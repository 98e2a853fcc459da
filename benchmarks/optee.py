"""What OP-TEE under QEMU takes: boot, loading, and calls. It needs ``sinian doctor --setup optee`` beforehand.

python benchmarks/optee.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from results_file import Outcome, save
from timing import in_turns, median_ms, seconds

from siniantrust.graph import Part, enumerate_cuts, load_model, split
from siniantrust.odla import DeviceSpec, open_device
from siniantrust.trust import Enclave, EnclaveSpec, Provenance, launch, seal_part

_DEMO = Path(__file__).resolve().parents[1] / "src/siniantrust/demo/scenes.onnx"
_SPEC = EnclaveSpec(provider="optee", memory_bytes=10 << 20, accept=(Provenance.EMULATED,))
_CUTS = {"2 layers": "/1/1.2/Relu_output_0", "4 layers": "/3/3.2/Relu_output_0"}


def run(*, quick: bool) -> Outcome:
    """Boot once or three times, and call in turns with ONNX Runtime outside."""
    boots = 1 if quick else 3
    boot_s = [seconds(lambda: launch(_SPEC).close()) for _ in range(boots)]
    rows: list[dict[str, object]] = [
        {"what": "boot, attest and power off", "median, ms": median_ms(np.asarray(boot_s))}
    ]
    model = load_model(_DEMO)
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    with contextlib.closing(launch(_SPEC)) as enclave:
        calls: dict[str, Callable[[], object]] = {
            "evidence (a call without a part)": partial(enclave.evidence, bytes(32))
        }
        for name, tensor in _CUTS.items():
            cut = next(cut for cut in enumerate_cuts(model).cuts if cut.tensors == (tensor,))
            part = split(model, [cut])[0]
            load = partial(_load, enclave, name, part)
            rows.append({"what": f"load Part 1, {name}, built anew", "median, ms": 1e3 * seconds(load)})
            rows.append({"what": f"load Part 1, {name}, built before", "median, ms": 1e3 * seconds(load)})
            executable = open_device(DeviceSpec("outside", options={"threads": 1})).compile(part)
            calls[f"call Part 1, {name}"] = partial(enclave.run, name, {"tile": x})
            calls[f"the same in ONNX Runtime, outside, {name}"] = partial(executable.run, {"tile": x})
        found = in_turns(calls, turns=3 if quick else 20)
    rows += [{"what": name, "median, ms": median_ms(values)} for name, values in found.items()]
    return Outcome(
        title="OP-TEE under QEMU",
        method=(
            "The demo's network; its first layers as a trusted application. QEMU translates every instruction of the "
            "guest, and OP-TEE encrypts in software there: these are times of an **emulated** TrustZone on this "
            "machine, and say nothing about one in hardware."
        ),
        rows=rows,
        bars=[],
        remarks=["*Built anew* includes the compiler, unless the same part was built on this machine before."],
    )


def _load(enclave: Enclave, name: str, part: Part) -> None:
    key = secrets.token_bytes(32)
    sealed = seal_part(part, key=key, context=b"benchmark")
    enclave.load(name, sealed.skeleton, sealed.sealed, key, context=b"benchmark")


def main() -> None:
    """Parse the command line, measure, print and save."""
    parser = argparse.ArgumentParser(description="Measure OP-TEE under QEMU.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="few turns: a test, not a measurement")
    arguments = parser.parse_args()
    outcome = run(quick=arguments.quick)
    save(outcome, "optee", arguments.out, quick=arguments.quick)
    for row in outcome.rows:
        print(f"{row['median, ms']:10.1f} ms  {row['what']}")


if __name__ == "__main__":
    main()
