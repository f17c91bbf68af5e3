"""A real Kafka, the bridge, a provider and its consumers, on one machine, from beginning to end."""

import asyncio
import logging
import signal
from collections import Counter
from contextlib import suppress

import uvloop
from aiokafka.errors import KafkaError
from rich.console import Console

from bridge.errors import BridgeError
from bridge.lab.demo.acts import ACTS, reckoned
from bridge.lab.demo.screen import Screen
from bridge.lab.demo.stage import DemoFailedError, Options, Stage

_EXIT_INTERRUPTED = 130
_EXAMPLE = (
    '[{"Status":"Failed","ErrorCode":"131026",'
    '"ErrorDescription":"131026:Receiver is incapable of receiving this message(Message Undeliverable.)",'
    '"MsgFrameType":"template","TaskId":"202307030171*******9","From":"86131*******8","Timestamp":1691043638000,'
    '"TemplateCode":"820561547132813184","Type":"TEMPLATE","Language":"id","TemplateName":"wa_otp_v_0_0_3",'
    '"To":"86138*******8","MessageId":"2023078469463703*******3"}]'
)
"""From the provider's page."""


def run(options: Options) -> int:
    """Play the acts. 0: all counts agree; 1: some differ, or it could not go on; 130: interrupted."""
    # What clients say of a Kafka that was killed on purpose.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    console = Console(highlight=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            code = runner.run(_interruptible(options, console))
        except asyncio.CancelledError:
            code = _EXIT_INTERRUPTED
    if options.keep or code == _EXIT_INTERRUPTED:
        console.print("everything was taken down")
    return code


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
    except (DemoFailedError, BridgeError, KafkaError, OSError) as error:
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
        attempts = [attempt for entry in stage.entries() for attempt in entry.attempts]
        answers = Counter(str(attempt.status or attempt.error) for attempt in attempts)
        said = ", ".join(f"{answer}: {count:,}" for answer, count in sorted(answers.items()))
        raise DemoFailedError(f"not all counts agree, see above; the provider's attempts ended with {said}")
    return 0


async def _keep(stage: Stage, screen: Screen) -> None:
    """Leave it running for whoever wants to try it, until Ctrl-C."""
    screen.say(f"Kafka is at {','.join(stage.settings.kafka.bootstrap_servers)}, topic {stage.settings.topics.status}")
    screen.say("everything goes on running until Ctrl-C; push a report yourself, the provider's own example:")
    screen.quote(f"\ncurl -sS {stage.url} --data '{_EXAMPLE}'\n")
    with suppress(asyncio.CancelledError):  # the end that was asked for
        async with screen.watching(stage):
            await asyncio.Event().wait()
