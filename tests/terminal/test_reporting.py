"""Reports in the terminal, in each language and with other plans; and where output goes."""

import json
import os
import re
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest

from engine.methods.depth.baselines import plan_of_kept
from engine.plans.files import plan_to_json
from tests.answers import Answer, assert_refused
from tests.families import TEXTS, save_tiny
from ui.terminal.options import write_text


def test_a_report_comes_in_korean_with_other_plans_beside_it(inside: Callable[..., Answer], tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "report.html"
    texts.write_text("\n".join(TEXTS), encoding="utf-8")
    for name, depth, kept in (("plan", 6, (0, 1, 2, 5)), ("three", 6, (0, 2, 5)), ("deep", 8, (0, 1))):
        (tmp_path / f"{name}.json").write_text(json.dumps(plan_to_json(plan_of_kept(depth, kept, "bi"))), encoding="utf-8")
    on = ("--model", save_tiny(tmp_path / "tiny", "llama"), "--text", texts, "--tokens", 60)
    report = ("report", "--plan", tmp_path / "plan.json", *on, "--no-writing", "--no-speed", "--out", out)
    inside(*report, "--beside", tmp_path / "three.json", "--language", "ko")
    page = out.read_text(encoding="utf-8")
    drawn = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])["cost"]["points"]
    judged = inside("evaluate", "--plan", tmp_path / "three.json", *on).json["perplexity"]
    assert [(point["label"], point["depth"]) for point in drawn] == [(None, 4), ("three", 3)]
    assert drawn[1]["ratio"] == pytest.approx(judged["ratio"], rel=1e-5)
    assert '<html lang="ko">' in page
    assert_refused(inside(*report, "--language", "fr"), "'fr'", "en, ko")
    assert_refused(inside(*report, "--beside", tmp_path / "deep.json"), "a model of 8 layers", "has 6")


def test_an_answer_goes_where_a_link_leads_and_into_a_pipe_as_it_is(tmp_path: Path) -> None:
    link, pipe, file, null = (tmp_path / name for name in ("link", "pipe", "file", "null"))
    link.symlink_to("file")
    null.symlink_to(os.devnull)
    os.mkfifo(pipe)
    for text in ("first", "second"):
        write_text(text, link)
        write_text(text, null)
        with ThreadPool(1) as pool:
            read = pool.apply_async(pipe.read_text)
            write_text(text, pipe)
            assert (file.read_text(), read.get(20)) == (text, text)
    assert (link.is_symlink(), pipe.is_fifo(), null.is_char_device()) == (True, True, True)
    assert {path.name for path in tmp_path.iterdir()} == {"link", "pipe", "file", "null"}
