"""The command line: one file a subcommand, no arithmetic; heavy modules are imported inside the commands.

``main`` turns every error into one line on standard error and its exit code:

    0 finished, whatever the verdicts    1 a verdict named by --fail-on occurred    2 usage
    3 model refused    4 data or claim refused    5 resources    6 internal or solver fault
    7 certificate rejected    130 interrupted
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from lpverify import __version__
from lpverify.cli.attack import attack
from lpverify.cli.bounds import bounds
from lpverify.cli.check import check
from lpverify.cli.compare import compare
from lpverify.cli.detect import detect
from lpverify.cli.evaluate import evaluate
from lpverify.cli.export import export
from lpverify.cli.figure import figure
from lpverify.cli.info import info
from lpverify.cli.radius import radius
from lpverify.cli.report import report
from lpverify.cli.results import results
from lpverify.cli.train import train
from lpverify.cli.verify import verify
from lpverify.cli.vnncomp import vnncomp
from lpverify.errors import LpverifyError, is_out_of_memory

EPILOG = """\b
Exit codes: 0 finished, whatever the verdicts (verify --fail-on makes 1); 2 usage;
3 model refused; 4 data or claim refused; 5 memory, disk or device; 6 internal or
solver fault; 7 certificate rejected; 130 interrupted. Results go to standard
output, progress and errors to standard error.
"""


# Commands whose run folders are gone on with.
RESUMABLE = {"verify", "radius", "attack", "detect"}


@click.group(epilog=EPILOG, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lpverify")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may stand anywhere.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Verify that no small change of an input changes what a ReLU network says.

    Every `verified` comes with a certificate, every `falsified` with a counterexample, and `lpverify check`
    judges both from files alone.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


COMMANDS = (
    verify, bounds, radius, attack, detect, evaluate, export, check, results, report, compare, vnncomp, info, train,
    figure,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    # Where other programs use the processors too, threads that spin while they wait cost 20 times the run.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # oneDNN keeps a kernel with its memory for each new shape, and every batch of rows has one of its own.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    # Who starts it in the background, with nohup say, may have interrupts ignored.
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in heard}
    try:
        with cli.make_context("lpverify", given) as ctx:
            code = cli.invoke(ctx)
        sys.stdout.flush()
        if arguments is None and ctx.invoked_subcommand == vnncomp.name:
            # The competition's clock is still running, and to free the memory of a search takes a second.
            os._exit(int(code or 0))
        return int(code or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except BaseException as error:
        if debug:
            traceback.print_exc()
        code, message = explain(error)
        if code == 130 and _goes_on(given):
            message += ", and the same command goes on with it"
        if isinstance(error, BrokenPipeError):
            # Nobody reads standard output any more: keep the interpreter from writing to it again at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"lpverify: error: {' '.join(message.split())}", file=sys.stderr)
        return code
    finally:
        for number, handler in before.items():
            # At the end of the process an interrupt would only make noise.
            signal.signal(number, signal.SIG_IGN if arguments is None else handler)


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the message of an error."""
    if isinstance(error, click.ClickException):
        return 2, error.format_message()
    if isinstance(error, LpverifyError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 130, "interrupted; what was written is kept"
    if isinstance(error, BrokenPipeError):
        return 5, "standard output was closed"
    if is_out_of_memory(error):
        return 5, "out of memory; what was written is kept; pass a smaller --batch-size"
    return 6, f"internal fault, please report it: {type(error).__name__}: {error} (--debug shows where)"


def _goes_on(given: Sequence[str]) -> bool:
    """Whether the same command would go on with the run that it has begun."""
    is_cascade = any(argument.endswith(".toml") for argument in given)
    has_folder = any(argument.split("=")[0] == "--out" for argument in given)
    return not is_cascade and has_folder and "--overwrite" not in given and bool(RESUMABLE.intersection(given[:1]))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first interrupts; another, while processes are ended and the run is written, would leave that half done."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
