"""Plays a script on the real library, in virtual time, and looks whether all is as the model says.

After each step everything comes to rest, and is compared. At the end the runner ends, and what the contract promises of
every run is checked: each request answered exactly once, nothing running, nothing left.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import anyio
from anyio import CancelScope, create_task_group, get_cancelled_exc_class, sleep, sleep_until
from anyio.abc import TaskGroup
from attrs import Factory, define

from properties.model.model import SOON
from properties.model.puppets import Mailbox, Puppet, Sightings
from properties.model.script import Burst, Scene, Script, Setting
from properties.model.steps import (
    ASKER,
    RUNNER,
    Advance,
    Ask,
    AskForUpdate,
    Body,
    Cancel,
    Intrude,
    Outside,
    Revive,
    Step,
    Stop,
    Switch,
    Tell,
    Unwind,
)
from properties.model.world import Answer, Snapshot
from support.leaks import nothing_left
from support.subscribers import Plain
from workerbus import (
    BusActivateWorkerMessage,
    BusDeactivateWorkerMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    BusJobUpdateMessage,
    BusMessage,
    JobContext,
    JobError,
    JobGroup,
    JobGroupContext,
    JobGroupError,
    JobStatus,
    MemoryBus,
    WorkerBus,
    WorkerRunner,
)
from workerbus.testing import run, settle
from workerbus.worker._core import core_of

STRANGER: Final = "stranger"
OBSERVER: Final = "observer"
ANSWER = (BusJobResponseMessage, BusJobResponseUrgentMessage, BusJobStreamEndMessage)


class BodyError(Exception):
    """What the body of a context raises."""


class MismatchError(AssertionError):
    """The library has done something else than the model says."""


@define(eq=False)
class Asking:
    """A group, as its requester sees it."""

    ask: Ask
    asker: Puppet | WorkerRunner
    scope: CancelScope
    mailbox: Mailbox = Factory(Mailbox)
    context: JobContext[Any] | JobGroupContext[Any] | None = None
    job_id: str | None = None
    end: str | None = None
    answers: dict[str, Answer] = Factory(dict)
    events: list[tuple[str, str, int]] = Factory(list)


class Stage:
    """A runner, its workers, and what has been seen of them so far."""

    def __init__(self, script: Script, bus: WorkerBus | None = None) -> None:
        self.script = script
        self.runner = WorkerRunner(name=RUNNER, bus=bus or MemoryBus(), handle_sigint=False, grace_period=1.0)
        self.runner.add_event_handler("on_error", lambda *_: None)
        self.seen = Sightings(script.setting.raising)
        self.puppets: dict[str, list[Puppet]] = {name: [] for name in (ASKER, *script.names)}
        self.askings: dict[int, Asking] = {}
        self.observer = Plain(OBSERVER)
        self.forged: list[BusMessage] = []
        self.tasks: TaskGroup

    # --- who is there

    def puppet(self, name: str) -> Puppet:
        return self.puppets[name][-1]

    async def set_up(self) -> None:
        for name in self.puppets:
            await self._add(name)
        await self.runner.bus.subscribe(self.observer)

    async def _add(self, name: str) -> None:
        puppet = Puppet(name, self.seen)
        self.puppets[name].append(puppet)
        await self.runner.add_workers(puppet)

    def id_of(self, number: int) -> str:
        asking = self.askings[number]
        if asking.job_id is None and asking.context is not None:
            asking.job_id = asking.context.job_id
            self.seen.numbers[asking.job_id] = number
        if asking.job_id is None:
            # Its requester still waits for one of those that it asks. Of the others, a request says the id.
            requests = [message for message in self.observer.got if isinstance(message, BusJobRequestMessage)]
            known = (each.job_id for each in requests if each.payload is not None and each.payload["group"] == number)
            asking.job_id = next(known, None)
        return asking.job_id or f"group {number}, of which nobody has heard"

    # --- the steps: what comes of them comes later

    async def do(self, step: Step, number: int) -> None:
        self.seen.result = None
        await getattr(self, f"_{type(step).__name__.lower()}")(step, number)

    async def _ask(self, step: Ask, number: int) -> None:
        asker = self.runner if step.by == RUNNER else self.puppet(step.by)
        asking = self.askings[step.group] = Asking(step, asker, CancelScope())
        if step.within is not None:
            asking.scope.deadline = anyio.current_time() + step.within
        if step.inside is None:
            self.tasks.start_soon(self._ask_and_note, asking)
        else:
            assert isinstance(asker, Puppet)
            asker.handlings[step.inside].children.start_soon(self._ask_and_note, asking)

    async def _tell(self, step: Tell, number: int) -> None:
        handling = self.puppet(step.worker).handlings.get(step.group)
        if handling is not None:
            handling.mailbox.put(step.what, number)

    async def _outside(self, step: Outside, number: int) -> None:
        puppet = self.puppet(step.worker)
        self.tasks.start_soon(puppet.send_as_told, self.id_of(step.group), step.what, number)

    async def _unwind(self, step: Unwind, number: int) -> None:
        for puppet in self.puppets[step.worker]:
            if step.group in puppet.handlings:
                puppet.handlings[step.group].released.set()

    async def _body(self, step: Body, number: int) -> None:
        if step.what == "cancel":
            self.askings[step.group].scope.cancel()
        else:
            self.askings[step.group].mailbox.put(step.what)

    async def _cancel(self, step: Cancel, number: int) -> None:
        asker = self.askings[step.group].asker
        assert isinstance(asker, Puppet)
        if step.politely:
            self.seen.result = await asker.request_cancel_job_group(self.id_of(step.group), reason="please")
        else:
            await asker.cancel_job_group(self.id_of(step.group), reason="please")

    async def _askforupdate(self, step: AskForUpdate, number: int) -> None:
        asker = self.askings[step.group].asker
        assert isinstance(asker, Puppet)
        await asker.request_job_update(self.id_of(step.group), step.worker)

    async def _intrude(self, step: Intrude, number: int) -> None:
        job_id, asker = self.id_of(step.group), self.askings[step.group].asker.name
        to_asker: dict[str, Any] = {"source": STRANGER, "target": asker}
        to_worker: dict[str, Any] = {"source": STRANGER, "target": step.worker}
        ask, payload = self.askings[step.group].ask, {"group": step.group}
        messages: dict[str, BusMessage] = {
            "answer": BusJobResponseMessage(job_id, JobStatus.COMPLETED, {}, **to_asker),
            "answer again": BusJobResponseMessage(job_id, JobStatus.ERROR, {}, source=step.worker, target=asker),
            "urgent answer": BusJobResponseUrgentMessage(job_id, JobStatus.ERROR, {}, **to_asker),
            "update": BusJobUpdateMessage(job_id, {"step": 0}, **to_asker),
            "stream end": BusJobStreamEndMessage(job_id, {"step": 0}, **to_asker),
            "request": BusJobRequestMessage(job_id, ask.job, payload, **to_worker),
            "request again": BusJobRequestMessage(job_id, ask.job, payload, source=asker, target=step.worker),
            "cancel": BusJobCancelMessage(job_id, "by a stranger", **to_worker),
        }
        if step.what == "answer again":
            self.forged.append(messages[step.what])
        await self.runner.bus.send(messages[step.what])

    async def _switch(self, step: Switch, number: int) -> None:
        kind = BusActivateWorkerMessage if step.active else BusDeactivateWorkerMessage
        await self.runner.bus.send(kind(source=STRANGER, target=step.worker))

    async def _stop(self, step: Stop, number: int) -> None:
        if step.crash:
            self.puppet(step.worker).crash.set()
        else:
            self.tasks.start_soon(self.puppet(step.worker).stop)

    async def _revive(self, step: Revive, number: int) -> None:
        await self._add(step.worker)

    async def _advance(self, step: Advance, number: int) -> None:
        pass

    # --- asking

    async def _ask_and_note(self, asking: Asking) -> None:
        with asking.scope:
            try:
                asking.end = await self._ask_for(asking)
            except BodyError:
                asking.end = "raise"
            except (JobError, JobGroupError) as exc:
                timed_out = isinstance(exc, TimeoutError) and exc.reason == "timeout"
                asking.end = "timeout" if timed_out else "error"
                asking.job_id = exc.job_id
                asking.answers = answers_of(exc.statuses, exc.responses)
            except get_cancelled_exc_class():
                asking.end = "cancelled"
                raise
            finally:
                if asking.context is not None and asking.end not in ("error", "timeout"):
                    group = asking.context._group
                    asking.answers = {} if group is None else answers_of(group.statuses, group.responses)
                if asking.job_id is not None:
                    self.seen.numbers[asking.job_id] = asking.ask.group

    async def _wait_for(self, asking: Asking, group: JobGroup) -> None:
        try:
            await group.wait()
            asking.end = "completed"
        except JobGroupError as exc:
            asking.end = "timeout" if isinstance(exc, TimeoutError) else "error"

    async def _ask_for(self, asking: Asking) -> str:
        ask, asker = asking.ask, asking.asker
        options: dict[str, Any] = {
            "name": ask.job,
            "payload": {"group": ask.group},
            "timeout": ask.timeout,
            "cancellable": ask.cancellable,
        }
        if ask.form == "hooks":
            assert isinstance(asker, Puppet)
            group = await asker.create_job_group_and_request_job(
                list(ask.workers), cancel_on_error=ask.cancel_on_error, **options
            )
            asking.job_id = group.job_id
            self.tasks.start_soon(self._wait_for, asking, group)
            return "asked"
        if ask.form == "group":
            asking.context = asker.job_group(*ask.workers, cancel_on_error=ask.cancel_on_error, **options)
        else:
            asking.context = asker.job(*ask.workers, **options)
        if ask.form == "await":
            await asking.context
        else:
            async with asking.context as context:
                await self._be_a_body(asking, context)
        return "completed"

    async def _be_a_body(self, asking: Asking, context: JobContext[Any] | JobGroupContext[Any]) -> None:
        what = "loop" if asking.ask.loop else (await asking.mailbox.get())[0]
        if what == "raise":
            raise BodyError
        if what == "loop":
            async for event in context:
                worker = getattr(event, "worker_name", asking.ask.workers[0])
                assert event.data is not None
                asking.events.append((worker, event.type.replace("_", " "), event.data["step"]))
            async for event in context:
                asking.events.append(("again", event.type, 0))

    # --- looking

    def check(self, *snapshots: Snapshot) -> None:
        """Raise `MismatchError` unless what can be seen is what the model says.

        Of several snapshots, each thing must be as in one of them: what follows from a step is not done at once, and
        may be mixed with what follows from another.
        """
        compared = [dict(self._differences(snapshot)) for snapshot in snapshots]
        always = set.intersection(*(set(differences) for differences in compared))
        if always:
            raise MismatchError("\n".join(compared[0][thing] for thing in compared[0] if thing in always))

    def _differences(self, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
        """Yield what is different, and how."""
        if snapshot.result not in ("any", self.seen.result):
            yield "result", f"the step came to {self.seen.result!r}, and not to {snapshot.result!r}"
        yield from self._in_groups(snapshot)
        yield from self._in_hooks(snapshot)
        for (number, name), (begun, running) in snapshot.handlers.items():
            starts = sum(puppet.starts.get(number, 0) for puppet in self.puppets[name])
            runs = any(number in puppet.handlings for puppet in self.puppets[name])
            if starts not in begun or runs is not running:
                thing, wanted = f"handler of group {number} at {name!r}", (" or ".join(map(str, begun)), running)
                yield thing, f"the {thing}: how often it began, and whether it runs: {(starts, runs)}, not {wanted}"
        for name, tables in snapshot.tables.items():
            statistics = self.puppet(name).statistics()
            if (statistics.active_jobs, statistics.job_groups) != tables:
                yield name, f"the tables of {name!r} are {statistics}, and not {tables[0]} jobs and {tables[1]} groups"

    def _in_groups(self, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
        for number, end in snapshot.ends.items():
            asking, thing = self.askings[number], f"group {number}"
            if asking.end != end:
                yield thing, f"{thing} ended as {asking.end!r}, and not as {end!r}"
            if number in snapshot.answers and asking.end is not None:
                told, late = snapshot.answers[number], snapshot.late[number]
                seen = {name: answer for name, answer in asking.answers.items() if name not in late}
                if not same_answers(seen, told):
                    yield f"answers {number}", f"{thing} has the answers {seen!r}, and not {told!r}"
        for number, events in snapshot.events.items():
            if (got := self.askings[number].events) != events:
                yield f"events {number}", f"group {number} had the events {got!r}, and not {events!r}"

    def _in_hooks(self, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
        for number, (must, may) in snapshot.hooks.items():
            hooks = self.seen.hooks.get(self.id_of(number), [])
            if not right_hooks(hooks, must, may):
                yield f"hooks {number}", f"the hooks of group {number} were {hooks!r}, not {must!r} (perhaps {may!r})"
        for (number, name), told in snapshot.told.items():
            heard = self.seen.told.get((self.id_of(number), name), [])
            if not right_news(heard, *told):
                thing = f"worker {name!r} about group {number}"
                yield thing, f"what was told to {thing}: {heard!r}, and not {told!r}"

    # --- the laws

    def check_laws(self) -> None:
        """Raise `MismatchError` unless everybody was answered once, and nothing is left."""
        broken = [f"group {number} never ended" for number, asking in self.askings.items() if asking.end is None]
        requests: Counter[tuple[str, str | None]] = Counter()
        answers: Counter[tuple[str, str]] = Counter()
        for message in self.observer.got:
            if isinstance(message, BusJobRequestMessage):
                requests[message.job_id, message.target] = 1
            elif (
                isinstance(message, ANSWER)
                and message.source != STRANGER
                and not any(message is forged for forged in self.forged)
            ):
                answers[message.job_id, message.source] += 1
        if requests != answers:
            broken.append(f"asked were {requests}, and answers came from {answers}")
        for puppet in (puppet for lives in self.puppets.values() for puppet in lives):
            statistics = puppet.statistics()
            if (
                statistics.active_jobs
                or statistics.job_groups
                or puppet.handlings
                or core_of(puppet).job_server.pool.busy
            ):
                broken.append(f"{puppet} has left {statistics} {puppet.handlings}")
        if self.runner.job_client.groups:
            broken.append(f"the runner has left {self.runner.job_client.groups}")
        if broken:
            raise MismatchError("\n".join(broken))


def answers_of(statuses: Mapping[str, str], responses: dict[str, dict[str, Any]]) -> dict[str, Answer]:
    return {name: (str(status), responses[name]) for name, status in statuses.items()}


def same_answers(seen: dict[str, Answer], told: dict[str, Answer]) -> bool:
    if {name: answer[0] for name, answer in seen.items()} != {name: answer[0] for name, answer in told.items()}:
        return False
    return all(data is None or data == seen[name][1] for name, (_, data) in told.items())


def right_news(heard: list[str], reason: str | None, updates: int) -> bool:
    """Whether a worker was told of a cancel, once, and of what it was asked."""
    cancels = [what for what in heard if what != "update?"]
    if len(heard) - len(cancels) != updates:
        return False
    if not cancels:
        return reason is None
    return reason is not None and len(cancels) == 1 and reason in ("*", cancels[0])


def right_hooks(seen: list[tuple[str, str]], must: list[tuple[str, str]], may: list[tuple[str, str]]) -> bool:
    """Whether all that must have run, and nothing that may not; in order per worker, and the group's own at the end."""
    extra = Counter(seen) - Counter(must)
    if Counter(must) - Counter(seen) or extra - Counter(may):
        return False
    for worker in {worker for _, worker in must}:
        if [hook for hook in seen if hook[1] == worker and hook in must] != [
            hook for hook in must if hook[1] == worker
        ]:
            return False
    return not must or must[-1][1] != "" or [hook for hook in seen if hook in must][-1] == must[-1]


