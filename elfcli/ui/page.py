"""Self-contained HTML pages: a template of this folder with its data inside, one file that needs no network."""

import json
from pathlib import Path
from typing import Any


def page(template: str, data: Any) -> str:
    """Return the template with the data for `__DATA__`, escaped so that it cannot end the element that holds it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return (Path(__file__).parent / template).read_text(encoding="utf-8").replace("__DATA__", text)
