"""MPII: both annotation files, who is an example, and PCKh."""

import numpy as np
import pytest
import scipy.io

from jalpose.data.source import DataError
from jalpose.tasks.pose import mpii, pck
from jalpose.tasks.pose.skeletons import ABSENT, LSP, MPII, OCCLUDED, VISIBLE
from tests.support.mpii_miniature import (
    MAT,
    NOTHING,
    entry,
    image,
    person,
    point,
    points,
    read,
    save_json,
    save_release,
    struct,
)
from tests.tasks.pose import test_skeletons

HEAD, NECK, RIGHT_ANKLE, PELVIS, THORAX = 0, 1, 13, 14, 15


class TestSkeleton:
    def test_begins_with_lsp(self):
        assert MPII.joints[:14] == LSP.joints
        assert MPII.joints[14:] == ("pelvis", "thorax")
        assert [MPII.joints[j] for j in MPII.left_out] == ["pelvis", "thorax"]
        assert LSP.left_out == ()

    @pytest.mark.parametrize(
        "check",
        [
            test_skeletons.test_mirror_is_an_involution,
            test_skeletons.test_mirror_exchanges_left_and_right_names,
            test_skeletons.test_limbs_connect_all_joints_and_are_symmetric,
            test_skeletons.test_torso_diagonals_go_from_shoulder_to_opposite_hip,
        ],
    )
    def test_rules_of_every_skeleton(self, check):
        check(MPII)


