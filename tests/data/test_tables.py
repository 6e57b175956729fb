import json
from pathlib import Path

import pytest

from longtake.data.layouts import Source, list_sources
from longtake.data.tables import seconds_of
from longtake.errors import BadData, UnknownName


def sources(root: Path, **options) -> tuple[Source, ...]:
    return list_sources(root, **options).sources


def test_csv_in_a_folder_wins_over_the_folders_shape(tmp_path: Path) -> None:
    for name in ("a/1.mp4", "b/2.mp4", "b/3.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "metadata.csv").write_text('video,prompt\na/1.mp4,"a ball, red"\nb/2.mp4,\n')
    listing = list_sources(tmp_path)
    assert listing.layout == "L7"
    assert [(source.name, source.prompts) for source in listing.sources] == [
        ("a/1.mp4", ("a ball, red",)),
        ("b/2.mp4", ()),
    ]
    assert [source.path for source in listing.sources] == [tmp_path / "a/1.mp4", tmp_path / "b/2.mp4"]
    assert list_sources(tmp_path, layout="L1").layout == "L1"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_every_format_with_pieces_and_classes(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"path": "x.mp4", "caption": "one", "start": "0:00:01.5", "end": "4", "class": "dog"},
        {"path": "x.mp4", "caption": "two", "start": "", "end": "2.25", "class": "cat"},
        {"path": "y.mp4", "caption": "three", "start": "", "end": "", "class": "dog"},
    ]
    path = tmp_path / f"table{suffix}"
    if suffix in (".csv", ".tsv"):
        mark = "," if suffix == ".csv" else "\t"
        path.write_text("\n".join(mark.join(row) for row in ([*rows[0]], *(row.values() for row in rows))))
    else:
        path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)) + "\n\n")
    listing = list_sources(path)
    assert listing.classes == ("cat", "dog")
    assert [(s.prompts[0], s.start, s.end, s.label) for s in listing.sources] == [
        ("one", 1.5, 4.0, 1),
        ("two", None, 2.25, 0),
        ("three", None, None, 1),
    ]
    assert [s.name for s in listing.sources] == ["x.mp4[1.5-4]", "x.mp4[0-2.25]", "y.mp4"]


def test_files_may_lie_in_videos(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    (tmp_path / "t.jsonl").write_text('{"video": "a.mp4", "prompts": ["p", "q", "p"]}\n')
    (source,) = sources(tmp_path / "t.jsonl")
    assert source.path == tmp_path / "videos" / "a.mp4"
    assert source.prompts == ("p", "q")


def test_published_tables(tmp_path: Path) -> None:
    webvid, panda, intern, vtt = (tmp_path / name for name in ("webvid.csv", "panda.csv", "intern.jsonl", "vtt.json"))
    webvid.write_text("videoid,name,page_dir,duration\n21179416,Aerial shot,006001_006050,PT00H00M11S\n")
    (source,) = sources(webvid, columns={"table": "webvid"})
    assert (source.name, source.prompts) == ("006001_006050/21179416.mp4", ("Aerial shot",))
    panda.write_text(
        "videoID,timestamp,caption,matching_score\n"
        "abc,\"[['0:00:01.000', '0:00:04.500'], ['0:00:10', '0:00:12']]\",\"['first', 'second']\",\"[0.4, 0.5]\"\n"
    )
    pieces = sources(panda, columns={"table": "panda-70m"})
    assert [(p.name, p.prompts, p.start, p.end) for p in pieces] == [
        ("abc.mp4[1-4.5]", ("first",), 1.0, 4.5),
        ("abc.mp4[10-12]", ("second",), 10.0, 12.0),
    ]
    row = {"YoutubeID": "q", "Start_timestamp": "00:01:00.5", "End_timestamp": "00:01:02", "Caption": "c"}
    intern.write_text(json.dumps(row))
    (source,) = sources(intern, columns={"table": "internvid"})
    assert (source.path.name, source.start, source.end, source.prompts) == ("q.mp4", 60.5, 62.0, ("c",))
    vtt.write_text(
        json.dumps(
            {
                "videos": [{"video_id": "video0", "category": 9}],
                "sentences": [{"video_id": "video0", "caption": "x"}, {"video_id": "video0", "caption": "y"}],
            }
        )
    )
    (source,) = sources(vtt)
    assert (source.name, source.prompts) == ("video0.mp4", ("x", "y"))
    with pytest.raises(UnknownName, match="Did you mean 'webvid'"):
        sources(webvid, columns={"table": "webvd"})
    with pytest.raises(UnknownName, match="Did you mean 'prompt'"):
        sources(webvid, columns={"promt": "name"})


def test_own_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,folder,title\n7,f,seven\n")
    (source,) = sources(tmp_path / "t.csv", columns={"video": "{folder}/{id}.mp4", "prompt": "title"})
    assert (source.name, source.prompts) == ("f/7.mp4", ("seven",))
    with pytest.raises(BadData, match=r"no column 'video' \(it has id, folder, title\)"):
        sources(tmp_path / "t.csv")


def test_l8_two_lists(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\n\n")
    (tmp_path / "videos.txt").write_text("videos/1.mp4\nvideos/2.mp4\n")
    listing = list_sources(tmp_path)
    assert listing.layout == "L8"
    assert [(s.name, s.prompts, s.path) for s in listing.sources] == [
        ("videos/1.mp4", ("one",), tmp_path / "videos/1.mp4"),
        ("videos/2.mp4", ("two",), tmp_path / "videos/2.mp4"),
    ]
    (tmp_path / "prompts.txt").write_text("one\n")
    with pytest.raises(BadData, match=r"prompts\.txt has 1 lines and videos\.txt 2"):
        list_sources(tmp_path)


def test_bad_rows_are_listed_and_bad_tables_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("video,prompt,start\na.mp4,x,1\nb.mp4,y,soon\n,z,1\n")
    listing = list_sources(tmp_path / "t.csv")
    assert [source.name for source in listing.sources] == ["a.mp4[1-]"]
    assert [name for name, _ in listing.problems] == ["t.csv row 2", "t.csv row 3"]
    (tmp_path / "bad.jsonl").write_text('{"video": 1\n')
    with pytest.raises(BadData, match=r"bad\.jsonl cannot be read"):
        list_sources(tmp_path / "bad.jsonl")
    (tmp_path / "empty.csv").write_text("video,prompt\n")
    with pytest.raises(BadData, match="no rows"):
        list_sources(tmp_path / "empty.csv")
    (tmp_path / "other.csv").write_text("video,prompt\nc.mp4,x\n")
    with pytest.raises(BadData, match=r"several tables \(other\.csv, t\.csv\)"):
        list_sources(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{")
    with pytest.raises(BadData, match=r"metadata\.jsonl cannot be read"):
        list_sources(tmp_path)


def test_parquet_without_pyarrow_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadData, match=r"pyarrow|cannot be read"):
        list_sources(tmp_path / "t.parquet")


def test_times() -> None:
    assert [seconds_of(value) for value in (None, "", 3, "3.5", "1:02", "1:00:00.25")] == [
        None,
        None,
        3.0,
        3.5,
        62.0,
        3600.25,
    ]
    with pytest.raises(ValueError):
        seconds_of("soon")
