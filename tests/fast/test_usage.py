"""What an answer says about its cost."""

from decimal import Decimal

import pytest

from farebox.core.usage import Cost, Unknown, read_cost


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (b'{"cost":0.00015472}', "0.00015472"),
        (b'{"cost":3E-7}', "3E-7"),
        (b'{"cost":7.1e-05}', "0.000071"),
        (b'{"cost":0}', "0"),
        (b'{"cost":0.1000000000000000055511151231257827}', "0.1000000000000000055511151231257827"),
        # Off BYOK the same amount stands twice: it is one charge.
        (b'{"cost":0.01,"is_byok":false,"cost_details":{"upstream_inference_cost":0.01}}', "0.01"),
        (b'{"cost":0.01,"cost_details":{"upstream_inference_cost":0.01}}', "0.01"),
        (b'{"cost":0.01,"is_byok":null,"cost_details":null}', "0.01"),
        # On BYOK they are two: the fee, and the host's bill.
        (b'{"cost":0.0005,"is_byok":true,"cost_details":{"upstream_inference_cost":0.01}}', "0.0105"),
        (b'{"cost":0,"is_byok":true,"cost_details":{"upstream_inference_cost":0}}', "0"),
        # What else is wrong with the object is not the cost's business.
        (b'{"cost":0.01,"prompt_tokens":"many","is_byok":false,"cost_details":"none"}', "0.01"),
    ],
)
def test_the_cost_is_read_from_the_raw_number(usage: bytes, cost: str) -> None:
    assert read_cost(usage) == Cost(Decimal(cost))


@pytest.mark.parametrize(
    "usage",
    [
        b"{}",
        b'{"cost":null}',
        b'{"cost":-0.01}',
        b'{"cost":"NaN"}',
        b'{"cost":1e999}',
        b'{"cost":true}',
        b'{"cost":0.01,"is_byok":true}',
        b'{"cost":0.01,"is_byok":true,"cost_details":{"upstream_inference_cost":null}}',
        b'{"cost":0.01,"is_byok":true,"cost_details":{"upstream_inference_cost":-1}}',
        b'{"cost":600000,"is_byok":true,"cost_details":{"upstream_inference_cost":600000}}',
        b'{"cost":0.1,"is_byok":true,"cost_details":{"upstream_inference_cost":1E-70}}',
        b"[]",
        b"null",
        b'{"cost":0.0',
    ],
)
def test_what_does_not_say_a_cost_is_unknown_and_never_zero(usage: bytes) -> None:
    assert isinstance(read_cost(usage), Unknown)