async def perform(script: Script, bus: WorkerBus | None = None) -> None:
    """Do all steps, end the runner, and check."""
    stage = Stage(script, bus)
    failure: Exception | None = None
    async with nothing_left(stage.runner, stays=[OBSERVER]):
        async with create_task_group() as stage.tasks:
            stage.tasks.start_soon(_run, stage)
            await stage.set_up()
            try:
                for scene in script.scenes:
                    await _play(stage, scene)
            except Exception as exc:
                failure = exc  # raised when everything has been let go
            await _end(stage)
        if failure is not None:
            raise failure
        stage.check_laws()


async def _run(stage: Stage) -> None:
    await stage.runner.run(auto_end=False)


async def _play(stage: Stage, scene: Scene) -> None:
    await sleep_until(scene.at)
    await settle()
    for offset, step in enumerate(scene.steps):
        await stage.do(step, scene.number + offset)
    await sleep_until(scene.at + SOON)
    await settle()
    try:
        stage.check(*scene.snapshots)
    except MismatchError as exc:
        exc.add_note(f"after {scene.steps}, at {scene.at} s")
        raise


async def _end(stage: Stage) -> None:
    finale = stage.script.setting.finale
    if finale == "cancel":
        await stage.runner.cancel("it is over")
    else:
        await stage.runner.end("it is over")
    await sleep(0.0 if finale != "late" else 10.0)
    for puppet in (puppet for lives in stage.puppets.values() for puppet in lives):
        for handling in puppet.handlings.values():
            handling.released.set()
    await sleep(20)
    for asking in stage.askings.values():
        asking.mailbox.put("leave")


def play(script: Script, *, backend: str, seed: int = 0) -> None:
    """Play a script; an error says which. What the library logs meanwhile is not kept: it is a lot."""
    logger = logging.getLogger("workerbus")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        run(perform, script, backend=backend, seed=seed, limit=10_000.0)
    except Exception as exc:
        exc.add_note(f"{script}, backend={backend!r}, seed={seed})")
        raise
    finally:
        logger.setLevel(level)


def play_steps(setting: Setting, steps: Sequence[Step | Burst], *, backend: str, seed: int = 0) -> None:
    """Play steps."""
    play(Script.of(setting, steps), backend=backend, seed=seed)
