import pytest

from ditr.spec.models import ConstantDecay, PolyDecay, ScheduleSpec
from ditr.training.schedule import learning_rate

ESAM = ScheduleSpec(epochs=128, learning_rate=1e-4)


@pytest.mark.parametrize(
    ("epoch", "logged", "digits"),  # 1-based, as ESAM's log prints them
    [
        (2, 9.9291e-5, 9),
        (3, 9.8582e-5, 9),
        (64, 5.3968e-5, 9),
        (100, 2.5646e-5, 9),
        (126, 2.385e-6, 9),
        (127, 1.278e-6, 9),
    ],
)
def test_equals_the_rates_in_esams_log(epoch: int, logged: float, digits: int) -> None:
    assert round(learning_rate(ESAM, epoch - 1), digits) == pytest.approx(logged, abs=1e-12)


def test_first_epoch_has_the_initial_rate_and_the_last_none() -> None:
    assert learning_rate(ESAM, 0) == 1e-4
    assert learning_rate(ESAM, 127) == 0.0


def test_final_rate_is_reached_in_the_last_epoch() -> None:
    spec = ScheduleSpec(epochs=3, learning_rate=1e-3, decay=PolyDecay(kind="poly", power=1.0, final=1e-4))
    assert [learning_rate(spec, epoch) for epoch in range(3)] == pytest.approx([1e-3, 5.5e-4, 1e-4])


@pytest.mark.parametrize("decay", [PolyDecay(kind="poly"), ConstantDecay(kind="constant")])
def test_a_single_epoch_trains_at_the_initial_rate(decay: PolyDecay | ConstantDecay) -> None:
    assert learning_rate(ScheduleSpec(epochs=1, learning_rate=2e-3, decay=decay), 0) == 2e-3


def test_constant_never_decays() -> None:
    spec = ScheduleSpec(epochs=5, learning_rate=2e-3, decay=ConstantDecay(kind="constant"))
    assert {learning_rate(spec, epoch) for epoch in range(5)} == {2e-3}


@pytest.mark.parametrize("epoch", [-1, 128])
def test_an_epoch_outside_the_run_is_a_bug_of_the_caller(epoch: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        learning_rate(ESAM, epoch)
