from __future__ import annotations

from fl_opt.data.kept import Kept


def ask(kept: Kept[str], key: int, size: int, made: list[int]) -> str:
    def make() -> tuple[str, int]:
        made.append(key)
        return f"value {key}", size

    return kept.get(key, make)


def test_the_one_used_longest_ago_is_forgotten_first() -> None:
    kept: Kept[str] = Kept(2, most_bytes=100)
    made: list[int] = []
    for key in (1, 2, 1, 3, 1, 2):
        assert ask(kept, key, 1, made) == f"value {key}"
    assert made == [1, 2, 3, 2]


def test_all_together_stay_within_the_limit() -> None:
    kept: Kept[str] = Kept(16, most_bytes=100)
    made: list[int] = []
    for key in (1, 2, 1, 2):
        ask(kept, key, 50, made)
    assert made == [1, 2]
    ask(kept, 3, 51, made)
    ask(kept, 1, 50, made)
    assert made == [1, 2, 3, 1]


def test_the_last_one_is_kept_however_large() -> None:
    kept: Kept[str] = Kept(16, most_bytes=100)
    made: list[int] = []
    for _ in range(3):
        ask(kept, 1, 1000, made)
    assert made == [1]