class TestRelease:
    def test_a_person_is_of_the_video_of_its_image(self, tmp_path):
        two = image("b.jpg", person(), person(), video=1344)
        save_release(tmp_path, [image("a.jpg", person()), two])
        labels = read(tmp_path)
        assert labels.videos == ("", "1344", "1344")
        assert labels.at([2, 0]).videos == ("1344", "")
        save_release(tmp_path, [image("a.jpg", person())])
        assert read(tmp_path).videos is None
        save_release(tmp_path, [image("a.jpg", person(), video=0.5)])
        with pytest.raises(DataError, match=r"annolist\(1\) .* has vididx=0\.5, which"):
            read(tmp_path)

    def test_joints_end_in_their_slots_and_pixels_count_from_0(self, tmp_path):
        save_release(tmp_path, [image("a.jpg", person())])
        labels = read(tmp_path)
        # Ids of MPII in our order; as shipped joint j is at (100 + j, 200 + j).
        ids = [9, 8, 13, 14, 15, 12, 11, 10, 3, 4, 5, 2, 1, 0, 6, 7]
        assert labels.joints[0, :, 0].tolist() == [99 + j for j in ids]
        assert labels.joints[0, :, 1].tolist() == [199 + j for j in ids]
        assert (labels.status == VISIBLE).all()
        # The centre counts from 1 too; scale 2 is 400 pixels; 3-4-5 head box.
        assert labels.people.tolist() == [[300, 200, 400]]
        assert labels.boxes.tolist() == [[100, 0, 500, 400]]
        assert labels.head_sizes.tolist() == [50]

    def test_names_and_types(self, tmp_path):
        save_release(
            tmp_path, [image("a.jpg", person(), person()), image("b.c.jpg", person())]
        )
        labels = read(tmp_path)
        assert labels.keys == ("mpii/a_1", "mpii/a_2", "mpii/b.c_1")
        assert labels.files[:2] == ("mpii/images/a.jpg",) * 2
        assert labels.joints.shape == (3, 16, 2)
        for values in (labels.joints, labels.boxes, labels.people, labels.head_sizes):
            assert values.dtype == np.float32
        assert labels.status.dtype == np.int8

    @pytest.mark.parametrize(
        ("flag", "status"),
        [
            pytest.param({}, VISIBLE, id="no field"),
            pytest.param({"is_visible": NOTHING}, VISIBLE, id="empty"),
            pytest.param({"is_visible": ""}, VISIBLE, id="empty text"),
            pytest.param({"is_visible": 1}, VISIBLE, id="1"),
            pytest.param({"is_visible": "1"}, VISIBLE, id="text 1"),
            pytest.param({"is_visible": 0}, OCCLUDED, id="0"),
            pytest.param({"is_visible": "0"}, OCCLUDED, id="text 0"),
            pytest.param({"is_visible": False}, OCCLUDED, id="false"),
        ],
    )
    def test_visibility(self, tmp_path, flag, status):
        people = person(annopoints=points(**flag))
        save_release(tmp_path, [image("a.jpg", people)])
        assert (read(tmp_path).status == status).all()

    def test_joints_that_are_not_there_are_absent(self, tmp_path):
        people = person(annopoints=points(range(1, 16)))  # no right ankle
        save_release(tmp_path, [image("a.jpg", people)])
        labels = read(tmp_path)
        assert labels.status[0, RIGHT_ANKLE] == ABSENT
        assert np.isnan(labels.joints[0, RIGHT_ANKLE]).all()
        assert (labels.status == ABSENT).sum() == 1

    def test_a_single_point(self, tmp_path):
        people = person(annopoints=points([6]))
        save_release(tmp_path, [image("a.jpg", people)])
        labels = read(tmp_path)
        assert np.flatnonzero(labels.status[0] != ABSENT).tolist() == [PELVIS]

    def test_only_separate_people_of_training_images_with_joints(self, tmp_path):
        bare = person(annopoints=NOTHING)
        images = [
            image("scalar.jpg", person(), person()),
            image("none.jpg", person()),
            image("test.jpg", {"x1": 1, "y1": 1, "x2": 2, "y2": 2}),
            image("second_bare.jpg", person(), bare, person()),
            image("nobody.jpg"),
            image("column.jpg", person(), person()),
        ]
        column = np.array([[2], [1]])
        single = [2, NOTHING, 1, [1, 2, 3], NOTHING, column]
        save_release(tmp_path, images, [1, 1, 0, 1, 1, 1], single)
        assert read(tmp_path).keys == (
            "mpii/scalar_2",
            "mpii/second_bare_1",
            "mpii/second_bare_3",
            "mpii/column_1",
            "mpii/column_2",
        )

    def test_people_without_annopoints_at_all(self, tmp_path):
        fields = {"x1": 1, "y1": 1, "x2": 2, "y2": 2}
        save_release(tmp_path, [image("a.jpg", fields), image("b.jpg", person())])
        assert read(tmp_path).keys == ("mpii/b_1",)

    @pytest.mark.parametrize(
        "missing",
        [
            {"scale": NOTHING},
            {"objpos": NOTHING},
            {"scale": 0.0},
            {"objpos": struct({"x": NOTHING, "y": 3})},
        ],
        ids=repr,
    )
    def test_without_scale_or_centre(self, tmp_path, missing):
        save_release(tmp_path, [image("a.jpg", person(**missing), person())])
        labels = read(tmp_path)
        assert np.isnan(labels.people[0]).all()
        assert np.isnan(labels.boxes[0]).all()
        assert labels.people[1].tolist() == [300, 200, 400]

    def test_without_head_box(self, tmp_path):
        headless = person(x1=NOTHING)
        save_release(tmp_path, [image("a.jpg", headless, person())])
        np.testing.assert_array_equal(read(tmp_path).head_sizes, [np.nan, 50])
        save_release(tmp_path, [image("a.jpg", headless)])
        assert read(tmp_path).head_sizes is None

    def test_small_integers_do_not_overflow(self, tmp_path):
        # MATLAB stores numbers in as few bytes as they need.
        box = {
            name: np.uint8(v)
            for name, v in (("x1", 40), ("y1", 60), ("x2", 10), ("y2", 20))
        }
        save_release(tmp_path, [image("a.jpg", person(**box))])
        assert read(tmp_path).head_sizes.tolist() == [50]

    def test_an_image_listed_twice_keeps_its_people_apart(self, tmp_path):
        twice = [image("a.jpg", person(), person()), image("a.jpg", person())]
        save_release(tmp_path, twice)
        assert read(tmp_path).keys == ("mpii/a_1", "mpii/a_2", "mpii/a_3")


