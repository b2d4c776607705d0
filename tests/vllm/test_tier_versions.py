"""Tiers on the installed vLLM: available, or refused with an error."""

from __future__ import annotations

import pytest

from holdfast.config import HoldfastConfig
from holdfast.errors import EngineError
from holdfast.vllm.offload.arguments import tier_arguments
from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]


def test_too_old_for_tiers_is_refused() -> None:
    config = HoldfastConfig(host_gib=0.001)
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        with pytest.raises(EngineError, match="host_gib needs vLLM"):
            tier_arguments(config, [])
    else:
        assert tier_arguments(config, [])[0] == "--kv-transfer-config"
    assert tier_arguments(HoldfastConfig(), []) == []
