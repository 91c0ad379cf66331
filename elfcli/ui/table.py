"""Small tables as text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> list[str]:
    """Rows of cells as lines of aligned columns; the columns `numbers` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def table(rows: Sequence[tuple[str, float]], num_samples: int, protocol: str) -> str:
    """One aligned line per (metric, value), under a heading."""
    lines = [("metric", "value", "samples", "protocol")]
    lines += [(metric, f"{value:,.2f}", f"{num_samples:,}", protocol) for metric, value in rows]
    return "\n".join(aligned(lines, numbers=(1, 2)))