class TestReleaseErrors:
    def test_nothing_there(self, tmp_path):
        where = str(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"No data folder '.*nowhere'.*JALPOSE_DA"):
            mpii.read_annotations(where)
        with pytest.raises(DataError, match=r"No MPII .*mpii' does not exist"):
            read(tmp_path)
        (tmp_path / "mpii").mkdir()
        message = (
            r"MPII has no annotations in '.*mpii'\. Looked there for mpii_human_pose_"
            r".* or trainval\.json.*config\.data\.mpii\.annotation.*human-pose\.mpi-inf"
        )
        with pytest.raises(DataError, match=message):
            read(tmp_path)
        with pytest.raises(DataError, match=r"Looked there for mine\.json; set"):
            read(tmp_path, annotation="mine.json")

    @pytest.mark.parametrize("content", [b"", b"not a MATLAB file" * 50])
    def test_unreadable(self, tmp_path, content):
        (tmp_path / "mpii").mkdir()
        (tmp_path / "mpii" / MAT).write_bytes(content)
        message = r"Cannot read '.*\.mat' as a MATLAB file.*Copy mpii_human_pose_v1_u12"
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    def test_truncated(self, tmp_path):
        save_release(tmp_path, [image("a.jpg", person())])
        path = tmp_path / "mpii" / MAT
        path.write_bytes(path.read_bytes()[:900])
        with pytest.raises(DataError, match=r"mpii_human_pose_v1_u12_1\.mat"):
            read(tmp_path)

    def test_no_release(self, tmp_path):
        (tmp_path / "mpii").mkdir()
        scipy.io.savemat(tmp_path / "mpii" / MAT, {"joints": np.zeros(3)})
        with pytest.raises(DataError, match="has no structure RELEASE"):
            read(tmp_path)

    def test_counts_that_differ(self, tmp_path):
        save_release(tmp_path, [image("a.jpg", person())], img_train=[1, 1])
        message = r"has 1 annolist, 2 img_train and 1 single_person, which must be as"
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("images", "single", "message"),
        [
            pytest.param(
                [image("a.jpg", person())],
                [2],
                r"person 2 of the 1 people of annolist\(1\) in '.*' \(a\.jpg\)",
                id="person who is not there",
            ),
            pytest.param(
                [image("a.jpg", person()), image("", person())],
                None,
                r"annolist\(2\) in '.*' has no image name",
                id="no name",
            ),
            pytest.param(
                [image("../a.jpg", person())],
                None,
                r"The image of person 1 of image '\.\./a\.jpg' .* is not a file name",
                id="path",
            ),
            pytest.param(
                [image("a.jpg", person(annopoints=points([16])))],
                None,
                r"person 1 of annolist\(1\) .*\(a\.jpg\) has a joint id=16",
                id="joint id",
            ),
            pytest.param(
                [image("a.jpg", person(scale="big"))],
                None,
                r"person 1 of annolist\(1\) .* has scale='big', which is no number",
                id="text for a number",
            ),
            pytest.param(
                [
                    image(
                        "a.jpg",
                        person(
                            annopoints=struct(
                                {"point": struct(point(2), point(2, x=7))}
                            )
                        ),
                    )
                ],
                None,
                r"has joint id=2 twice, at \(102\.0, 202\.0\) and at \(7\.0, 202\.0\)",
                id="joint twice",
            ),
            pytest.param(
                [
                    image(
                        "a.jpg",
                        person(
                            annopoints=struct({"point": struct(point(9, x=np.nan))})
                        ),
                    )
                ],
                None,
                r"The head of person 1 of image 'a\.jpg' .* not finite",
                id="coordinate",
            ),
            pytest.param(
                [image("a.jpg", person())],
                [NOTHING],
                r"describes no separate person with an annotated joint",
                id="nobody",
            ),
        ],
    )
    def test_damaged(self, tmp_path, images, single, message):
        save_release(tmp_path, images, single=single)
        with pytest.raises(DataError, match=message):
            read(tmp_path)


