"""The best-scored share, and a batch of it that is spread out."""

import dataclasses

import jax
import numpy as np
import pytest

from jalpose.acquisition import registry
from jalpose.acquisition.diverse import Diverse
from jalpose.acquisition.eglpp import EglPlusPlus
from jalpose.acquisition.lcmd import Lcmd
from jalpose.acquisition.method import Method, Pool, by_score
from jalpose.acquisition.random import Random
from jalpose.loop import configs
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import differences
from tests.support import small

POOL = np.arange(40, 60)


@dataclasses.dataclass(frozen=True)
class ByNumber(Method):
    """The highest ids are the best."""

    def acquire(self, key, probe, pool, budget):
        del key, probe
        ids = pool.unlabelled
        return by_score(ids, ids, budget, {"twice": 2 * ids}, {"of": len(ids)})


def acquire(method, ids=POOL, budget=4):
    probe = small.probe(small.flat_passes(), small.flat_variables())
    pool = Pool(unlabelled=ids, labelled=small.labelled_set())
    return method.acquire(jax.random.key(0), probe, pool, budget)


def test_the_second_method_chooses_among_the_best_of_the_first():
    found = acquire(Diverse(ByNumber(), Lcmd(), 0.4))
    best = np.arange(52, 60)
    alone = acquire(Lcmd(), ids=best)
    assert found.indices.tolist() == alone.indices.tolist()
    assert found.scores.tolist() == POOL.tolist()
    assert found.explanation["twice"].tolist() == (2 * POOL).tolist()
    for name in ("nearest_distance", "pick_distance", "cluster"):
        values, among = found.explanation[name], alone.explanation[name]
        np.testing.assert_array_equal(values[12:], among)
        left_out = np.isnan(values[:12]) if name != "cluster" else values[:12] == -1
        assert left_out.all()
    assert found.summary == {"of": 20, "diverse_among": 8, **alone.summary}


def test_the_share_is_never_below_the_budget_and_all_of_it_is_the_second_alone():
    small_share = acquire(Diverse(ByNumber(), Lcmd(), 0.01))
    assert sorted(small_share.indices.tolist()) == [56, 57, 58, 59]
    whole = acquire(Diverse(ByNumber(), Lcmd(), 1.0))
    assert whole.indices.tolist() == acquire(Lcmd()).indices.tolist()


def test_a_method_scores_as_it_does_alone():
    alone = EglPlusPlus(neighbours=4, perplexity=3.0)
    found = acquire(Diverse(alone, Lcmd(), 0.5))
    np.testing.assert_array_equal(found.scores, acquire(alone).scores)
    ranked = POOL[np.argsort(-found.scores)]
    assert np.isin(found.indices, ranked[:10]).all()
    assert found.indices.tolist() != ranked[:4].tolist()


def test_what_a_config_says_is_what_is_made():
    config = configs.assemble(
        "scale=tiny", name="diverse", delta={"acquisition.diverse": "lcmd"}
    ).acquisition
    found = registry.configured(config, "eglpp")
    assert isinstance(found, Diverse) and found.share == config.diverse_share
    assert found.scoring == EglPlusPlus(**dict(config.eglpp))
    assert found.uses_engine and not Diverse(ByNumber(), Lcmd(), 0.5).uses_engine
    # What is spread out already, and what others are compared with, is left alone.
    for name in ("lcmd", "coreset", "random", "control"):
        assert not isinstance(registry.configured(config, name), Diverse)


def test_what_does_not_spread_is_refused():
    with pytest.raises(ConfigError, match=r"acquisition\.diverse must name .* lcmd"):
        Diverse(ByNumber(), Random(), 0.5)
    with pytest.raises(ConfigError, match=r"diverse_share=0\.0 must be above 0"):
        Diverse(ByNumber(), Lcmd(), 0.0)
    config = {"diverse": "lcdm", "diverse_share": 0.5}
    with pytest.raises(ConfigError, match="Did you mean 'lcmd'"):
        registry.configured(config, "softmax_entropy")


def test_a_run_from_before_is_one_without_it():
    new = configs.assemble("scale=tiny", name="now").to_dict()
    old = configs.assemble("scale=tiny", name="now").to_dict()
    del old["acquisition"]["diverse"], old["acquisition"]["diverse_share"]
    assert differences(old, new) == []
    new["acquisition"]["diverse"] = "lcmd"
    assert differences(old, new) == ['acquisition.diverse: "" -> "lcmd"']
