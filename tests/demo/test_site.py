from __future__ import annotations

from urllib.parse import urljoin

from wit_builder.demo import site
from wit_builder.demo.faults import FAULTS, Fault


def test_the_web_is_a_function_of_its_settings(settings, plan):
    """Planning again gives the same addresses, texts and pages; another seed another web."""
    again = site.plan(settings)
    assert again == plan
    assert [p.html() for p in again.pages.values()] == [p.html() for p in plan.pages.values()]
    other = site.plan(site.Settings(settings.data, 8, settings.concepts, settings.variants))
    assert set(other.pictures) != set(plan.pictures)


def test_every_fault_occurs(plan):
    """Even a small web misbehaves in every way of the table, and mostly behaves."""
    found = [p.fault for p in plan.pictures.values()]
    assert set(found) == {*FAULTS, Fault.NONE}
    assert found.count(Fault.NONE) > len(found) / 2


def test_every_figure_leads_to_a_picture(plan):
    """However an author spells an address, it is one of the plan's."""
    shown = {
        urljoin(page.url, figure.src) for page in plan.pages.values() for figure in page.figures
    }
    assert shown == set(plan.pictures)


def test_every_link_between_pages_leads_to_a_page(plan):
    """From every seed all galleries of its site are reached."""
    for page in plan.pages.values():
        assert {urljoin(page.url, link.href) for link in page.links} <= set(plan.pages)
    for host in site.DOMAINS:
        front = plan.pages[f"http://{host}/"]
        reached = {urljoin(front.url, link.href) for link in front.links} | {front.url}
        assert reached == {url for url, page in plan.pages.items() if page.host == host}


def test_half_of_the_domains_are_live(plan):
    """Each domain is crawled live or archived, not both."""
    assert sorted(site.live_hosts() + site.archived_hosts()) == sorted(site.DOMAINS)
    assert set(site.seeds()) <= set(plan.pages)


def test_some_pages_of_each_half_opt_out(plan):
    """A page says noai in its HTML or by header, among the live ones and in the archive."""
    for half in (site.live_hosts(), site.archived_hosts()):
        assert {p.no_ai for p in plan.pages.values() if p.host in half} == {"", "meta", "header"}
    for page in plan.pages.values():
        assert (b"noai" in page.html().lower()) == (page.no_ai == "meta")
        assert ("X-Robots-Tag" in page.headers()) == (page.no_ai == "header")


def test_one_word_is_in_half_of_the_texts(plan):
    """The word "drawing" is far over any cap that the concepts' own names stay under."""
    alts = [f.alt or "" for page in plan.pages.values() for f in page.figures]
    share = sum("drawing" in alt.lower() for alt in alts) / len(alts)
    assert 0.4 < share < 0.65


def test_forbidden_pictures_are_forbidden(plan):
    """What is called forbidden stands below a path that its host's robots.txt names."""
    for url, picture in plan.pictures.items():
        status, text = site.robots(url.split("/")[2])
        forbidden = status == 200 and "/members/" in url
        assert forbidden == (picture.fault is Fault.FORBIDDEN)
        assert ("Disallow: /members/" in text) == (status == 200)


def test_a_twin_has_the_look_of_a_sibling_on_another_host(plan):
    """The same bytes stand under two addresses."""
    twins = [p for p in plan.pictures.values() if p.fault is Fault.TWIN]
    for twin in twins:
        siblings = [
            p
            for p in plan.pictures.values()
            if p.concept == twin.concept and p.look == twin.look and p.fault is Fault.NONE
        ]
        assert siblings
        assert siblings[0].url.split("/")[2] != twin.url.split("/")[2]
