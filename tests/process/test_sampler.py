"""Flags and what they come to."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest
from exact import SCHEDULE

from symdiff_plugin.process.sampler import FAST_STEPS, HELP, KINDS, Sampler, add_sampler_flags, chosen
from symdiff_plugin.process.step_rules import RULES


def test_edms_sampler_is_what_nothing_asks_for() -> None:
    for flags in ({}, {"sampler": None, "step_grid": None}, {"sampler": "ancestral", "sampling_steps": 250}):
        assert Sampler.of(flags, 250) == Sampler("ancestral", 250, "time", 1.0, 0)
        assert Sampler.of(flags, 250).is_edms(250)


@pytest.mark.parametrize(
    "flags",
    [
        {"sampling_steps": 249}, {"step_grid": "logsnr"}, {"corrector_steps": 1},
        {"sampler": "sde-dpm++", "sampling_steps": 250, "step_grid": "time"},
    ],
)  # fmt: skip
def test_what_is_not_edms(flags: dict) -> None:
    assert not Sampler.of(flags, 250).is_edms(250)


def test_the_usual_settings_of_a_sampler() -> None:
    usual = {
        "ancestral": (1, 1, 1), "ddim": (0, 0, 1), "sde-dpm++": (1, 0, 2), "dpm++": (0, 0, 0), "heun": (0, 0, 0),
        "euler-maruyama": (1, 0, 2),
    }  # fmt: skip
    assert {name: (rule.stochasticity, rule.least, rule.most) for name, rule in RULES.items()} == usual
    for name in RULES:
        found = Sampler.of({"sampler": name}, 1000)
        if name != "ancestral":
            assert (found.sampling_steps, found.step_grid) == (FAST_STEPS, "logsnr") == (50, "logsnr")
        assert found.stochasticity == usual[name][0]
    assert Sampler.of({"sampling_steps": 20}, 1000).step_grid == "logsnr"  # few ancestral steps are no longer EDM's


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sampler": "euler"}, "--sampler of diffusion is one of ancestral, ddim, .*, not euler"),
        ({"sampler": "rk4"}, "--sampler must be one of ancestral, ddim"),
        ({"sampler": "ddim", "probabilistic_model": "flow_matching"}, "of flow_matching is one of euler, .*, not ddim"),
        ({"sampling_steps": 0}, "--sampling_steps must be a whole number from 1"),
        ({"step_grid": "quadratic"}, "--step_grid must be one of logsnr, time, karras"),
        ({"sampler": "dpm++", "stochasticity": 0.1}, "--stochasticity of --sampler dpm\\+\\+ is 0, not 0.1"),
        ({"sampler": "ddim", "stochasticity": 1.5}, "--stochasticity of --sampler ddim is from 0 to 1, not 1.5"),
        ({"sampler": "sde-dpm++", "stochasticity": 2.5}, "--stochasticity must be a number in"),
        ({"sampler": "heun", "sampling_steps": 1}, "at least 2 with --sampler heun and --corrector_steps 0"),
        ({"sampler": "heun", "sampling_steps": 3, "corrector_steps": 2}, "at least 4 with --sampler heun"),
    ],
)
def test_what_cannot_be_is_refused(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler.of(flags, 1000)


@pytest.mark.parametrize(
    ("flags", "intervals", "calls"),
    [
        ({"sampler": "ddim", "sampling_steps": 7}, 7, 8),
        ({"sampler": "heun", "sampling_steps": 7}, 3, 7),
        ({"sampler": "ddim", "sampling_steps": 9, "corrector_steps": 1}, 4, 9),
        ({"sampler": "heun", "sampling_steps": 9, "corrector_steps": 1}, 3, 10),
    ],
)
def test_calls_of_the_network_are_what_is_counted(flags: dict, intervals: int, calls: int) -> None:
    found = Sampler.of(flags, 1000)
    assert (found.intervals, found.calls) == (intervals, calls)
    assert len(found.levels(SCHEDULE)) == intervals + 1


def test_the_record_makes_the_sampler_again() -> None:
    one = Sampler.of({"sampler": "ddim", "stochasticity": 0.3, "corrector_steps": 1, "step_grid": "karras"}, 1000)
    assert one.record().keys() == KINDS.keys() - {"hold_frame"} == HELP.keys() - {"hold_frame"}
    assert Sampler.of(one.record(), 1000) == one
    flow = Sampler.of({"probabilistic_model": "flow_matching", "sampler": "midpoint"}, 1000)
    assert Sampler.of(flow.record(), 7) == flow
    assert str(one) == "ddim, 50 calls (karras grid, eta 0.3, 1 Langevin)"


def test_the_usual_sampler_of_a_process() -> None:
    flow = Sampler.of({"probabilistic_model": "flow_matching"}, 1000)
    assert flow == Sampler("euler", FAST_STEPS, "time", 0.0, 0, "flow_matching")
    assert flow.calls == FAST_STEPS  # none for decoding
    score = Sampler.of({"probabilistic_model": "score_matching"}, 1000)
    assert (score.sampler, score.sampling_steps, score.calls) == ("sde-dpm++", FAST_STEPS, FAST_STEPS + 1)
    same = {"probabilistic_model": "score_matching", "sampler": "ancestral"}
    assert not Sampler.of(same, 250).is_edms(250)  # whose class would train otherwise


def test_flags_of_a_command_line() -> None:
    parser = argparse.ArgumentParser()
    add_sampler_flags(parser.add_argument, "sde-dpm++")
    assert vars(parser.parse_args([])) == {**dict.fromkeys(KINDS), "sampler": "sde-dpm++"}
    given = parser.parse_args(["--sampling_steps", "9", "--stochasticity", "0.5", "--corrector_steps", "0"])
    assert (given.sampling_steps, given.stochasticity, given.corrector_steps) == (9, 0.5, 0)


def test_another_sampler_keeps_nothing_of_the_runs() -> None:
    run = {"sampler": "ddim", "sampling_steps": 9, "stochasticity": 0.5, "lr": 1}
    assert chosen({}, run) == {**dict.fromkeys(KINDS), "sampler": "ddim", "sampling_steps": 9, "stochasticity": 0.5}
    assert chosen({"sampling_steps": 7, "stochasticity": None}, run)["stochasticity"] == 0.5
    assert chosen({"sampler": "ddim"}, run)["sampling_steps"] == 9
    assert chosen({"sampler": "heun"}, run) == {**dict.fromkeys(KINDS), "sampler": "heun"}
    assert chosen({"sampler": "ancestral"}, {"sampling_steps": 5})["sampling_steps"] == 5  # a run from before was EDM's


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_command_knows_its_flags_without_torch_and_samples_without_the_compiler() -> None:
    see = "import sys; from symdiff_plugin import sample; from symdiff_plugin.evaluate import __main__; "
    assert run(see + "sample._parser('sample'); print('torch' in sys.modules)") == "False"
    see = "import sys; import symdiff_plugin.pretrained, symdiff_plugin.process.diffusion; "
    assert run(see + "print('torch' in sys.modules, 'torch._dynamo' in sys.modules)") == "True False"
