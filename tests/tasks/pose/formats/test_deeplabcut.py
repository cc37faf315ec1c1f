"""DeepLabCut's tables: one animal and several, old and new rows, what is refused."""

import csv
import os

import numpy as np
import pytest
from PIL import Image

from jalpose.data.source import DataError
from jalpose.tasks.pose.formats import deeplabcut
from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE
from tests.support import miniature

ONE = """scorer,,,Ann,Ann,Ann,Ann
bodyparts,,,snout,snout,tail base,tail base
coords,,,x,y,x,y
labeled-data,day 1,img0.png,10.5,20,,
labeled-data,day 1,imgö.png,,,,
"""
OLD = """scorer,Ann,Ann,Ann,Ann
bodyparts,snout,snout,tail base,tail base
coords,x,y,x,y
C:\\mice\\labeled-data\\day 1\\img0.png,10.5,20,,
labeled-data/day 1/imgö.png,,,,
"""
SEVERAL = """scorer,,,Ann,Ann,Ann,Ann,Ann,Ann
individuals,,,a,a,b,b,single,single
bodyparts,,,snout,snout,snout,snout,corner,corner
coords,,,x,y,x,y,x,y
labeled-data,m,0.png,1,2,3,4,9,9
labeled-data,m,1.png,,,5,6,9,9
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "CollectedData_Ann.csv"


def read(path, text):
    path.write_text(text, encoding="utf-8")
    return deeplabcut.read(path, name="mouse")


@pytest.mark.parametrize("text", [ONE, OLD, "\ufeff" + ONE, ONE.replace(",", ";")])
def test_one_animal(path, text):
    assert deeplabcut.is_it(text.splitlines()[0])
    found = read(path, text)
    assert found.skeleton.joints == ("snout", "tail base")
    files = ["labeled-data/day 1/img0.png", "labeled-data/day 1/imgö.png"]
    assert [image.file for image in found.images] == files
    first, second = found.instances
    assert first.status.tolist() == [VISIBLE, ABSENT] and first.labelled
    assert first.joints[0].tolist() == [10.5, 20] and np.isnan(first.joints[1]).all()
    assert not second.labelled and second.file == files[1]


PROJECT = """# as DeepLabCut writes it
bodyparts:
- snout
- tail base
skeleton:
- - tail base
  - snout
- - objectA
  - snout
