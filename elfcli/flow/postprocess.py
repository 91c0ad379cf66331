"""Extracts the text's tokens from sampled tokens, as the reference (github.com/lillian039/ELF) does. Numpy."""

import numpy as np


def shift_left(tokens_BxS: np.ndarray, shift_B: np.ndarray, pad_id: int = 0) -> np.ndarray:
    """Return (B, S) rows without their first shift[b] tokens, padded at the end."""
    position = np.arange(tokens_BxS.shape[1])[None] + np.asarray(shift_B)[:, None]
    inside = position < tokens_BxS.shape[1]
    picked = np.take_along_axis(tokens_BxS, np.where(inside, position, 0), axis=1)
    return np.where(inside, picked, pad_id)


def cut_after_eos(tokens_BxS: np.ndarray, eos_id: int, pad_id: int, eos_begins: bool = False) -> np.ndarray:
    """Return (B, S) rows in which the first eos and everything after it are padding.

    eos_begins: whether eos also begins texts; then those before the first other token are padding and end nothing.
    """
    ends_BxS = tokens_BxS == eos_id
    if eos_begins:
        begun_BxS = np.cumsum(~ends_BxS, axis=1) > 0
        return np.where(np.cumsum(ends_BxS & begun_BxS, axis=1) > 0, pad_id, np.where(begun_BxS, tokens_BxS, pad_id))
    return np.where(np.cumsum(ends_BxS, axis=1) > 0, pad_id, tokens_BxS)


def text_tokens(
    tokens_BxS: np.ndarray, cond_len_B: np.ndarray, *, max_length: int, max_input_length: int, eos_id: int, pad_id: int,
    eos_begins: bool = False,
) -> list[list[int]]:  # fmt: skip
    """Return the token lists of the generated texts, without condition (cond_len_B tokens), eos and padding.

    eos_begins: as of `cut_after_eos`.
    """
    tokens = np.asarray(tokens_BxS)
    if max_input_length:
        tokens = shift_left(tokens, cond_len_B, pad_id)[:, : max_length - max_input_length]
    return [row[row != pad_id].tolist() for row in cut_after_eos(tokens, eos_id, pad_id, eos_begins)]
