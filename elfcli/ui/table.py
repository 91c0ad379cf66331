"""Small tables for people."""

from collections.abc import Sequence


def table(rows: Sequence[tuple[str, float]], num_samples: int, protocol: str) -> str:
    """One aligned line per (metric, value), under a heading."""
    lines = [("metric", "value", "samples", "protocol")]
    lines += [(metric, f"{value:,.2f}", f"{num_samples:,}", protocol) for metric, value in rows]
    a, b, c = (max(len(line[place]) for line in lines) for place in range(3))
    return "\n".join(f"{metric:{a}}  {value:>{b}}  {samples:>{c}}  {rest}" for metric, value, samples, rest in lines)