class TestJson:
    def test_says_the_same_as_the_release(self, tmp_path):
        save_release(tmp_path, [image("a.jpg", person())])
        release = read(tmp_path)
        save_json(tmp_path, [entry()])
        labels = read(tmp_path, annotation="annot/trainval.json")
        for name in ("keys", "files"):
            assert getattr(labels, name) == getattr(release, name)
        for name in ("joints", "status", "people", "boxes"):
            np.testing.assert_array_equal(getattr(labels, name), getattr(release, name))
        assert labels.head_sizes is None

    def test_the_release_goes_first(self, tmp_path):
        save_json(tmp_path, [entry("json.jpg")])
        assert read(tmp_path).keys == ("mpii/json_1",)
        save_release(tmp_path, [image("mat.jpg", person())])
        assert read(tmp_path).keys == ("mpii/mat_1",)

    def test_not_visible_is_not_annotated(self, tmp_path):
        joints = entry()["joints"]
        joints[0] = [-1.0, -1.0]
        save_json(tmp_path, [entry(joints=joints, joints_vis=[0] + [1] * 15)])
        labels = read(tmp_path)
        assert labels.status[0, RIGHT_ANKLE] == ABSENT
        assert np.isnan(labels.joints[0, RIGHT_ANKLE]).all()

    def test_people_are_numbered_in_their_image(self, tmp_path):
        nobody = entry("b.jpg", joints_vis=[0] * 16)
        people = [entry("b.jpg"), entry("a.jpg"), nobody, entry("b.jpg")]
        save_json(tmp_path, people)
        assert read(tmp_path).keys == ("mpii/b_1", "mpii/a_1", "mpii/b_3")

    def test_without_centre(self, tmp_path):
        save_json(tmp_path, [entry(center=[-1.0, -1.0], scale=-1.0), entry(scale=0)])
        assert np.isnan(read(tmp_path).people).all()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", r"Cannot read '.*trainval\.json' as JSON"),
            ("[{", r"Cannot read '.*trainval\.json' as JSON"),
            ("{}", r"holds a dict, not HRNet's list of people"),
            ("[]", r"describes no separate person"),
            ("[3]", r"Entry 0 of '.*' is not as HRNet ships it.*TypeError"),
            ('[{"image": "a.jpg"}]', r"Entry 0 .*KeyError: 'joints'"),
        ],
    )
    def test_damaged(self, tmp_path, content, message):
        save_json(tmp_path, [])
        (tmp_path / "mpii" / "annot" / "trainval.json").write_text(content)
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"joints": [[1, 2]] * 14}, r"joints \(14, 2\), joints_vis \(16,\)"),
            ({"joints_vis": [1] * 15 + [2]}, r"joints_vis \[1\.0, "),
            ({"center": [1.0]}, "ValueError"),
            ({"scale": None}, "TypeError"),
            ({"joints": [[1, "x"]] * 16}, "ValueError"),
        ],
    )
    def test_damaged_entry(self, tmp_path, changes, message):
        save_json(tmp_path, [entry(), entry(**changes)])
        with pytest.raises(DataError, match=f"Entry 1 of .*{message}"):
            read(tmp_path)


