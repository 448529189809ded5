"""A short run of `tools/fuzz.py`: mutated input raises nothing but refusals."""

from tools.fuzz import KINDS, run


def test_mutated_input_raises_nothing_but_refusals() -> None:
    counts = run(inputs=6_000, seed=7)
    assert set(counts) == set(KINDS)