"""


@pytest.mark.parametrize("above", ["", "labeled-data", "labeled-data/day 1"])
def test_links_are_those_of_the_project(tmp_path, above):
    folder = tmp_path / above
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "config.yaml").write_text(PROJECT)
    found = read(folder / "CollectedData_Ann.csv", ONE)
    assert found.skeleton.limbs == ((1, 0),)


@pytest.mark.parametrize("text", ["", "skeleton: []", "skeleton: [[a]]", "a: [", "[1]"])
def test_a_project_without_links_or_that_cannot_be_read(path, text, caplog):
    (path.parent / "config.yaml").write_text(text)
    assert read(path, ONE).skeleton.limbs == ()
    assert ("cannot be read" in caplog.text) == (text not in ("", "skeleton: []"))


def test_several_animals(path):
    found = read(path, SEVERAL)
    places = [(i.file[-5:], i.id, i.joints[0].tolist()) for i in found.instances]
    assert places == [
        ("0.png", "a", [1, 2]),
        ("0.png", "b", [3, 4]),
        ("1.png", "b", [5, 6]),
    ]
    assert found.skeleton.joints == ("snout",)


@pytest.mark.parametrize("text", [ONE, SEVERAL])
def test_what_is_written_is_read_back(path, text):
    found = read(path, text)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(deeplabcut.rows_of(found, scorer="Bea"))
    again = deeplabcut.read(path, name="mouse")
    assert again.images == found.images and again.skeleton == found.skeleton
    for one, two in zip(found.instances, again.instances, strict=True):
        assert (one.file, one.id) == (two.file, two.id)
        np.testing.assert_array_equal(one.joints, two.joints)
    if text == ONE:
        assert path.read_text(encoding="utf-8").splitlines()[0].count("Bea") == 4


def test_predictions_have_likelihoods(path):
    found = read(
        path,
        "scorer,,,m,m,m\nbodyparts,,,a,a,a\ncoords,,,x,y,likelihood\n"
        "labeled-data,m,0.png,1,2,0.25\n",
    )
    assert found.instances[0].confidence.tolist() == [0.25]
    assert deeplabcut.rows_of(found)[-1][-3:] == ["1.0", "2.0", "0.25"]


def test_paths_that_deeplabcut_does_not_take_are_not_written(path):
    found = read(path, ONE.replace("labeled-data,day 1,", "labeled-data,,"))
    with pytest.raises(ValueError, match="is not of the form labeled-data/<folder>"):
        deeplabcut.rows_of(found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("coords,,,x,y,x,y\n", "", "no header row of coords"),
        ("10.5,20,,", "10.5,20,", "Row 4 of .*3 coordinates, not the 4"),
        ("10.5,20,,", "10.5,,,", "Row 4 .*snout has x or y alone"),
        ("10.5,20,,", "1e9,20,,", "Row 4 .*snout .*beyond 32,768 pixels"),
        ("10.5,20,,", "0,0.0,,", "Row 4 .*snout .*is a placeholder"),
        ("10.5,20,,", "10.5,twenty,,", "Row 4 .*could not convert"),
        ("imgö", "img0", "Row 5 .*another of the same image"),
        ("labeled-data,day 1,img0", "..,day 1,img0", "leads out of the images"),
        ("tail base,tail base", "snout,snout", "x of snout is there twice"),
        ("coords,,,x,y,x,y", "coords,,,x,y,x,z", "it has the coords z"),
        ("coords,,,x,y,x,y", "coords,,,x,y,x", "header rows have different lengths"),
    ],
)
def test_what_is_refused(path, old, new, message):
    assert old in ONE
    with pytest.raises(DataError, match=message):
        read(path, ONE.replace(old, new))


def test_animals_of_different_joints(path):
    text = SEVERAL.replace("snout,snout,corner", "tail,tail,corner")
    with pytest.raises(DataError, match="b has other bodyparts than a"):
        read(path, text)


def test_an_h5_without_what_reads_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tables", None)
    with pytest.raises(DataError, match=r"pip install 'jalpose\[deeplabcut\]'"):
        deeplabcut.read(tmp_path / "CollectedData_Ann.h5")


@pytest.mark.parametrize("text", [ONE, SEVERAL])
def test_an_h5_says_what_the_csv_says(path, text):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("tables", reason="PyTables is not installed")
    found = read(path, text)
    heads = 4 if text == SEVERAL else 3
    table = pandas.read_csv(path, header=list(range(heads)), index_col=[0, 1, 2])
    other = path.with_name("table")  # told by its content
    table.to_hdf(other, key=deeplabcut.H5_KEY, mode="w")
    again = deeplabcut.read(other, name="mouse")
    assert again.images == found.images
    for one, two in zip(found.instances, again.instances, strict=True):
        np.testing.assert_array_equal(one.joints, two.joints)


@pytest.mark.data
def test_the_real_mouse():
    file = "labeled-data/m4s1/CollectedData_Pranav.csv"
    root = miniature.real_data_dir("mouse", file)
    if root is None:
        pytest.skip("no real data")
    found = deeplabcut.read(os.path.join(root, "mouse", file))
    assert found.skeleton.joints == ("snout", "leftear", "rightear", "tailbase")
    assert found.skeleton.flip_pairs == ((1, 2),)
    assert len(found.instances) == 58 and all(one.labelled for one in found.instances)
    for one in found.instances[::10]:
        with Image.open(os.path.join(root, "mouse", one.file)) as image:
            there = one.joints[one.status != ABSENT]
            assert (there >= 0).all() and (there < image.size).all()
