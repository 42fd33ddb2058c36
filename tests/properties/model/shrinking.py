"""Makes a script that fails shorter, step by step, as long as it fails in the same way."""

from collections.abc import Iterator, Sequence

import attrs

from properties.model.script import Burst, Script, Setting
from properties.model.stage import play
from properties.model.steps import Ask, Step

Steps = list[Step | Burst]


def play_and_shrink(script: Script, *, backend: str, seed: int) -> None:
    """Play a script; if it fails, raise what a short version of it fails with."""
    try:
        play(script, backend=backend, seed=seed)
    except Exception as exc:
        raise _shortest(script, exc, backend, seed) from None


def _shortest(script: Script, error: Exception, backend: str, seed: int) -> Exception:
    setting, steps = script.setting, list(script.given)
    kind, progress = _kind(error), True
    while progress:
        progress = False
        for shorter_setting, shorter in _shorter(setting, steps):
            failure = _failure(shorter_setting, shorter, backend, seed)
            if failure is not None and _kind(failure) == kind:
                setting, steps, error, progress = shorter_setting, shorter, failure, True
                break
    return error


def _shorter(setting: Setting, steps: Steps) -> Iterator[tuple[Setting, Steps]]:
    for plain in (attrs.evolve(setting, raising=frozenset()), attrs.evolve(setting, finale="end")):
        if plain != setting:
            yield plain, steps
    for size in (8, 4, 2, 1):
        for first in range(len(steps) - size + 1):
            yield setting, steps[:first] + steps[first + size :]
    for place, step in enumerate(steps):
        for plainer in _plainer(step):
            yield setting, [*steps[:place], plainer, *steps[place + 1 :]]


def _plainer(step: Step | Burst) -> Iterator[Step | Burst]:
    if isinstance(step, Burst):
        yield from (attrs.evolve(step, steps=tuple(s for s in step.steps if s is not left)) for left in step.steps)
    elif isinstance(step, Ask):
        for field in attrs.fields(Ask):
            if field.default is not attrs.NOTHING and getattr(step, field.name) != field.default:
                yield attrs.evolve(step, **{field.name: field.default})  # type: ignore[arg-type]  # a field that it has
        yield from (attrs.evolve(step, workers=tuple(w for w in step.workers if w != left)) for left in step.workers)


def _failure(setting: Setting, steps: Sequence[Step | Burst], backend: str, seed: int) -> Exception | None:
    try:
        script = Script.of(setting, steps)
    except LookupError:
        return None  # a step is about something that was left out
    try:
        play(script, backend=backend, seed=seed)
    except Exception as exc:
        return exc
    return None


def _kind(error: BaseException) -> tuple[type[BaseException], str]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error), "".join(character for character in str(error)[:25] if not character.isdigit())
