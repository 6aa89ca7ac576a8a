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
        (128, 0.0, 9),
    ],
)
def test_compat_equals_the_rates_in_esams_log(epoch: int, logged: float, digits: int) -> None:
    assert round(learning_rate(ESAM, epoch - 1, esam_compat=True), digits) == pytest.approx(logged, abs=1e-12)


def test_in_compat_the_first_epoch_has_the_initial_rate_and_the_last_none() -> None:
    assert learning_rate(ESAM, 0, esam_compat=True) == 1e-4
    assert learning_rate(ESAM, 127, esam_compat=True) == 0.0


def test_by_default_the_last_epoch_trains_too() -> None:
    rates = [learning_rate(ESAM, epoch) for epoch in range(128)]
    assert rates[0] == 1e-4
    assert rates[64] == pytest.approx(1e-4 * 0.5**0.9)
    assert rates[127] == pytest.approx(1e-4 * (1 / 128) ** 0.9)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("esam_compat", "rates"), [(True, [1e-3, 5.5e-4, 1e-4]), (False, [1e-3, 7e-4, 4e-4])], ids=["compat", "default"]
)
def test_final_rate_is_that_of_the_last_epoch_or_of_the_one_after(esam_compat: bool, rates: list[float]) -> None:
    spec = ScheduleSpec(epochs=3, learning_rate=1e-3, decay=PolyDecay(kind="poly", power=1.0, final=1e-4))
    assert [learning_rate(spec, epoch, esam_compat=esam_compat) for epoch in range(3)] == pytest.approx(rates)


@pytest.mark.parametrize("esam_compat", [True, False])
@pytest.mark.parametrize("decay", [PolyDecay(kind="poly"), ConstantDecay(kind="constant")])
def test_a_single_epoch_trains_at_the_initial_rate(decay: PolyDecay | ConstantDecay, esam_compat: bool) -> None:
    spec = ScheduleSpec(epochs=1, learning_rate=2e-3, decay=decay)
    assert learning_rate(spec, 0, esam_compat=esam_compat) == 2e-3


def test_constant_never_decays() -> None:
    spec = ScheduleSpec(epochs=5, learning_rate=2e-3, decay=ConstantDecay(kind="constant"))
    assert {learning_rate(spec, epoch) for epoch in range(5)} == {2e-3}


@pytest.mark.parametrize("epoch", [-1, 128])
def test_an_epoch_outside_the_run_is_a_bug_of_the_caller(epoch: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        learning_rate(ESAM, epoch)
