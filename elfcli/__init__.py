"""elf: train, sample and score continuous diffusion language models (Embedded Language Flows).

    import elfcli
    model = elfcli.load("RUN_OR_NAME")
    model.generate(["Guten Tag"], steps=32)

`load`, `train`, `resume`, `evaluate` and `tokenize` do what the commands of these names do (docs/python.md). They are
imported when they are first used, so that `import elfcli` is quick.
"""

from typing import TYPE_CHECKING, Any

from elfcli.errors import ElfError, InputError, Stopped

if TYPE_CHECKING:
    from elfcli.api import Model, evaluate, load, resume, tokenize, train

__version__ = "0.2.0"
__all__ = ["ElfError", "InputError", "Model", "Stopped", "evaluate", "load", "resume", "tokenize", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'elfcli' has no attribute '{name}'")
    from elfcli import api

    found = getattr(api, name)
    return found if name == "Model" else api.quietly(found)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
