"""The trusted application's random numbers, compiled for this machine: their laws, and that no loop hangs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from siniantrust.trust import optee
from siniantrust.trust.optee._inputs import LAWS

COUNT = 200_000
_PROGRAM = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t state;
static int is_broken;

/* SplitMix64 (Steele, Lea and Flood 2014): the same numbers in every run of the test. */
static uint64_t random_word(void)
{
    uint64_t word = (state += UINT64_C(0x9E3779B97F4A7C15));

    word = (word ^ (word >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94D049BB133111EB);
    return is_broken ? 0 : word ^ (word >> 31);
}

#include "laws.h"

int main(int count, char **words)
{
    static float numbers[COUNT];

    (void)count;
    is_broken = atoi(words[2]);
    fill(numbers, COUNT, (enum law)atoi(words[1]), atof(words[3]), atof(words[4]));
    return fwrite(numbers, sizeof(float), COUNT, stdout) != COUNT;
}
"""

Draw = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """Return what draws numbers of a law, always the same ones."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("laws")
    (folder / "draw.c").write_text(_PROGRAM)
    flags = f"-DCOUNT={COUNT}", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"
    sources = Path(optee.__file__).with_name("ta")
    command = [compiler, *flags, f"-I{sources}", str(folder / "draw.c"), "-o", str(folder / "draw")]
    subprocess.run(command, check=True)

    def drawn(law: str, shift: float = 0.0, factor: float = 1.0, *, is_broken: bool = False) -> np.ndarray:
        words = [str(LAWS.index(law)), str(int(is_broken)), repr(shift), repr(factor)]
        done = subprocess.run([folder / "draw", *words], capture_output=True, check=True, timeout=60)
        return np.frombuffer(done.stdout, np.float32)

    return drawn


@pytest.mark.parametrize(
    ("law", "wanted"),
    [("normal", stats.norm(3, 0.5)), ("laplace", stats.laplace(3, 0.5)), ("uniform", stats.uniform(3, 0.5))],
)
def test_numbers_have_their_law(draw: Draw, law: str, wanted: object) -> None:
    """Shifted and scaled numbers are those of the law, in the middle and in the tails, and do not hang together."""
    found = draw(law, 3.0, 0.5).astype(np.float64)
    assert stats.kstest(found, wanted.cdf).statistic < 0.0035  # type: ignore[attr-defined]
    for share in (1e-4, 1e-3, 1 - 1e-3, 1 - 1e-4):
        beyond = (found <= wanted.ppf(share)).mean()  # type: ignore[attr-defined]
        assert abs(beyond - share) < 5 * np.sqrt(share * (1 - share) / COUNT), share
    centred = found - found.mean()
    for apart in (1, 2, 3):
        assert abs((centred[apart:] * centred[:-apart]).mean() / found.var()) < 5 / np.sqrt(COUNT)


def test_normal_numbers_go_on_in_the_tails(draw: Draw) -> None:
    """The fourth moment and the largest of 200,000 are those of normal numbers: nothing is cut off."""
    found = draw("normal").astype(np.float64)
    assert (found**4).mean() == pytest.approx(3, abs=5 * np.sqrt(96 / COUNT))
    assert 3.9 < np.abs(found).max() < 6.5


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.0])
def test_ones_and_zeros_have_their_share(draw: Draw, share: float) -> None:
    """Bernoulli numbers are the factor with the probability of the shift, else zero."""
    found = draw("bernoulli", share, 4.0)
    assert set(np.unique(found)) <= {0.0, 4.0}
    assert (found == 4).mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / COUNT))


@pytest.mark.parametrize("law", LAWS)
def test_a_generator_that_fails_hangs_nothing(draw: Draw, law: str) -> None:
    """Words that are all zero, as after an error, come to an end, so that the error can be told."""
    assert np.isfinite(draw(law, 0.5, 1.0, is_broken=True)).all()
