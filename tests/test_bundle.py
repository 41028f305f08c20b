"""Evidence: what a bundle holds, that a changed one is caught at its place, and that a hostile one harms nobody."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
import zipfile
from collections.abc import Callable
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installation import World, call_main

from blocklist.bundle import collect as collecting
from blocklist.bundle.check import check
from blocklist.bundle.collect import collect
from blocklist.config import load
from blocklist.store.database import open_for_reading

LINES = [f"h{i}.example" for i in range(40)] + ["evil.example # <script>alert(1)</script>"] + ["last.example"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("evidence"))
    world.feed("a", LINES, title="List <b>A</b>", publisher="Publisher & \u202e Sons", contact="abuse@list.example")
    world.feed("b", b"evil.example\r\nother.example\r\n")
    world.feed("top", ["famous.example", "evil.example"], category="reference", action="inform")
    world.export("list")
    world.export("dns", "rpz")
    assert world.update().code == 0
    world.run("deny", "add", "evil.example", "--reason", "order <img src=x>\x1b[31m", "--ticket", "T-1")
    world.run("allow", "add", "secret-customer.example", "--reason", "nobody's business")
    assert world.run("export").code == 0
    return world


@pytest.fixture(scope="module")
def bundle(world: World) -> bytes:
    path = world.base / "evil.zip"
    ran = world.run("why", "evil.example", "--evidence", "-o", path, "--json")
    assert ran.code == 0, ran.text
    assert ran.json["evidence"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ran.json["evidence"]["head"] == world.run("events", "head").out.split()[0]
    return path.read_bytes()


def files_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: dict[str, bytes], *, manifest: bool = True) -> bytes:
    """A bundle of `files`; with its manifest made to fit, as a forger would."""
    files = dict(files)
    if manifest and "manifest.json" in files:
        told = json.loads(files["manifest.json"])
        told["files"] = [
            {"path": p, "bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()}
            for p, d in sorted(files.items())
            if p != "manifest.json"
        ]
        files["manifest.json"] = json.dumps(told).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def checked(data: bytes, tmp_path: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    path = tmp_path / "bundle.zip"
    path.write_bytes(data)
    ran = call_main("evidence", "check", path, "--json", *words)
    assert "unexpected" not in ran.err, ran.err
    return ran.code, [json.loads(line) for line in ran.out.splitlines()][:-1]


def fails(data: bytes, tmp_path: Path, *words: str) -> dict[str, str]:
    code, told = checked(data, tmp_path, *words)
    out: dict[str, str] = {}
    for t in told:
        if t["word"] == "fail":
            out[t["place"]] = out.get(t["place"], "") + t["text"] + "\n"
    assert (code == 1) == bool(out)
    return out


def test_a_bundle_holds_without_the_record(bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOCKLIST_CONFIG", "/nonexistent.toml")
    code, told = checked(bundle, tmp_path)
    assert code == 0, told
    ok = [t["place"] for t in told if t["word"] == "ok"]
    assert {"a, line 41", "b, line 1", "top, line 2", "rule 1", "events.json", "index.html", "list", "dns"} <= set(ok)
    assert [t["place"] for t in told if t["word"] == "note"] == ["head"]


def test_the_bytes_of_the_download_and_the_line_are_in_it(world: World, bundle: bytes) -> None:
    files = files_of(bundle)
    raw = (world.base / "feeds" / "a.txt").read_bytes()
    assert files[f"snapshots/{hashlib.sha256(raw).hexdigest()}"] == raw
    line = next(x for x in json.loads(files["proof.json"])["lines"] if x["feed"] == "a")
    assert raw[line["offset"] : line["offset"] + line["length"]].decode() == LINES[40]
    crlf = next(x for x in json.loads(files["proof.json"])["lines"] if x["feed"] == "b")
    assert (crlf["offset"], crlf["length"]) == (0, 12)


def test_the_same_record_and_time_give_the_same_bytes(world: World) -> None:
    answer = world.why("evil.example")
    config = load(world.config)
    made = [
        collect(open_for_reading(config.state), config.state, config.feeds, answer, made="2026-01-01T00:00:00Z").data
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_what_others_decided_is_not_told(bundle: bytes) -> None:
    files = files_of(bundle)
    assert not any(b"secret-customer" in data or b"business" in data for data in files.values())
    chain = json.loads(files["events.json"])
    assert [link["id"] for link in chain["links"]] == list(range(1, chain["links"][-1]["id"] + 1))
    assert any("event" not in link for link in chain["links"])


def test_heads_kept_elsewhere(world: World, bundle: bytes, tmp_path: Path) -> None:
    log = [json.loads(line) for line in world.run("events", "list", "--json").out.splitlines()]
    some = log[2]
    assert not fails(bundle, tmp_path, "--head", f"{some['id']}:{some['digest']}")
    assert "another digest" in fails(bundle, tmp_path, "--head", f"{some['id']}:{'0' * 64}")[f"head {some['id']}"]
    code, told = checked(bundle, tmp_path, "--head", f"999:{'0' * 64}")
    assert code == 0 and any(t["word"] == "note" and "not in the bundle" in t["text"] for t in told)
    assert not fails(bundle, tmp_path, "--sha256", hashlib.sha256(bundle).hexdigest())
    assert "another file" in fails(bundle, tmp_path, "--sha256", "0" * 64)["bundle.zip"]


# A forger who makes the manifest fit


def change(name: str, old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def step(files: dict[str, bytes]) -> None:
        assert old.encode() in files[name], files[name]
        files[name] = files[name].replace(old.encode(), new.encode())

    return step


def change_json(name: str, how: Callable[[Any], object]) -> Callable[[dict[str, bytes]], None]:
    def step(files: dict[str, bytes]) -> None:
        value = json.loads(files[name])
        how(value)
        files[name] = json.dumps(value).encode()

    return step


def snapshot(how: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    def step(files: dict[str, bytes]) -> None:
        name = f"snapshots/{hashlib.sha256(''.join(f'{x}' + chr(10) for x in LINES).encode()).hexdigest()}"
        files[name] = how(files[name])

    return step


def listing(value: Any, feed: str = "a") -> Any:
    return next(x for x in value["listings"] if x["feed"] == feed)


def line(value: Any, feed: str = "a") -> Any:
    return next(x for x in value["lines"] if x["feed"] == feed)


FORGED = [
    (snapshot(lambda data: data.replace(b"h1.", b"x1.")), "snapshots/", "not the download of a"),
    (snapshot(lambda data: data[:-3]), "snapshots/", "not the download of a"),
    (change_json("answer.json", lambda v: listing(v).update(text="evil.example")), "a, line 41", "another text"),
    (change_json("answer.json", lambda v: listing(v).update(line=40)), "a, line 40", "is not in proof.json"),
    (change_json("answer.json", lambda v: listing(v).update(snapshot="sha256:" + "0" * 64)), "a, line 41", "nothing"),
    (change_json("answer.json", lambda v: listing(v).update(since="2020-01-01T00:00:00Z")), "index.html", "altered"),
    (change_json("answer.json", lambda v: v.update(blocked=False)), "index.html", "altered"),
    (change_json("answer.json", lambda v: v["rules"][0].update(reason="none")), "rule 1", "reason"),
    (change_json("answer.json", lambda v: v["rules"][0].update(author="nobody")), "rule 1", "author"),
    (change_json("answer.json", lambda v: v["rules"][0].update(id=2)), "rule 2", "no event"),
    (change_json("answer.json", lambda v: v.update(query="good.example")), "manifest.json", "another question"),
    (change_json("proof.json", lambda v: line(v).update(sha256="0" * 64)), "a, line 41", "digest"),
    (change_json("proof.json", lambda v: line(v).update(length=5)), "a, line 41", "digest"),
    (change_json("proof.json", lambda v: line(v).update(at=10**9)), "a, line 41", "outside"),
    (change_json("proof.json", lambda v: line(v).update(at=-5)), "a, line 41", "outside"),
    (change_json("proof.json", lambda v: line(v).update(offset=0)), "a, line 41", "not 41"),
    (change_json("proof.json", lambda v: line(v).update(file="answer.json")), "a, line 41", "not where it must be"),
    (change_json("proof.json", lambda v: v["lines"].remove(line(v))), "a, line 41", "is not in proof.json"),
    (change_json("proof.json", lambda v: v["snapshots"][0].update(kept="lost")), "a, line 41", "could not be read"),
    (change_json("proof.json", lambda v: v["snapshots"][0].update(bytes=3)), "snapshots/", "not the download of a"),
    (change("events.json", "T-1", "T-2"), "event 5", "altered"),
    (change_json("events.json", lambda v: v["links"].pop(2)), "event 4", "taken out"),
    (change_json("events.json", lambda v: v["links"].pop()), "events.json", "cut off"),
    (change_json("events.json", lambda v: v["links"].reverse()), "event 5", "moved"),
    (change_json("events.json", lambda v: v.update(links=[])), "events.json", "cut off"),
    (change_json("events.json", lambda v: v["links"][3].update(previous="0" * 64)), "event 4", "altered"),
    (change_json("events.json", lambda v: v["links"][0].update(content="0" * 64)), "event 1", "both"),
    (change_json("manifest.json", lambda v: v.update(head="9:" + "0" * 64)), "events.json", "cut off"),
    (change_json("manifest.json", lambda v: v.update(format="blocklist-evidence/9")), "manifest.json", "this version"),
    (change_json("manifest.json", lambda v: v.update(made="2020-01-01T00:00:00Z")), "index.html", "altered"),
    (change("index.html", "is blocked", "is not blocked"), "index.html", "altered"),
    (change("index.html", "</body>", "<script>1</script></body>"), "index.html", "altered"),
]


@pytest.mark.parametrize(("forge", "place", "said"), FORGED, ids=range(len(FORGED)))
def test_a_forged_bundle_is_caught_at_its_place(
    bundle: bytes, tmp_path: Path, forge: Callable[[dict[str, bytes]], None], place: str, said: str
) -> None:
    files = files_of(bundle)
    forge(files)
    found = fails(packed(files), tmp_path)
    assert any(at.startswith(place) and said in text for at, text in found.items()), found


@pytest.mark.parametrize("key", ["version", "template"])
def test_the_page_of_another_version_is_only_noted(bundle: bytes, tmp_path: Path, key: str) -> None:
    files = files_of(bundle)
    change_json("manifest.json", lambda v: v.update({key: "9.9"}))(files)
    files["index.html"] += b"<p>laid out anew</p>"
    code, told = checked(packed(files), tmp_path)
    assert code == 0 and any(t["word"] == "note" and "another version" in t["text"] for t in told)


def test_a_wholly_forged_download_contradicts_the_log(bundle: bytes, tmp_path: Path) -> None:
    """Line, digest, answer, page and manifest all made to fit: the event of that time names other bytes."""
    files = {n: d for n, d in files_of(bundle).items() if not n.startswith("snapshots/")}
    raw = files_of(bundle)
    old = next(s["sha256"] for s in json.loads(files["proof.json"])["snapshots"] if s["feed"] == "a")
    forged = raw[f"snapshots/{old}"].replace(b"# <script>", b"# harmless")
    new = hashlib.sha256(forged).hexdigest()
    files |= {n: d for n, d in raw.items() if n.startswith("snapshots/") and old not in n}
    files[f"snapshots/{new}"] = forged
    text = next(x for x in forged.decode().splitlines() if x.startswith("evil"))
    change_json("answer.json", lambda v: listing(v).update(snapshot=f"sha256:{new}", text=text))(files)
    change_json("proof.json", lambda v: next(s for s in v["snapshots"] if s["feed"] == "a").update(sha256=new))(files)
    digest = hashlib.sha256(text.encode()).hexdigest()
    change_json(
        "proof.json", lambda v: line(v).update(snapshot=new, file=f"snapshots/{new}", sha256=digest, length=len(text))
    )(files)
    found = fails(packed(files), tmp_path)
    assert "another download was taken" in found["a"] and set(found) == {"a", "index.html"}


@pytest.mark.parametrize(
    "name", ["answer.json", "proof.json", "events.json", "index.html", "snapshots", "manifest.json"]
)
def test_a_file_that_is_missing_altered_or_put_in_is_named(bundle: bytes, tmp_path: Path, name: str) -> None:
    files = files_of(bundle)
    path = next(n for n in files if n.startswith(name))
    found = fails(packed({n: d for n, d in files.items() if n != path}, manifest=False), tmp_path)
    assert "missing" in found[path]
    if name != "manifest.json":
        altered = files[path][:-1] + b" "
        found = fails(packed({**files, path: altered}, manifest=False), tmp_path)
        assert path in found
    found = fails(packed({**files, "extra.txt": b"x"}, manifest=False), tmp_path)
    assert "put it in" in found["extra.txt"]


def test_an_excerpt_holds_only_the_cited_part(world: World, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    assert world.run("why", "evil.example", "--evidence", "--excerpt", "-o", path).code == 0
    files = files_of(path.read_bytes())
    parts = {n: d for n, d in files.items() if n.startswith("snapshots/")}
    assert parts and all(n.endswith(".part") for n in parts)
    mine = next(d for d in parts.values() if b"script" in d)
    assert mine == "\n".join(LINES[37:42]).encode() + b"\n" or mine == "\n".join(LINES[37:42]).encode()
    code, told = checked(path.read_bytes(), tmp_path)
    assert code == 0 and sum("only the cited part" in t["text"] for t in told) == 3
    name = next(n for n in parts if b"script" in parts[n])
    files[name] = files[name].replace(b"script", b"strips")
    assert "a, line 41" in fails(packed(files), tmp_path)


def test_large_downloads_go_in_only_in_part(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(collecting, "MAX_WHOLE", 100)
    path = tmp_path / "x.zip"
    assert world.run("why", "evil.example", "--evidence", "-o", path).code == 0
    names = [n for n in files_of(path.read_bytes()) if n.startswith("snapshots/")]
    assert sum(n.endswith(".part") for n in names) == 1 and len(names) == 3
    assert not fails(path.read_bytes(), tmp_path)


def test_a_long_log_leaves_out_what_does_not_matter(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(collecting, "MAX_LINKS", 2)
    path = tmp_path / "x.zip"
    assert world.run("why", "evil.example", "--evidence", "-o", path).code == 0
    code, told = checked(path.read_bytes(), tmp_path)
    assert code == 0 and any(t["word"] == "note" and "left out" in t["text"] for t in told)
    chain = json.loads(files_of(path.read_bytes())["events.json"])
    assert not chain["complete"] and len(chain["links"]) < 9


def test_a_lost_download_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", ["evil.example"])
    world.export("list")
    world.update()
    for path in (world.state / "snapshots").rglob("*.zst"):
        path.unlink()
    out = tmp_path / "x.zip"
    assert world.run("why", "evil.example", "--evidence", "-o", out).code == 0
    code, told = checked(out.read_bytes(), tmp_path)
    assert code == 0 and any(t["word"] == "note" and "only digest and times" in t["text"] for t in told)
    assert b"could not be read any more" in files_of(out.read_bytes())["index.html"]


def test_what_nobody_lists_has_a_bundle_too(world: World, tmp_path: Path) -> None:
    for what in ("nowhere.example", "192.0.2.0/24", "https://nowhere.example/x?y=<b>"):
        out = tmp_path / f"{len(what)}.zip"
        if "<" in what:
            assert world.run("why", what, "--evidence", "-o", out).code == 2
            continue
        assert world.run("why", what, "--evidence", "-o", out).code == 0
        assert not fails(out.read_bytes(), tmp_path)
        assert b"No feed lists it" in files_of(out.read_bytes())["index.html"]


# Hostile text


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_no_script_no_link_and_shows_hostile_text_as_text(bundle: bytes) -> None:
    html = files_of(bundle)["index.html"].decode()
    page = Tags()
    page.feed(html)
    assert not page.tags & {"script", "img", "a", "link", "iframe", "object", "base", "form", "b", "svg"}
    assert not [a for a in page.attributes if a[0].startswith("on") or a[0] in ("src", "href", "style")]
    assert "evil.example # <script>alert(1)</script>" in page.text and "order <img src=x>\\x1b[31m" in page.text
    assert "List <b>A</b>" in page.text and "\\u202e" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)
    assert "default-src 'none'" in html and not re.search(r"url\(|@import|https?://", html)


def test_every_json_file_is_ascii(bundle: bytes) -> None:
    files = files_of(bundle)
    assert all(data.isascii() for name, data in files.items() if name.endswith(".json"))


# Hostile files


def test_a_bundle_is_never_written_over(world: World, bundle: bytes) -> None:
    ran = world.run("why", "evil.example", "--evidence", "-o", world.base / "evil.zip")
    assert ran.code == 1 and "never written over" in ran.err and "-o" in ran.err
    assert (world.base / "evil.zip").read_bytes() == bundle
    ran = world.run("why", "evil.example", "--evidence", "-o", world.base / "nowhere" / "x.zip")
    assert ran.code == 1 and "No such file" in ran.err
    assert world.run("why", "evil.example", "--excerpt").code == 2


def test_without_a_name_the_file_says_of_what_and_when(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert world.run("why", "https://evil.example/../x", "--evidence").code == 0
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"evidence-evil\.example_\.\._x-\d{8}T\d{6}Z\.zip", path.name)


JSON = ("manifest.json", "answer.json", "proof.json", "events.json")
NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no whole zip file"),
        (b"no zip", "no whole zip file"),
        (packed({}), ""),
        (packed({"x": b"y"}), "no bundle of evidence"),
        (
            packed(dict.fromkeys(JSON, NESTED), manifest=False),
            "",
        ),
        (
            packed(dict.fromkeys(JSON, b"\xff"), manifest=False),
            "",
        ),
        (
            packed(dict.fromkeys(JSON, b"null"), manifest=False),
            "",
        ),
        (packed({f"f{i}": b"" for i in range(3000)}), "more files"),
    ],
    ids=range(8),
)
def test_a_file_that_is_no_bundle_is_refused_in_words(data: bytes, said: str, tmp_path: Path) -> None:
    found = fails(data, tmp_path)
    assert data == packed({}) or any(said in text for text in found.values()), found


def test_no_such_file(tmp_path: Path) -> None:
    ran = call_main("evidence", "check", tmp_path / "none.zip")
    assert ran.code == 1 and "No such file" in ran.err


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.zip")
    ran = call_main("evidence", "check", tmp_path / "x.zip")
    assert ran.code == 1 and "is a pipe, not a file" in ran.err


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(11):
            with archive.open(f"f{i}", "w") as file:
                for _ in range(200):
                    file.write(bytes(1_000_000))
    assert any("more files or bytes" in text for text in fails(out.getvalue(), tmp_path).values())


def test_names_of_a_hostile_archive_reach_no_terminal_and_no_disk(bundle: bytes, tmp_path: Path) -> None:
    data = packed({**files_of(bundle), "../../\x1b[31mx": b"x"}, manifest=False)
    (tmp_path / "bundle.zip").write_bytes(data)
    ran = call_main("evidence", "check", tmp_path / "bundle.zip")
    assert ran.code == 1 and "\x1b" not in ran.out and "\\x1b[31mx" in ran.out
    assert [p.name for p in tmp_path.iterdir()] == ["bundle.zip"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_no_bytes_whatever_bring_the_check_down(bundle: bytes, tmp_path: Path, data: st.DataObject) -> None:
    harmed = bytearray(bundle)
    for _ in range(data.draw(st.integers(1, 6))):
        harmed[data.draw(st.integers(0, len(harmed) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "harmed.zip"
    path.write_bytes(bytes(harmed))
    told = list(check(path, sha256=hashlib.sha256(bundle).hexdigest()))
    assert (bytes(harmed) == bundle) or told[0].word == "fail"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_no_json_whatever_brings_the_check_down(bundle: bytes, tmp_path: Path, data: st.DataObject) -> None:
    files = files_of(bundle)
    name = data.draw(st.sampled_from(["manifest.json", "answer.json", "proof.json", "events.json"]))
    value = json.loads(files[name])
    at = value
    while isinstance(at, dict | list) and at:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            at[key] = data.draw(values)
            break
        at = at[key]
    files[name] = json.dumps(value).encode()
    path = tmp_path / "harmed.zip"
    path.write_bytes(packed(files, manifest=name != "manifest.json"))
    assert list(check(path))


def test_a_bundle_of_the_past_proves_what_is_listed_no_more(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("alpha", ["evil.example", "other.example"], publisher="Then & Co.")
    world.export("dns", "rpz")
    assert world.update("--no-verify").code == 0
    ((then,),) = world.rows("SELECT published FROM release")
    time.sleep(1.1)
    world.lines("alpha", ["other.example"])
    world.set("gates", max_change=1.0)
    assert world.update("--no-verify").code == 0
    assert not world.why("evil.example")["blocked"]
    ran = world.run("why", "evil.example", "--at", then, "--evidence", "-o", tmp_path / "then.zip")
    told = datetime.fromisoformat(then).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert ran.code == 0 and f"as of {told}:" in ran.out, ran.text
    # What the screen tells means the same when it is typed.
    assert world.run("why", "evil.example", "--at", told).out.startswith(f"as of {told}:\nevil.example is blocked")
    checked = world.run("evidence", "check", tmp_path / "then.zip")
    assert checked.code == 0 and "0 failed" in checked.out, checked.text
    with zipfile.ZipFile(tmp_path / "then.zip") as bundle:
        answer = json.loads(bundle.read("answer.json"))
        assert answer["at"] == then and answer["blocked"] and answer["listings"][0]["line"] == 1
        assert [s["publisher"] for s in json.loads(bundle.read("proof.json"))["sources"]] == ["Then & Co."]
        assert b"evil.example\nother.example\n" in [bundle.read(n) for n in bundle.namelist()]
