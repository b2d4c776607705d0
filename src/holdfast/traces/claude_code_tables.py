"""Percentiles of real Claude Code sessions, for generating ones like them.

Source: 298 sessions (17,724 turns) of WEKA's public traces in callanjfox/kv-cache-tester
(Apache-2.0), global hash ids, one request a turn, the gap defect corrected. A turn breaks with its
prefix when it drops more than 16 of the last prompt's 64-token blocks; a prompt of under 60 % of
the last one's size is then taken for a compaction.
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = [
    "BREAK_WEIGHTS",
    "COMPACT_KEPT_RATIO",
    "COMPACT_SIZE_RATIO",
    "EARLY_GROWTH_AFTER_TOOL_TOKENS",
    "ENDED_BY_WEIGHTS",
    "GROWTH_AFTER_USER_TOKENS",
    "HEAD_TOKENS",
    "HEAD_WEIGHTS",
    "HUMAN_GAP_S",
    "LAST_ENDED_BY_WEIGHTS",
    "LATE_GROWTH_AFTER_TOOL_TOKENS",
    "LONG_BREAK_RATIO",
    "LONG_FIRST_PROMPT_TOKENS",
    "LONG_USER_RATIO",
    "NUM_TURNS",
    "OUTPUT_AFTER_TOOL_TOKENS",
    "OUTPUT_AFTER_USER_TOKENS",
    "PEAK_PROMPT_TOKENS",
    "PERCENTS",
    "PROMPT_TOKENS",
    "RETURN_DISTANCE_TURNS",
    "SHORT_BREAK_RATIO",
    "SHORT_FIRST_PROMPT_TOKENS",
    "SHORT_USER_RATIO",
    "SIDE_KEPT_RATIO",
    "SIDE_SIZE_RATIO",
    "TOOL_GAP_S",
    "TOOL_RUN_TURNS",
]

# fmt: off
PERCENTS = (
    0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 97.5, 99, 99.9,
)
"""The percentile that each entry of the tables stands for."""

NUM_TURNS = (
    3, 5, 6, 8, 11, 14, 21, 26, 33, 40, 49, 57, 64, 69, 75, 84, 96, 106, 136, 163, 187, 216,
    317,
)
"""Turns of a session."""

SHORT_FIRST_PROMPT_TOKENS = (
    6697, 12127, 12276, 12316, 12374, 12910, 15422, 17552, 18587, 19210, 19556, 20150,
    21626, 34222, 56498, 70486, 98688, 104988, 132644, 164223, 225930, 260184, 265790,
)
"""Prompt tokens of a session's first turn, sessions of under 30 turns."""

LONG_FIRST_PROMPT_TOKENS = (
    9031, 12230, 12639, 15656, 16842, 17667, 18231, 18441, 18746, 19024, 19496, 19716,
    20226, 20744, 21612, 24653, 40266, 62148, 74230, 101488, 115893, 138373, 176369,
)
"""The same, longer sessions."""

PROMPT_TOKENS = (
    3318, 22902, 34934, 43394, 50325, 57289, 63725, 69828, 75862, 82508, 88814, 94557,
    100319, 106701, 113565, 119977, 126159, 133183, 141574, 152145, 168027, 228198, 352367,
)
"""Prompt tokens of any turn; follows from the others, kept to check against."""

PEAK_PROMPT_TOKENS = (
    9250, 12957, 49040, 63444, 73700, 86481, 101119, 113618, 124231, 133167, 138101, 143882,
    146606, 149452, 151308, 155234, 158110, 162309, 168477, 192009, 248937, 295757, 492017,
)
"""Largest prompt of a session; the upper half serves as the context's limit."""

HEAD_TOKENS = (
    3578, 8988, 9195, 9784, 11625, 13166, 14730, 14805, 14825, 14950, 15102, 15174, 15210,
    15342, 15405, 15445, 15504, 15671, 15769, 16722, 16799, 16799, 16994,
)
"""System prompt and tool schemas, shared with other sessions."""

EARLY_GROWTH_AFTER_TOOL_TOKENS = (
    94, 163, 216, 279, 363, 437, 548, 654, 801, 1031, 1382, 1831, 2505, 3302, 4288, 5731,
    7270, 10196, 14178, 29004, 37927, 48778, 103362,
)
"""Tokens that a tool result adds to a prompt, first 5 turns."""

LATE_GROWTH_AFTER_TOOL_TOKENS = (
    0, 156, 195, 238, 286, 330, 381, 439, 502, 577, 672, 791, 919, 1096, 1345, 1668, 2118,
    2851, 4193, 6383, 8869, 14351, 47887,
)
"""The same, later turns."""

GROWTH_AFTER_USER_TOKENS = (
    0, 67, 163, 188, 240, 316, 418, 492, 566, 638, 741, 916, 1194, 1558, 1851, 2262, 2987,
    4335, 5863, 9006, 12172, 22902, 57195,
)
"""Tokens that the user adds to a prompt."""

OUTPUT_AFTER_TOOL_TOKENS = (
    0, 92, 109, 120, 130, 140, 152, 165, 179, 194, 211, 233, 258, 291, 335, 389, 466, 568,
    744, 1140, 1666, 2639, 7605,
)
"""Answer tokens of a turn that a tool result brought about."""