class TestOptions:
    @pytest.fixture
    def labels(self, tmp_path):
        """A whole person, one without head, one without neck, one without a place."""
        ids = set(range(16))
        people = [
            person(),
            person(annopoints=points(ids - {9})),
            person(annopoints=points(ids - {8})),
            person(scale=NOTHING),
        ]
        save_release(tmp_path, [image("a.jpg", *people)])
        return read(tmp_path)

    def test_nobody_is_left_out_without_being_asked(self, labels):
        chosen = mpii.choose(labels, mpii.Options())
        assert chosen.keys == labels.keys
        np.testing.assert_array_equal(chosen.joints, labels.joints)

    def test_all_joints(self, labels, caplog):
        with caplog.at_level("INFO"):
            chosen = mpii.choose(labels, mpii.Options(all_joints=True))
        assert chosen.keys == ("mpii/a_1", "mpii/a_4")
        assert "left out 2 of 4 people, do not have all 16 joints" in caplog.text
        for name in ("joints", "status", "boxes", "people", "head_sizes"):
            assert len(getattr(chosen, name)) == len(chosen.files) == 2

    def test_placed(self, labels):
        chosen = mpii.choose(labels, mpii.Options(placed=True))
        assert chosen.keys == ("mpii/a_1", "mpii/a_2", "mpii/a_3")
        assert np.isfinite(chosen.people).all()

    def test_head_shift_moves_the_head_and_nothing_else(self, labels):
        # The head, id 9, is at (108, 208), the neck, id 8, at (107, 207).
        chosen = mpii.choose(labels, mpii.Options(head_shift=0.2))
        np.testing.assert_allclose(chosen.joints[0, HEAD], [107.8, 207.8], rtol=1e-6)
        assert chosen.joints[2, HEAD].tolist() == [108, 208]  # no neck to move to
        assert np.isnan(chosen.joints[1, HEAD]).all()
        np.testing.assert_array_equal(chosen.joints[:, 1:], labels.joints[:, 1:])
        assert labels.joints[0, HEAD].tolist() == [108, 208]  # as it was

    def test_nobody_left(self, tmp_path):
        save_release(tmp_path, [image("a.jpg", person(scale=NOTHING))])
        message = (
            r"Nobody of the 1 people of MPII is left: 0 do not .* 1 have no centre"
        )
        with pytest.raises(DataError, match=message):
            mpii.choose(read(tmp_path), mpii.Options(placed=True))


class TestPckh:
    def test_against_a_slow_loop(self):
        rng = np.random.default_rng(0)
        joints = rng.uniform(0, 300, (20, 16, 2)).astype(np.float32)
        status = rng.choice([VISIBLE, OCCLUDED, ABSENT], (20, 16), p=[0.7, 0.1, 0.2])
        joints[status == ABSENT] = np.nan
        heads = rng.uniform(20, 80, 20).astype(np.float32)
        heads[[3, 8]] = np.nan, 0
        predicted = np.nan_to_num(joints) + rng.normal(0, 12, joints.shape)
        hits, counts = np.zeros(16), np.zeros(16)
        for n in range(20):
            if not heads[n] > 0:
                continue
            for joint in range(16):
                if status[n, joint] == ABSENT:
                    continue
                distance = np.linalg.norm(predicted[n, joint] - joints[n, joint])
                counts[joint] += 1
                hits[joint] += distance / (0.6 * float(heads[n])) <= 0.5
        result = pck.pck(
            predicted,
            joints,
            status,
            MPII,
            threshold=0.5,
            reference="head",
            head_sizes=heads,
            average="official",
        )
        np.testing.assert_array_equal(result.per_joint, hits / counts)
        np.testing.assert_array_equal(result.counts, counts)
        assert result.mean == hits[:14].sum() / counts[:14].sum()
        assert 0.1 < result.mean < 0.9
        assert (result.num_images, result.num_left_out) == (18, 2)

    def test_pelvis_and_thorax_do_not_count_officially(self):
        joints = np.zeros((1, 16, 2), np.float32)
        predicted = joints.copy()
        predicted[:, [PELVIS, THORAX]] = 1000
        status = np.full((1, 16), VISIBLE, np.int8)
        options = {"reference": "head", "head_sizes": np.ones(1), "threshold": 0.5}
        found = {
            average: pck.pck(
                predicted, joints, status, MPII, average=average, **options
            ).mean
            for average in pck.JOINTS
        }
        assert found == {"all": 14 / 16, "official": 1.0}


