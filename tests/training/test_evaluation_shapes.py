import numpy as np

from training.evaluation_shapes import as_markdown, cut_at, found_shares


def spot(row, column):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[row, column] = 255
    return picture


def test_a_cut_keeps_the_middle_columns_and_as_many_rows_as_told():
    assert cut_at(spot(0, 32), "9:16").any() and not cut_at(spot(0, 2), "9:16").any()
    assert cut_at(spot(0, 0), "16:9", at_top=0.0).any()
    assert not cut_at(spot(0, 0), "16:9", at_top=0.5).any()
    assert cut_at(spot(63, 0), "16:9", at_top=1.0).any()


def test_faces_lost_and_gained_are_counted_for_each_cut():
    pictures = [spot(0, 32), spot(32, 32), spot(32, 2)]
    changes = found_shares(pictures, lambda picture: bool(picture.any()))
    assert changes["3:4", 0.0] == (1, 0)  # the spot at the left edge
    assert changes["4:3", 0.25] == changes["4:3", 0.5] == (1, 0)  # the spot at the top
    gained = found_shares(pictures, lambda picture: not picture.any())
    assert gained["3:4", 0.0] == (0, 1)


def test_the_table_tells_the_share_that_is_left():
    table = as_markdown({("3:4", 0.5): (3, 1)}, 90, 100)
    assert "Face found in 90 of 100 squares (0.900)." in table
    assert "| 3:4 | 0.5 | 3 | 1 | 0.880 |" in table
