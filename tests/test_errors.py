from __future__ import annotations

import pickle

import pytest

from holdfast.errors import ConfigError, HoldfastError, TraceError


@pytest.mark.parametrize(
    "error",
    [
        HoldfastError("plain"),
        ConfigError("bad value", hint="a better one"),
        TraceError("broken", source="a.json", where="line 3", hint="fetch it again"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_survives_pickling(error: HoldfastError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))
