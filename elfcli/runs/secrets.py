"""Detects secrets, so that none is written or published: tokens by their form, and values of the environment."""

import os
import re

SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[\w-]{20,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bAKIA[0-9A-Z]{16}\b"
    r"|\bxox[abp]-[\w-]{10,}|(?<![@\w])[0-9a-f]{40}\b|://[^/\s:@]+:[^/\s@]+@"
)
SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY", re.IGNORECASE)


def holds_secret(text: str) -> bool:
    """Return whether the text holds a token, or the value of an environment variable with a name like TOKEN."""
    values = [v for k, v in os.environ.items() if SECRET_VARIABLE.search(k) and len(v) >= 8]
    return bool(SECRET.search(text)) or any(value in text for value in values)
