"""Which metrics a PromQL expression reads."""

import re

_NOT_METRICS = (
    r'"[^"]*"',
    r"\{[^}]*\}",
    r"\[[^]]*\]",
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)",
    r"\b\w+\s*(?=\()",  # functions
    r"\b(?:and|or|unless|bool|offset)\b",
)


def metrics_of(expression: str) -> set[str]:
    """The names of the series in ``expression``.

    Example:
        >>> sorted(metrics_of('sum by (le) (rate(a_bucket{job="b"}[5m])) / c > 0.5 and d:e'))
        ['a_bucket', 'c', 'd:e']
    """
    for pattern in _NOT_METRICS:
        expression = re.sub(pattern, " ", expression)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", expression))
