"""A changed ledger makes the chapter that draws it stale, and no other."""

from test_papermill_chapters import pc


def test_ledger_is_an_ingredient_only_of_chapters_that_draw_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pc, "PACKAGE", tmp_path / "package")
    for name in ("chapters", "profiles", "results", "package"):
        (tmp_path / name).mkdir()
    (tmp_path / "profiles/quick.yaml").write_text("common: {}\n")
    draws = tmp_path / "chapters/01_draws.py"
    draws.write_text('# %%\nprint(open("../results/a.json").read())\n')
    other = tmp_path / "chapters/02_other.py"
    other.write_text("# %%\nprint(1)\n")

    def seen():
        return [pc.ingredients(c, "quick") for c in (draws, other)]

    before = seen()
    (tmp_path / "results/a.json").write_text("{}")
    after = seen()
    assert before[0] != after[0]
    assert before[1] == after[1]
