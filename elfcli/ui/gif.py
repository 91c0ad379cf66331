"""Draws a denoising trace as a small animated GIF, for a README. Needs the extra `plots`."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

WIDTH, MARGIN, LINE, SIZE = 760, 18, 30, 17
BACK, TEXT, DIM = (255, 255, 255), (27, 27, 31), (110, 110, 122)
RAMP = ((253, 231, 37), (144, 215, 67), (53, 183, 121), (102, 178, 190), (142, 170, 214), (196, 168, 220))
MAX_TEXTS, FRAMES, MILLISECONDS, HOLD = 4, 40, 110, 2500


def gif(data: dict) -> bytes:
    """Return a GIF of the first texts of a page's data, from t 0 to 1. Settled tokens are coloured and underlined."""
    import matplotlib
    from PIL import Image, ImageFont

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), SIZE)
    samples = data["samples"][:MAX_TEXTS]
    frames = [drawn(data["pieces"], samples, i / (FRAMES - 1), font) for i in range(FRAMES)]
    height = max(frame.height for frame in frames)
    whole = []
    for frame in frames:
        canvas = Image.new("RGB", (WIDTH, height), BACK)
        canvas.paste(frame)
        whole.append(canvas.quantize(48))
    file = io.BytesIO()
    times = [MILLISECONDS] * (FRAMES - 1) + [HOLD]
    whole[0].save(file, "GIF", save_all=True, append_images=whole[1:], duration=times, loop=0, optimize=True)
    return file.getvalue()


def drawn(pieces: list[str], samples: list[dict], t: float, font: "FreeTypeFont") -> "Image":
    """Return the picture at time t."""
    from PIL import Image, ImageDraw

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


def wrapped(text: str, font: "FreeTypeFont") -> list[str]:
    """Return at most three lines that fit the width."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > WIDTH - 2 * MARGIN:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines[:3]


def draw_tokens(pen: "ImageDraw", y: int, pieces: list[str], sample: dict, t: float, font: "FreeTypeFont") -> int:
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
            pen.rectangle((x, y + 2, x + width, y + LINE - 6), colour(sample["times"][settled[place]]))
            pen.line((x, y + LINE - 6, x + width, y + LINE - 6), TEXT, 2)
        pen.text((x, y + 4), word, TEXT if done else DIM, font)
        x += width
    return y


def colour(x: float) -> tuple[int, ...]:
    """Return the colour of a number from 0 to 1 on the ramp."""
    place = min(max(x, 0.0), 1.0) * (len(RAMP) - 1)
    i = min(int(place), len(RAMP) - 2)
    return tuple(round(a + (b - a) * (place - i)) for a, b in zip(RAMP[i], RAMP[i + 1], strict=True))
