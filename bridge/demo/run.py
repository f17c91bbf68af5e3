"""``chatapp-bridge demo``: a real Kafka, the bridge, a provider and its consumers, on one machine."""

import argparse
import asyncio
import logging
import signal
import sys

import uvloop
from rich.console import Console

from bridge.demo.acts import ACTS, reckoned
from bridge.demo.screen import Screen
from bridge.demo.stage import DemoFailedError, Options, Stage
from bridge.errors import BridgeError

_EXIT_INTERRUPTED = 130
_MIN_MESSAGES = 50
_EXAMPLE = (
    '[{"Status":"Failed","ErrorCode":"131026",'
    '"ErrorDescription":"131026:Receiver is incapable of receiving this message(Message Undeliverable.)",'
    '"MsgFrameType":"template","TaskId":"202307030171*******9","From":"86131*******8","Timestamp":1691043638000,'
    '"TemplateCode":"820561547132813184","Type":"TEMPLATE","Language":"id","TemplateName":"wa_otp_v_0_0_3",'
    '"To":"86138*******8","MessageId":"2023078469463703*******3"}]'
)
"""From the provider's page."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--acts", type=_acts, default=tuple(ACTS), metavar="N,…", help="which acts to play (default: 1,2,3)")
    add("--messages", type=_messages, default=2000, metavar="N", help="of a campaign (default: 2000)")
    add("--rate", type=_rate, default=500.0, metavar="R", help="reports per second (default: 500)")
    add(
        "--bootstrap",
        metavar="HOST:PORT",
        help="a Kafka of yours: two topics are made there, and removed at the end; BRIDGE_KAFKA__* say how to connect",
    )
    add("--keep", action="store_true", help="leave all running at the end, until Ctrl-C")


def main(args: argparse.Namespace) -> int:
    """Run the command. 0: all counts agree; 1: some differ, or it could not go on; 130: interrupted."""
    # What clients say of a Kafka that was killed on purpose.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    console = Console(highlight=False)
    options = Options(acts=args.acts, messages=args.messages, rate=args.rate, bootstrap=args.bootstrap, keep=args.keep)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_interruptible(options, console))
        except asyncio.CancelledError:
            console.print("interrupted; everything was taken down")
            return _EXIT_INTERRUPTED


async def _interruptible(options: Options, console: Console) -> int:
    """Ctrl-C, a closed terminal and SIGTERM end it alike: cancelled once, and everything is taken down."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this is one
    pending = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

    def interrupt() -> None:
        if pending:
            pending.clear()
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in pending:
        loop.add_signal_handler(number, interrupt)
    return await _demo(options, console)


async def _demo(options: Options, console: Console) -> int:
    screen = Screen(console)
    kafka = "a real Apache Kafka" if options.bootstrap is None else "two topics on your Kafka"
    screen.say(f"setting up {kafka}, the bridge and three consumer groups")
    stage = Stage(options, console, screen.say)
    try:
        async with stage:
            return await _play(stage, screen)
    except (DemoFailedError, BridgeError) as error:
        console.print(f"the demo failed: {error}", style="red", markup=False, soft_wrap=True)
        if stage.kept_log is not None:
            console.print(f"the bridge's log: {stage.kept_log}", markup=False, soft_wrap=True)
        return 1


async def _play(stage: Stage, screen: Screen) -> int:
    async with screen.watching(stage):
        for number in stage.options.acts:
            await ACTS[number](stage, screen)
    reckoning = await reckoned(stage)
    screen.table(reckoning)
    if reckoning.agrees:
        screen.say(f"every count agrees; the order was checked for {reckoning.check.ordered_keys:,} messages", "green")
    if stage.options.keep:
        await _keep(stage, screen)
    if not reckoning.agrees:
        raise DemoFailedError("not all counts agree, see above")
    return 0


async def _keep(stage: Stage, screen: Screen) -> None:
    """Leave it running for whoever wants to try it, until Ctrl-C."""
    screen.say(f"Kafka is at {','.join(stage.settings.kafka.bootstrap_servers)}, topic {stage.settings.topics.status}")
    screen.say("everything goes on running until Ctrl-C; push a report yourself, the provider's own example:")
    screen.quote(f"\ncurl -sS {stage.url} --data '{_EXAMPLE}'\n")
    async with screen.watching(stage):
        await asyncio.Event().wait()


def _acts(text: str) -> tuple[int, ...]:
    try:
        acts = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        acts = ()
    if not acts or not set(acts) <= set(ACTS):
        raise argparse.ArgumentTypeError(f"{text}: of 1, 2 and 3, such as 1 or 1,3")
    return acts


def _messages(text: str) -> int:
    number = int(text)
    if number < _MIN_MESSAGES:
        raise argparse.ArgumentTypeError(f"{text}: at least {_MIN_MESSAGES}")
    return number


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < float(sys.maxsize):
        raise argparse.ArgumentTypeError(f"{text}: above 0")
    return rate
