"""Files that annotators may bring, and that cannot be: each is refused by name."""

import json
import zipfile

import numpy as np
import pytest

from jalpose.oracles.folder import FolderOracle
from jalpose.oracles.oracle import LabelsError
from jalpose.tasks.pose import exchange
from tests.oracles.test_handout import DATA, IDS, encoded, hand_out
from tests.support import annotator, small

SPACED = ("Ünter wegs/a b.png", "Ünter wegs/ä #1 & 100%.png")


class Asked:
    """Two examples that are handed out, and an oracle that waits for them."""

    def __init__(self, folder, files=None, copy="copy"):
        _, self.requests = hand_out(folder, files, copy)
        self.workdir = folder / "run"
        config = small.configure()
        self.oracle = FolderOracle(
            DATA,
            labels=small.context().labels,
            exchange=exchange.make_exchange(config, DATA),
            workdir=self.workdir,
            data_dir=str(folder / "my data"),
        )
        entries = annotator.handed_out(self.workdir, 0)
        self.labelled = annotator.labelled(entries, DATA.truth)

    def bring(self, name, text):
        annotator.bring(self.workdir, name, text)

    def answers(self):
        return self.oracle.answers(IDS)

    def refuses(self, *words):
        with pytest.raises(LabelsError) as error:
            self.answers()
        for word in words:
            assert word in str(error.value), str(error.value)
        assert not (self.workdir / "labels_taken").exists()


@pytest.fixture
def asked(tmp_path):
    return Asked(tmp_path)


@pytest.mark.parametrize("tool", annotator.TOOLS)
def test_a_file_that_is_cut_off_is_refused_in_every_format(asked, tool):
    name, text = annotator.TOOLS[tool](asked.labelled)
    asked.bring(name, text[: len(text) * 2 // 3])
    asked.refuses(name)
    asked.bring(name, text)
    assert asked.answers().ids.tolist() == IDS.tolist()


def test_an_empty_file_and_a_damaged_archive_are_refused(asked):
    asked.bring("nothing.json", "")
    asked.refuses("nothing.json: it is in none of the formats")
    (asked.workdir / "labels" / "nothing.json").unlink()
    path = asked.workdir / "labels" / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", annotator.as_coco(asked.labelled)[1])
    whole = path.read_bytes()
    # An archive that is cut off is none any more.
    path.write_bytes(whole[: len(whole) // 2])
    asked.refuses("export.zip")
    # One with another byte in it is.
    spoilt = bytearray(whole)
    spoilt[60] ^= 255
    path.write_bytes(spoilt)
    asked.refuses("export.zip: the archive is damaged")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", annotator.as_coco(asked.labelled)[1])
    spoilt = bytearray(path.read_bytes())
    spoilt[40:60] = bytes(20)
    path.write_bytes(spoilt)
    asked.refuses("export.zip: the archive is damaged")
    path.write_bytes(whole)
    assert len(asked.answers().ids) == 2


def test_a_file_that_may_not_be_read_is_named(asked, monkeypatch):
    asked.bring(*annotator.as_coco(asked.labelled))

    def refuse(path, name):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(asked.oracle._exchange), "read", lambda _, *a: refuse(*a))
    asked.refuses(": cannot be read: Permission denied")


def test_links_are_followed_and_one_that_leads_nowhere_is_refused(asked, tmp_path):
    name, text = annotator.as_coco(asked.labelled)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / name).write_text(text, encoding="utf-8")
    labels = asked.workdir / "labels"
    labels.mkdir()
    (labels / "a").symlink_to(tmp_path / "elsewhere")
    (labels / "b.json").symlink_to(tmp_path / "none.json")
    asked.refuses("b.json: it is a link that leads nowhere")
    (labels / "b.json").unlink()
    assert asked.answers().ids.tolist() == IDS.tolist()


@pytest.mark.parametrize("count", [13, 15])
def test_a_list_of_another_length_than_the_joints_is_refused(asked, count):
    content = json.loads(annotator.as_coco(asked.labelled)[1])
    keypoints = content["annotations"][1]["keypoints"]
    content["annotations"][1]["keypoints"] = (2 * keypoints)[: 3 * count]
    asked.bring("coco.json", json.dumps(content))
    asked.refuses("coco.json", "Annotation 1", f"has {3 * count} numbers", "14 joints")


def test_two_people_in_one_picture_are_refused_unless_they_are_the_same(asked):
    content = json.loads(annotator.as_coco(asked.labelled)[1])
    first = content["annotations"][0]
    other = {**first, "id": 99, "keypoints": list(first["keypoints"])}
    content["annotations"].append(other)
    asked.bring("coco.json", json.dumps(content))
    assert len(asked.answers().ids) == 2
    at = other["keypoints"][2::3].index(2)
    other["keypoints"][3 * at] += 4
    asked.bring("coco.json", json.dumps(content))
    name = asked.requests[0].name
    with pytest.raises(LabelsError, match=f"{name!r} is answered twice: coco.json"):
        asked.answers()


def test_labels_of_another_folder_were_never_asked_for(asked):
    for image in asked.labelled.images:
        assert image.file[:6].isdigit()
    text = annotator.as_coco(asked.labelled)[1]
    for one in asked.requests:
        text = text.replace(one.name, f"holiday {one.rank}.jpg")
    asked.bring("coco.json", text)
    asked.refuses("'holiday 1.jpg' was never asked for", "holiday 2.jpg")


def test_a_name_without_its_folder_is_refused_where_two_have_it(tmp_path):
    files = dict.fromkeys(("a/x.png", "b/x.png"), encoded("PNG"))
    asked = Asked(tmp_path, files, copy="none")
    name, text = annotator.as_coco(asked.labelled)
    asked.bring(name, text.replace("a/x.png", "x.png"))
    asked.refuses("'x.png' may be a/x.png or b/x.png")


@pytest.mark.parametrize("tool", ["coco", "cvat", "label_studio"])
def test_spaces_and_letters_of_any_language_come_back(tmp_path, tool):
    files = dict.fromkeys(SPACED, encoded("PNG"))
    asked = Asked(tmp_path / "mein Ordner ß", files, copy="none")
    assert tuple(one.name for one in asked.requests) == SPACED
    name, text = annotator.TOOLS[tool](asked.labelled)
    asked.bring(f"mein Export ß/{name}", text)
    found = asked.answers()
    assert found.ids.tolist() == IDS.tolist()
    joints = DATA.truth_of(found.ids)["joints"]
    np.testing.assert_allclose(found.labels["joints"], joints, atol=0.006)


def test_tasks_of_label_studio_come_back_as_they_were_handed_out(tmp_path):
    files = dict.fromkeys(SPACED, encoded("PNG"))
    asked = Asked(tmp_path, files, copy="none")
    handed_out = asked.workdir / "to_label/cycle_00/label_studio.json"
    tasks = json.loads(handed_out.read_bytes())
    for number, task in enumerate(tasks):
        result = task.pop("predictions")[0]["result"]
        task["annotations"] = [{"id": number, "result": result}]
    asked.bring("export.json", json.dumps(tasks))
    assert asked.answers().ids.tolist() == IDS.tolist()
