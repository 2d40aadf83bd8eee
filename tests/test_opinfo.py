"""minires agrees with PyTorch on the inputs of PyTorch's own tests: see opinfo.py, which prints the counts."""

import pytest
from helpers import torch

if torch is None:
    pytest.skip("compared with PyTorch, which is not installed", allow_module_level=True)
pytest.importorskip("expecttest", reason="PyTorch's sample inputs need expecttest, which is not installed")
import opinfo

pytestmark = pytest.mark.slow  # test_ops.py compares every operation with PyTorch in a plain run


def wrong(most=None, dtypes=tuple(opinfo.DTYPES)):
    """Return (what is wrong, how many inputs agree) for all samples, or for at most `most` of an operation."""
    found, agree = [], 0
    for op in opinfo.operations():
        for dtype in dtypes:
            for sample, result in opinfo.outcomes(op, dtype, most):
                agree += result == "agrees"
                if result.startswith("wrong"):
                    found.append((op.name, str(dtype), result, str(sample)[:500]))
    return found, agree


def test_no_operation_is_missing_in_pytorch():
    assert {op.name for op in opinfo.operations()} == set(opinfo.OURS)


def test_the_first_samples_of_every_operation():
    found, agree = wrong(2, [torch.float64])
    assert found == [] and agree > 80


def test_all_samples_of_every_operation():
    found, agree = wrong()
    assert found == [] and agree > 2500


def test_a_wrong_operation_is_seen(monkeypatch):
    monkeypatch.setitem(opinfo.OURS, "exp", lambda x: x.exp() + 0 * x)
    op = next(op for op in opinfo.operations() if op.name == "exp")
    assert next(result for _, result in opinfo.outcomes(op, torch.float64, 2)) == "agrees"
    monkeypatch.setitem(opinfo.OURS, "exp", lambda x: x.exp().detach() * x / x.data)
    assert "wrong: a gradient" in [result for _, result in opinfo.outcomes(op, torch.float64)]
    monkeypatch.setitem(opinfo.OURS, "exp", lambda x: x.exp() * 1.001)
    assert "wrong: the result" in [result for _, result in opinfo.outcomes(op, torch.float64)]
    monkeypatch.setitem(opinfo.OURS, "exp", lambda x: x.no_such_method())
    with pytest.raises(AttributeError):
        list(opinfo.outcomes(op, torch.float64))
