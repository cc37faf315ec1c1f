"""Classes handed out and read back: a table, folders, and what is refused."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from jalpose.tasks.classification.exchange import ClassExchange
from jalpose.tasks.exchange import Request, UnreadableError

EXCHANGE = ClassExchange(("cat", "dog", "guinea pig"))


def request(rank, name):
    shares = np.array([0.25, 0.125, 0.625], np.float32)
    return Request(
        rank=rank,
        id=10 + rank,
        name=name,
        key=f"pets/{rank}",
        file=f"pets/{rank}.jpg",
        size=(32, 32),
        window=None,
        box=(-0.5, -0.5, 31.5, 31.5),
        score=None,
        why="drawn at random, and so on",
        predicted={"class": np.array(2, np.int32), "probabilities": shares},
    )


@pytest.fixture
def table(tmp_path):
    requests = [request(1, "000011_1.jpg"), request(2, "000012_2.jpg")]
    EXCHANGE.write(tmp_path, requests, "images")
    return tmp_path / "classes.csv"


def read(path, name=""):
    return EXCHANGE.read(Path(path), PurePosixPath(name or path.name))


def test_the_table_has_guesses_and_room_for_classes(table):
    head, first, _ = table.read_text().splitlines()
    assert head.startswith("rank,id,name,class,rejected,guess,probability,")
    assert first == (
        '1,11,000011_1.jpg,,,guinea pig,0.625,pets/1.jpg,,"drawn at random, and so on"'
    )
    assert all(one.label is None and not one.rejected for one in read(table))


def test_what_is_filled_in_is_read(table):
    text = table.read_text()
    text = text.replace("1.jpg,,,", "1.jpg,dog,,").replace("2.jpg,,,", "2.jpg,,x,")
    table.write_text(text)
    one, other = read(table)
    assert one.name == "000011_1.jpg" and one.label["class"] == 1
    assert one.label["class"].dtype == np.int32 and one.where == "line 2"
    assert other.rejected and other.label is None


@pytest.mark.parametrize("no", ["0", "FALSE", "no", ""])
def test_an_empty_check_box_rejects_nothing(table, no):
    text = table.read_text()
    text = text.replace("1.jpg,,,", f"1.jpg,dog,{no},")
    table.write_text(text.replace("2.jpg,,,", "2.jpg,,TRUE,"))
    one, other = read(table)
    assert not one.rejected and one.label["class"] == 1 and other.rejected
    table.write_text(text.replace("2.jpg,,,", "2.jpg,cat,TRUE,"))
    with pytest.raises(UnreadableError, match=r"line 3: .*'cat' and is rejected"):
        read(table)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_table_in_another_encoding_says_so(table, encoding):
    table.write_bytes(table.read_text().replace("drawn", "süß").encode(encoding))
    with pytest.raises(UnreadableError, match=r'no UTF-8 .*save it as "CSV UTF-8"'):
        read(table)


def test_a_spreadsheets_semicolons_and_capitals_are_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("\ufeffID;Class\r\n11;guinea pig\r\n".encode())
    (one,) = read(path)
    assert one.name == "11" and one.label["class"] == 2


def test_a_row_of_more_cells_than_columns_is_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("name,class\na, b.jpg,cat\n")
    with pytest.raises(UnreadableError, match=r"a, b.jpg,cat has 3 cells.*2 columns"):
        read(path)


def test_an_unknown_class_is_named_with_its_line(table):
    table.write_text(table.read_text().replace("2.jpg,,,", "2.jpg,dgo,,"))
    with pytest.raises(UnreadableError, match="line 3: there is no class 'dgo'") as e:
        read(table)
    assert "Did you mean 'dog'?" in str(e.value) and "guinea pig" in str(e.value)


def test_images_in_folders_are_of_their_class(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    (one,) = read(path, "sorted/guinea pig/000011_1.jpg")
    assert one.name == "000011_1.jpg" and one.label["class"] == 2
    (one,) = read(path, "rejected/000011_1.jpg")
    assert one.rejected
    for name, words in (("bird/a.jpg", "no class 'bird'"), ("a.jpg", "in no folder")):
        with pytest.raises(UnreadableError, match=words):
            read(path, name)


def test_a_list_of_rejected_ones_and_what_is_unknown(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("rejected\n000011_1.jpg\n")
    assert [one.rejected for one in read(path)] == [True]
    for text in ("", "name;size\na;b\n", '{"class": 1, "name": 2}'):
        path.write_text(text)
        assert read(path) is None


def test_differences_are_of_classes():
    cat, dog = ({"class": np.array(i, np.int32)} for i in (0, 1))
    assert EXCHANGE.difference(cat, cat) == ""
    assert EXCHANGE.difference(cat, dog) == "was 'cat', is now 'dog'"
