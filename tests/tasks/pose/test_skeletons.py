import numpy as np
import pytest

from jalpose.tasks.pose import skeletons

SKELETONS = [pytest.param(skeletons.LSP, id="lsp")]


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_mirror_is_an_involution(skeleton):
    mirror = np.array(skeleton.mirror)
    assert sorted(mirror) == list(range(skeleton.num_joints))
    np.testing.assert_array_equal(mirror[mirror], np.arange(skeleton.num_joints))


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_mirror_exchanges_left_and_right_names(skeleton):
    swap = {"left": "right", "right": "left"}
    for joint, other in enumerate(skeleton.mirror):
        words = skeleton.joints[joint].split()
        expected = " ".join(swap.get(word, word) for word in words)
        assert skeleton.joints[other] == expected
    for left, right in skeleton.flip_pairs:
        assert skeleton.joints[left].startswith("left ")
        assert skeleton.joints[right].startswith("right ")


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_limbs_connect_all_joints_and_are_symmetric(skeleton):
    reached = {skeleton.limbs[0][0]}
    for _ in skeleton.limbs:
        reached |= {j for limb in skeleton.limbs if reached & {*limb} for j in limb}
    assert reached == set(range(skeleton.num_joints))
    mirror = skeleton.mirror
    limbs = {frozenset(limb) for limb in skeleton.limbs}
    assert {frozenset(mirror[j] for j in limb) for limb in limbs} == limbs
    assert len(limbs) == len(skeleton.limbs)


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_torso_diagonals_go_from_shoulder_to_opposite_hip(skeleton):
    names = [{skeleton.joints[j] for j in diagonal} for diagonal in skeleton.torso]
    assert names == [{"left shoulder", "right hip"}, {"right shoulder", "left hip"}]


def test_statuses_differ():
    statuses = {skeletons.VISIBLE, skeletons.OCCLUDED, skeletons.ABSENT}
    assert len(statuses) == 3
