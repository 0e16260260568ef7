from ui.page.bench.view_updates import ViewUpdates


def test_news_tells_all_properties_of_what_has_changed_since_and_of_nothing_else() -> None:
    page = ViewUpdates()
    page.put("fold", "data", "1")
    page.put("fold", "stale", "no")
    page.put("norms", "data", "2")
    serial, news = page.since(0)
    assert news == {"fold": {"data": "1", "stale": "no"}, "norms": {"data": "2"}}
    assert page.since(serial) == (serial, {})
    page.put("fold", "stale", "yes")
    later, news = page.since(serial)
    assert later > serial
    assert news == {"fold": {"data": "1", "stale": "yes"}}
    assert page.since(serial) == (later, news)  # a second page that has seen as little is told the same


def test_a_control_is_moved_once_and_not_when_a_page_comes_in_later() -> None:
    page = ViewUpdates()
    page.put("target", "maximum", 6)
    page.move("target", 6)
    serial, news = page.since(0)
    assert news == {"target": {"maximum": 6, "value": 6}}
    page.put("target", "minimum", 2)
    assert page.since(serial)[1] == {"target": {"maximum": 6, "minimum": 2}}
    page.settle()
    assert page.since(0)[1] == {"target": {"maximum": 6, "minimum": 2}}


def test_a_plan_that_a_job_showed_while_no_page_asked_is_told_to_the_next_one() -> None:
    page = ViewUpdates()
    page.move("target", 6)
    page.move("plan", "found")
    page.move("search_amount", 5)
    page.settle("plan", "search_amount")  # a page comes in before any was told
    serial, news = page.since(0)
    assert news == {"plan": {"value": "found"}, "search_amount": {"value": 5}}
    page.settle("plan", "search_amount")  # its own reload: it was told
    assert page.since(0) == (serial, {})
