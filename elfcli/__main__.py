"""Entry point of `elf` and `python -m elfcli`: runs the command and reports every failure in one line."""

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from elfcli.errors import ElfError, Stopped

COMPUTES = ("demo", "train", "resume", "sample", "eval", "sweep", "eval-ppl")
HELP = {"-h", "--help"}
REMOVED = {"encoder": "`elf train` computes token vectors itself", "fit-grid": "use --time-schedule uniform"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 failed run, 2 bad input, 130 interrupted."""
    if arguments is None and "_ELF_COMPLETE" in os.environ:  # the shell asks what a word can become
        import typer

        from elfcli.cli.app import app

        typer.main.get_command(app)(prog_name="elf")
    given = list(sys.argv[1:] if arguments is None else arguments)
    rest, debug = _without_debug(given)
    debug = debug or os.environ.get("ELF_DEBUG", "0").lower() not in ("", "0", "false")
    if not debug:
        from elfcli.ui.quiet import quiet

        quiet()
    if rest and not HELP.intersection(rest):
        from elfcli.ui.quiet import choose_devices, keep_memory

        choose_devices(rest[0])
        if rest[0] in COMPUTES:
            keep_memory()
    code = _run(rest, debug)
    if watch := _watch():
        watch.finish()
    if arguments is None and code:
        leave_threads(code)
    sys.exit(code)


def leave_threads(code: int) -> None:
    """End the process if Orbax's threads still run. They would wait minutes for a save that could not begin."""
    if any(type(thread).__module__.startswith("orbax.") for thread in threading.enumerate()):
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest = [argument for argument in arguments[:end] if argument != "--debug"]
    return rest + arguments[end:], len(rest) < end


def _run(arguments: list[str], debug: bool) -> int:
    import typer

    from elfcli.cli.app import app

    # Typer carries its own copy of click since 0.2x, click itself before; the base class is not exported.
    usage_error = sys.modules[typer.BadParameter.__module__].ClickException
    try:
        command = typer.main.get_command(app)
        with command.make_context("elf", arguments) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as done:
        return done.exit_code
    except usage_error as error:
        return _report_usage(error)
    except BrokenPipeError:
        # The reader (`| head`) has exited; flushing at exit would fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        return _failed(*_line_of(error))


def _line_of(error: BaseException) -> tuple[str, int]:
    """Return what to print and the exit code of a command that raised this error."""
    import typer

    if isinstance(error, ElfError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", 130
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or one_line(error)}", 1
    if isinstance(error, MemoryError):
        return "out of memory; lower batch_size, max_length or the size of the network", 1
    if "RESOURCE_EXHAUSTED" in str(error):  # XLA's out of memory
        return f"out of memory; lower batch_size or the size of the network ({one_line(error)})", 1
    if "Unable to initialize backend" in str(error):
        advice = "another process may be using it; JAX_PLATFORMS=cpu computes on the CPU"
        return f"the accelerator is not available ({one_line(error)}): {advice}", 1
    what = f"unexpected {type(error).__name__}: {one_line(error)}"
    return f"{what} (run with --debug for the traceback)", 1


def _failed(text: str, code: int) -> int:
    """Print why the command failed; return the exit code. The other processes report it to process 0."""
    if watch := _watch():
        if code != Stopped.exit_code:  # all processes stop by themselves
            watch.fail(text, code)
        if watch.this_process() != 0:
            return code
    _print_error(text)
    return code


def _watch() -> Any:
    """Return the module that watches the other processes; None with a single process."""
    watch = sys.modules.get("elfcli.parallel.watch")
    return watch if watch is not None and watch.watching() else None


def one_line(error: BaseException, limit: int = 400) -> str:
    """Return an error's text on one line, cut after `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[:limit] + "..."


def _report_usage(error: Any) -> int:
    """Print one line for one of click's usage errors, or the help if no command was given; return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    message = " ".join(error.format_message().split()).replace("Value error, ", "")
    for name, instead in REMOVED.items():
        message = message.replace(f"No such command '{name}'.", f"`elf {name}` was removed: {instead}")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "elf"
    _print_error(f"{message} (see `{command} --help`)")
    return error.exit_code


def _print_error(text: str) -> None:
    """Print `error: <line>` on stderr for each line of `text`, red on a terminal."""
    head = "error:"
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        head = f"\x1b[1;31m{head}\x1b[0m"
    for line in text.splitlines() or [""]:
        print(f"{head} {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
