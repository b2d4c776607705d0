"""Connects vLLM's scheduler to Holdfast's decisions.

The only package that imports vLLM. Importing this file is cheap. It lets warnings through: a
library of vLLM's server sets the root logger to ERROR, which hides what an operator must read.
"""

import logging

_logger = logging.getLogger("holdfast")
if _logger.level == logging.NOTSET:
    _logger.setLevel(logging.WARNING)
