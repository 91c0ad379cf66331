"""From sampled tokens to the tokens of the text, as the reference (github.com/lillian039/ELF) does it. Numpy."""

import numpy as np


def shift_left(tokens_BxS: np.ndarray, shift_B: np.ndarray, pad_id: int = 0) -> np.ndarray:
    """(B, S): each row without its first shift[b] tokens, padded at the end."""
    position = np.arange(tokens_BxS.shape[1])[None] + np.asarray(shift_B)[:, None]
    inside = position < tokens_BxS.shape[1]
    picked = np.take_along_axis(tokens_BxS, np.where(inside, position, 0), axis=1)
    return np.where(inside, picked, pad_id)


def cut_after_eos(tokens_BxS: np.ndarray, eos_id: int, pad_id: int) -> np.ndarray:
    """(B, S): the first eos of each row and everything after it become padding."""
    return np.where(np.cumsum(tokens_BxS == eos_id, axis=1) > 0, pad_id, tokens_BxS)


def text_tokens(tokens_BxS, cond_len_B, *, max_length: int, max_input_length: int, eos_id: int, pad_id: int):
    """Token lists of the generated texts, without the condition (cond_len_B tokens), eos and padding."""
    tokens = np.asarray(tokens_BxS)
    if max_input_length:
        tokens = shift_left(tokens, cond_len_B, pad_id)[:, : max_length - max_input_length]
    return [row[row != pad_id].tolist() for row in cut_after_eos(tokens, eos_id, pad_id)]
