"""Draws a denoising trace as a small animated GIF, for a README. Needs the extra `plots`."""

import io
from pathlib import Path

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.ImageFont import FreeTypeFont

WIDTH, MARGIN, LINE, SIZE = 760, 18, 30, 17
BACK, TEXT, DIM = (255, 255, 255), (27, 27, 31), (110, 110, 122)
TIME_COLOURS = ["#fde725", "#90d743", "#35b779", "#66b2be", "#8eaad6", "#c4a8dc"]  # from t 0 to t 1
RAMP = LinearSegmentedColormap.from_list("settled", TIME_COLOURS)
MAX_TEXTS, FRAMES, MILLISECONDS, HOLD = 4, 40, 110, 2500


def gif(data: dict) -> bytes:
    """Return a GIF of the first texts of a page's data, from t 0 to 1. Settled tokens are coloured and underlined."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), SIZE)
    samples = data["samples"][:MAX_TEXTS]
    frames = [drawn(data["pieces"], samples, i / (FRAMES - 1), font) for i in range(FRAMES)]
    height = max(frame.height for frame in frames)
    whole = [ImageOps.expand(frame, (0, 0, 0, height - frame.height), BACK).quantize(48) for frame in frames]
    file = io.BytesIO()
    times = [MILLISECONDS] * (FRAMES - 1) + [HOLD]
    whole[0].save(file, "GIF", save_all=True, append_images=whole[1:], duration=times, loop=0, optimize=True)
    return file.getvalue()


def drawn(pieces: list[str], samples: list[dict], t: float, font: FreeTypeFont) -> Image.Image:
    """Return the picture at time t."""
    image = Image.new("RGB", (WIDTH, 4000), BACK)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, 8), f"t = {t:.2f}", TEXT, font)
    pen.rectangle((110, 17, WIDTH - MARGIN, 21), DIM)
    end = 110 + t * (WIDTH - MARGIN - 120)
    pen.rectangle((end, 11, end + 10, 27), TEXT)
    y = 8 + LINE
    for sample in samples:
        if "input" in sample:
            for line in wrapped(sample["input"], font):
                pen.text((MARGIN, y + 4), line, DIM, font)
                y += LINE - 6
        y = draw_tokens(pen, y, pieces, sample, t, font) + LINE + 8
    return image.crop((0, 0, WIDTH, y))


def wrapped(text: str, font: FreeTypeFont) -> list[str]:
    """Return at most three lines that fit the width."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > WIDTH - 2 * MARGIN:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines[:3]


def draw_tokens(pen: ImageDraw.ImageDraw, y: int, pieces: list[str], sample: dict, t: float, font: FreeTypeFont) -> int:
    """Draw the tokens decoded at time t, and return the y of their last line."""
    now = max(i for i, time in enumerate(sample["times"]) if i == 0 or time <= t + 1e-9)
    last, settled, x = sample["rows"][-1], sample["settled"], float(MARGIN)
    for place, (number, _) in enumerate(sample["rows"][now]):
        word = pieces[number]
        width = font.getlength(word)
        if x + width > WIDTH - MARGIN:
            x, y = float(MARGIN), y + LINE
        done = place < len(last) and last[place][0] == number and settled[place] <= now
        if done:
            pen.rectangle((x, y + 2, x + width, y + LINE - 6), RAMP(sample["times"][settled[place]], bytes=True)[:3])
            pen.line((x, y + LINE - 6, x + width, y + LINE - 6), TEXT, 2)
        pen.text((x, y + 4), word, TEXT if done else DIM, font)
        x += width
    return y
