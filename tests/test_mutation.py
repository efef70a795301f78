"""The command that mutates the code: what it hands to mutmut, and what it makes of the answer."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mutation():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("mutation", ROOT / "benchmarks" / "mutation.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["mutation"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        sys.modules.pop("mutation", None)


def test_every_room_has_files_and_tests(mutation):
    for name, room in mutation.ROOMS.items():
        assert mutation.files_of(room, []), name
        assert all((ROOT / test).exists() for test in room.tests), name
    assert mutation.files_of(mutation.ROOMS["engine"], ["step"]) == ["bayesprune/svi/step.py"]
    assert all((ROOT / file).exists() for file in mutation.FORKED)
    inside = set(mutation.FORKED) | {
        file for room in mutation.ROOMS.values() for file in mutation.files_of(room, [])
    }
    for folder in ("svi", "gated", "priors"):  # and no file of theirs is in none
        assert {str(p.relative_to(ROOT)) for p in (ROOT / "bayesprune" / folder).glob("*.py")} <= inside


def test_slow_tests_that_are_left_out_are_there(mutation):
    for room in mutation.ROOMS.values():
        for name in room.slow:
            file, _, test = name.partition("::")
            assert f"def {test.partition('[')[0]}" in (ROOT / file).read_text(), name


def test_properties_become_plain_functions_that_properties_are_made_of(mutation):
    source = '''class A:
    """A class."""

    @property
    def one(self) -> int:
        """One."""
        return 1

    @staticmethod
    def two():
        return 2

    @property
    def three(self):
        if self.one:
            return 3

        return 0
'''
    changed = mutation.properties_undecorated(source)
    assert "@property" not in changed and "@staticmethod" in changed
    space = {}
    exec(changed, space)
    a = space["A"]()
    assert (a.one, a.two(), a.three) == (1, 2, 3)
    assert isinstance(space["A"].three, property)
    for path in (ROOT / "bayesprune" / "svi").glob("*.py"):
        compile(mutation.properties_undecorated(path.read_text()), path.name, "exec")


DIFF = """--- a.py
+++ a.py
@@ -1,4 +1,4 @@
 def f(x):
     y = 1
-    return x + y
+    return x - y
"""


def test_what_lives_is_named_by_its_place_and_change(mutation, monkeypatch):
    found = mutation.summary(
        {
            "a.x_f__mutmut_1": ("killed", None),
            "a.x_f__mutmut_2": ("survived", DIFF),
            "a.xǁAǁone__mutmut_1": ("no tests", DIFF),
            "a.x_f__mutmut_3": ("timeout", None),
            "a.x_f__mutmut_4": ("segfault", None),
        }
    )
    assert {key: found[key] for key in ("mutants", "killed", "timeouts", "survived")} == {
        "mutants": 5, "killed": 2, "timeouts": 1, "survived": 2,
    }  # fmt: skip
    change = "- return x + y\n+ return x - y"
    lives = {"f": [{"change": change}], "A.one": [{"change": change, "state": "no tests"}]}
    assert found["survivors"] == lives
    mutation.name_equivalent_(found)
    assert found["survivors"] == lives and found["equivalent"] == 0
    monkeypatch.setitem(mutation.EQUIVALENT, "return x - y", "y is 0")
    mutation.name_equivalent_(found)
    assert found["survivors"]["f"] == [{"change": change, "equivalent": "y is 0"}]
    total = mutation.total({"a.py": found, "b.py": found})
    assert (total["mutants"], total["dead_percent"], total["equivalent"]) == (10, 60.0, 4)
