from ui.page.bench.news import News


def test_news_tells_all_properties_of_what_has_changed_since_and_of_nothing_else() -> None:
    page = News()
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