class TestPlaces:
    """Joints, centres and names that cannot be."""

    @pytest.mark.parametrize(
        ("place", "words"),
        [
            ([-1.0, -1.0], r"a placeholder for its place.*\[-1\.0, -1\.0\]"),
            ([0.0, 0.0], "a placeholder for its place, and is marked as annotated"),
            ([65535.0, 20.0], r"a coordinate beyond 32,768 pixels: \[65535\.0, 20"),
            ([20.0, float("inf")], "a coordinate that is not finite"),
        ],
    )
    def test_a_joint_that_can_be_nowhere(self, tmp_path, place, words):
        joints = entry()["joints"]
        joints[9] = place
        save_json(tmp_path, [entry("a.jpg"), entry("b.jpg", joints=joints)])
        message = rf"The head of person 1 of image 'b\.jpg' in .* has {words}"
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"scale": 1e4}, r"The height \(200 times its scale\) of person 1"),
            ({"scale": float("inf")}, r"The height .* of image 'a\.jpg' .* is inf"),
            ({"center": [float("inf"), 9.0]}, r"The centre of person 1 .* is \[inf"),
            ({"center": [90000.0, 9.0]}, "The centre of person 1 .*beyond 32,768"),
        ],
    )
    def test_a_person_as_large_as_no_image(self, tmp_path, change, words):
        save_json(tmp_path, [entry("a.jpg", **change)])
        with pytest.raises(DataError, match=words):
            read(tmp_path)

    def test_a_person_of_the_authors_file_as_large_as_no_image(self, tmp_path):
        save_release(tmp_path, [image("a.jpg", person(scale=float("inf")))])
        with pytest.raises(DataError, match=r"The height .* of image 'a\.jpg'"):
            read(tmp_path)

    @pytest.mark.parametrize("name", [None, "", 7])
    def test_an_image_without_a_name(self, tmp_path, name):
        save_json(tmp_path, [entry("a.jpg"), {**entry(), "image": name}])
        message = rf"Entry 1 of .*its image is {name!r}, not a file's name"
        with pytest.raises(DataError, match=message):
            read(tmp_path)

    def test_names_that_differ_in_their_ending_alone(self, tmp_path):
        save_json(tmp_path, [entry("x.jpg"), entry("x.png")])
        message = r"Images 'x\.jpg' and 'x\.png' .* differ in their ending alone"
        with pytest.raises(DataError, match=message):
            read(tmp_path)


class TestValidationList:
    """The names of Newell et al. as editors and accidents leave them."""

    @pytest.fixture
    def folder(self, tmp_path):
        save_json(tmp_path, [entry(f"{name}.jpg") for name in "abcd"])
        return tmp_path

    def validation(self, folder, content, **options):
        (folder / "mpii" / mpii.VALIDATION_LIST).write_bytes(content)
        return mpii.in_validation(read(folder), str(folder), **options).tolist()

    def test_a_byte_order_mark_is_no_part_of_a_name(self, folder):
        content = "b.jpg\r\nd.jpg\r\n".encode("utf-8-sig")
        assert self.validation(folder, content) == [False, True, False, True]

    def test_a_misspelt_name_is_refused_with_counts(self, folder):
        message = (
            r"2 of 3 names in .* found, 2 people: 'd\.jgp' and 0 more are no images"
            r".*data\.check=off"
        )
        content = b"b.jpg\nc.jpg\nd.jgp\n"
        with pytest.raises(DataError, match=message):
            self.validation(folder, content)
        found = self.validation(folder, content, partly=True)
        assert found == [False, True, True, False]

    def test_names_of_people_who_are_left_out_are_no_mistake(self, folder):
        described = ("mpii/images/z.jpg", *(f"mpii/images/{n}.jpg" for n in "abcd"))
        found = self.validation(folder, b"a.jpg\nz.jpg\n", described=described)
        assert found == [True, False, False, False]

    def test_a_list_of_another_length_is_told(self, folder, caplog):
        with caplog.at_level("INFO"):
            self.validation(folder, b"a.jpg\nb.jpg\n")
        assert "2 of 2 names in" in caplog.text and "2 people" in caplog.text
        assert "has 2 lines, that of Newell et al. has 2958" in caplog.text