OUTPUT_AFTER_USER_TOKENS = (
    0, 66, 104, 122, 146, 174, 195, 210, 232, 254, 275, 311, 371, 463, 668, 1053, 1608,
    2149, 2746, 4167, 5697, 6944, 10933,
)
"""Answer tokens of a turn that the user brought about."""

TOOL_GAP_S = (
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 11.0,
    31.0, 86.0, 180.0, 401.0, 1218.6, 26878.9,
)
"""Seconds between an answer and a tool result; recorded in whole seconds."""

HUMAN_GAP_S = (
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.7, 32.0, 37.0, 42.1, 52.0, 61.0, 77.0, 96.9, 124.0,
    166.8, 237.2, 332.3, 640.0, 1666.7, 2519.2, 5014.9, 21531.1,
)
"""Seconds between an answer and what the user writes next."""

TOOL_RUN_TURNS = (
    0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 7, 10, 13, 20, 28, 45, 61, 85, 131,
)
"""Consecutive turns brought about by tools; follows, kept to check against."""

SHORT_USER_RATIO = (
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.143, 0.167, 0.225, 0.286, 0.333, 0.5, 0.833,
    1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
)
"""Share of turns brought about by the user, sessions of under 10 turns."""

LONG_USER_RATIO = (
    0.0, 0.0, 0.0, 0.0, 0.01, 0.018, 0.025, 0.032, 0.036, 0.046, 0.054, 0.066, 0.075, 0.085,
    0.1, 0.119, 0.14, 0.169, 0.208, 0.251, 0.3, 0.356, 0.46,
)
"""The same, longer sessions."""

SHORT_BREAK_RATIO = (
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.138, 0.155, 0.333, 0.333, 0.475, 0.625,
    1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
)
"""Share of turns that do not extend the last prompt, sessions of under 10 turns."""

LONG_BREAK_RATIO = (
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.007, 0.01, 0.014, 0.017, 0.022, 0.028, 0.034,
    0.043, 0.054, 0.085, 0.138, 0.23, 0.64, 0.742, 0.777, 0.935,
)
"""The same, longer sessions."""

SIDE_KEPT_RATIO = (
    0.0, 0.0, 0.017, 0.065, 0.099, 0.105, 0.12, 0.129, 0.143, 0.153, 0.166, 0.181, 0.222,
    0.254, 0.319, 0.416, 0.529, 0.624, 0.655, 0.782, 0.881, 0.906, 0.989,
)
"""Share of the last prompt kept when another branch starts."""

SIDE_SIZE_RATIO = (
    0.601, 0.696, 0.776, 0.839, 0.919, 0.991, 0.993, 1.003, 1.007, 1.012, 1.018, 1.026,
    1.043, 1.064, 1.087, 1.114, 1.165, 1.306, 1.587, 2.385, 4.442, 6.781, 9.263,
)
"""Size of that prompt relative to the last."""

COMPACT_KEPT_RATIO = (
    0.0, 0.0, 0.0, 0.06, 0.076, 0.077, 0.079, 0.082, 0.097, 0.1, 0.102, 0.105, 0.108, 0.123,
    0.135, 0.176, 0.205, 0.21, 0.217, 0.287, 0.399, 0.418, 0.44,
)
"""Share of the last prompt kept when the context is compacted."""

COMPACT_SIZE_RATIO = (
    0.062, 0.136, 0.155, 0.164, 0.176, 0.189, 0.207, 0.222, 0.245, 0.3, 0.353, 0.4, 0.431,
    0.467, 0.516, 0.523, 0.529, 0.543, 0.548, 0.576, 0.578, 0.588, 0.595,
)
"""Size of that prompt relative to the last."""

RETURN_DISTANCE_TURNS = (
    2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 7, 8, 11, 15, 20, 26, 35,
)
"""Turns back to the prompt that a returning branch extends."""

HEAD_WEIGHTS = (
    (58, 34, 7, 7, 6, 5, 5, 5, 4, 4, 4, 4, 3, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1),
    (18, 15, 12, 7, 1), (15, 12, 11, 1, 1), (4, 3, 2), (6, 2, 1), (7,), (2, 2), (1, 1, 1), (2, 1),
    (1,),
)
"""Sessions with the same first 64 blocks, grouped by those with the same first block."""

BREAK_WEIGHTS = {"return": 1085, "side": 419, "compact": 152}
"""What turns that break with their prefix do: go back to an earlier branch, start one, compact."""

ENDED_BY_WEIGHTS: Final[dict[str, dict[Literal["tool", "human", "unknown"], int]]] = {
    "tool_result": {"tool": 15480, "unknown": 374, "human": 162},
    "user": {"tool": 655, "human": 583, "unknown": 172},
}
"""How the answer before a turn ended, by what brought the turn about."""

LAST_ENDED_BY_WEIGHTS: Final[dict[Literal["tool", "human", "unknown"], int]] = {
    "tool": 209,
    "human": 88,
    "unknown": 1,
}
"""How a session's last answer ended."""
# fmt: on
