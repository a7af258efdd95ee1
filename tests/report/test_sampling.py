import pandas as pd
import pytest

from camlens.report.sampling import sample


def images(*labels):
    return pd.DataFrame(
        {"image": range(100, 100 + len(labels)), "label": pd.array(list(labels), "Int64")}
    )


def drawn_labels(table, limit, seed=0):
    drawn = sample(table, limit, seed=seed)
    return table.set_index("image").loc[drawn, "label"].value_counts(dropna=False).to_dict()


def test_all_where_the_limit_allows():
    assert sample(images(0, 1, 0), 3) == [100, 101, 102]
    assert sample(images(), 3) == []


def test_labels_keep_their_share_to_the_last_image():
    table = images(*[0] * 500, *[1] * 300, *[2] * 200)
    assert drawn_labels(table, 100) == {0: 50, 1: 30, 2: 20}
    assert drawn_labels(table, 7) == {0: 4, 1: 2, 2: 1}  # 3.5, 2.1 and 1.4


def test_a_rare_label_is_drawn_once_if_there_is_room():
    table = images(*[0] * 998, 1, 2)
    assert drawn_labels(table, 10) == {0: 8, 1: 1, 2: 1}
    assert drawn_labels(table, 2) == {0: 2}


def test_images_without_label_are_a_label_of_their_own():
    table = images(*[0] * 50, *[pd.NA] * 50)
    assert list(drawn_labels(table, 10).values()) == [5, 5]


def test_the_seed_decides():
    table = images(*[0] * 1000)
    assert sample(table, 10) == sample(table, 10)
    assert sample(table, 10) != sample(table, 10, seed=1)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 17, 99])
def test_as_many_as_asked_for_each_once(limit):
    drawn = sample(images(*[0] * 40, *[1] * 33, *[2] * 27), limit)
    assert len(drawn) == len(set(drawn)) == limit
    assert drawn == sorted(drawn)
