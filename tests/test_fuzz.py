"""A small version of ``python -m tests.fuzz``: damaged inputs end in success or one sentence."""

import pytest

from tests import fuzz

MUTATIONS = 5


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        fuzz.prepare(folder)
    return folder


@pytest.mark.filterwarnings("ignore")  # users see none: the command line filters its own
@pytest.mark.parametrize("number", range(MUTATIONS))
def test_damage_ends_well_or_with_one_sentence(installation, number):
    assert fuzz.try_one(installation, number, seed=0) is None
