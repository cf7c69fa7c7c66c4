"""What any reader must do with anything: a sentence, or a right answer, in seconds and without much memory.

`told_or_right` is the one oracle; `damaged_json`, `damaged_bytes` and `anything` are what readers are given; a check
marked by `for_any` runs with 200 examples, and as `-m soak` with 20,000.
"""

import contextlib
import copy
import json
import resource
import signal
import time
import unicodedata

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ssnas_colab.core.basics import UserError

SECONDS, BYTES = 5, 1 << 30  # of work; of address space more than there was


class Late(BaseException):
    "No reader catches it."


def _address_space():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def bounded():
    "What is inside must end within `SECONDS` of work, some more by the clock, and `BYTES` more than there were."
    fired = []

    def late(*_):  # the first time the machine itself may have stood still
        fired.append(signal.setitimer(signal.ITIMER_REAL, 4 * SECONDS))
        if len(fired) > 1:
            raise Late(f"not done after {8 * SECONDS} s")

    before, limits = signal.signal(signal.SIGALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    began = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 4 * SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - began < SECONDS


def is_line(text):
    "Whether a text is one line in which all can be seen: no control character, mark of direction, or half a character."
    kinds = {unicodedata.category(c) for c in text if c not in "\u200c\u200d"}
    return not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def is_sentence(said):
    "Whether a refusal is such a line, of at most 600 characters."
    return 10 <= len(said) <= 600 and is_line(said) and "Traceback" not in said


def told_or_right(act, right=lambda found: True, errors=UserError):
    "`act()` gives what `right` holds of, or raises one of `errors` with a sentence; whether it gave something."
    try:
        with bounded():
            found = act()
    except errors as error:
        said = str(error)
        assert is_sentence(said) or errors is not UserError and "\n" not in said, said[:2000]
        return False
    assert right(found), found
    return True


def for_any(strategy, count=200, long=20_000):
    "Runs `check(case, ...)` with fixtures as further arguments, for `count` cases; as `-m soak`, for `long`."

    def decorate(check):
        @pytest.mark.parametrize("count", [count, pytest.param(long, marks=pytest.mark.soak)])
        def test(count, **fixtures):
            how = {"max_examples": count, "deadline": None, "derandomize": True, "database": None}
            how |= {"suppress_health_check": list(HealthCheck), "phases": (Phase.generate, Phase.shrink)}
            given(strategy)(settings(**how)(lambda case: check(case, **fixtures)))()

        names = check.__code__.co_varnames[1 : check.__code__.co_argcount]
        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return _with_arguments(test, names)

    return decorate


def _with_arguments(test, names):
    "`test(count, **fixtures)` with a signature that pytest reads."
    import inspect

    kinds = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("count", *names)]
    test.__signature__ = inspect.Signature(kinds)
    return test


numbers = st.one_of(
    st.integers(-3, 70), st.sampled_from([2**31, 2**53, 10**12, -(2**63), 2**63, 10**40, 10**400]),
    st.floats(width=64), st.sampled_from([1e300, 5e-324, float("inf"), float("-inf"), float("nan")]),
)  # fmt: skip
words = st.one_of(
    st.text(max_size=12), st.text(st.characters(max_codepoint=127), max_size=20),
    st.sampled_from(["", "nan", "NaN", "inf", "None", "\x1b[31m", "\u202e", "\udcff", "$\\frac{$", "=cmd()", "../..",
                     "9" * 5000, "x" * 5000, "[" * 3000, "(" * 300, "a.b" * 500, "<script>", "\n", "\0", "²", "-0.0"]),
)  # fmt: skip
leaves = st.one_of(st.none(), st.booleans(), numbers, words)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=8
)


def _places(value):
    "All (container, key) in JSON."
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


@st.composite
def damaged_json(draw, value, most=3):
    "JSON as text, of `value` with up to `most` parts lost, replaced, moved or repeated, or with its text damaged."
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(value))
        if not places:
            break
        box, key = draw(st.sampled_from(places))
        what = draw(st.sampled_from(("replace", "replace", "lose", "move", "repeat", "deep", "many")))
        if what == "lose":
            del box[key]
        elif what == "move":
            other, at = draw(st.sampled_from(places))
            with contextlib.suppress(KeyError, IndexError):  # what was lost
                box[key] = copy.deepcopy(other[at])
        elif what == "repeat" and isinstance(box, list):
            box.insert(key, copy.deepcopy(box[key]))
        elif what == "deep":
            for _ in range(draw(st.sampled_from((1, 40, 100)))):
                box[key] = [box[key]]
        elif what == "many":
            often = (2, 65) if isinstance(box[key], (dict, list)) else (2, 65, 5000)
            box[key] = [box[key]] * draw(st.sampled_from(often))
        else:
            box[key] = draw(anything)
    text = json.dumps(value)
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged_bytes(text.encode())).decode("latin-1")
    return text


@st.composite
def damaged_bytes(draw, data, most=4):
    "Bytes with up to `most` parts cut, flipped, filled, doubled or put in."
    data = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        at, length = draw(st.integers(0, len(data))), draw(st.sampled_from((1, 1, 2, 4, 8, 64, 10_000)))
        what = draw(st.sampled_from(("cut", "flip", "fill", "double", "put", "end")))
        if what == "cut":
            del data[at : at + length]
        elif what == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "fill":
            data[at : at + min(length, 64)] = bytes([draw(st.sampled_from((0, 255, 127)))]) * min(length, 64)
        elif what == "double":
            data[at:at] = data[at : at + length]
        elif what == "put":
            data[at:at] = draw(st.binary(max_size=8))
        elif what == "end":
            del data[at:]
    return bytes(data)
