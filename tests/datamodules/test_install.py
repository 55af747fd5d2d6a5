"""Installing and verifying HAM10000, against a server and archives of a few tiny images."""

import hashlib
import io
import re
import shutil
import stat
import threading
import zipfile
from collections import Counter, namedtuple
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from datamodules import archives, download, install
from datamodules.download import Remote, fetch
from datamodules.errors import DataError
from datamodules.layout import IMAGE_FOLDERS, MASK_FOLDER, METADATA
from datamodules.verify import TEST, VAL, verify

IDS = ["ISIC_0024306", "ISIC_0029305", "ISIC_0029306"]
OWN = {IMAGE_FOLDERS[0]: IDS[:2], IMAGE_FOLDERS[1]: IDS[2:]}
TABLE = "lesion_id,image_id,dx,dx_type,age,sex,localization\n" + "".join(
    f"HAM_{i},{image},nv,histo,80.0,male,back\n" for i, image in enumerate(IDS)
)
ONE_HOT = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n{},0.0,1.0,0.0,0.0,0.0,0.0,0.0\n"


def picture(kind="JPEG"):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels if kind == "JPEG" else pixels[..., 0]).save(file, kind)
    return file.getvalue()


def archive(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def release(folder, official=False):
    """The released archives: flat or with a folder inside, with files that are not data."""
    junk = {"ATTRIBUTION.txt": "", "LICENSE.txt": "", f"__MACOSX/._{IDS[0]}.jpg": "x"}
    junk[f"__MACOSX/{IDS[0]}.jpg"] = "x"
    for part, ids in OWN.items():
        archive(folder / f"{part}.zip", {f"{image}.jpg": picture() for image in ids} | junk)
    masks = {f"{MASK_FOLDER}/{image}_segmentation.png": picture("PNG") for image in IDS}
    archive(folder / f"{MASK_FOLDER}.zip", masks | junk)
    (folder / METADATA).write_text(TABLE)
    if official:
        val, test = "ISIC_0034321", "ISIC_0034524"
        archive(folder / f"{VAL}_Input.zip", {f"{VAL}_Input/{val}.jpg": picture()} | junk)
        truth = {f"{VAL}_GroundTruth/{VAL}_GroundTruth.csv": ONE_HOT.format(val)}
        archive(folder / f"{VAL}_GroundTruth.zip", truth | junk)
        archive(folder / f"{TEST}_Images.zip", {f"{TEST}_Images/{test}.jpg": picture()} | junk)
        # The Dataverse's table has the format of the metadata and lists an image that is not there.
        rows = f"lesion_id,image_id,dx\nHAM_8,{test},mel\nHAM_9,ISIC_0035068,nv\n"
        (folder / f"{TEST}_GroundTruth.csv").write_text(rows)
    return folder


def below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


INSTALLED = sorted(
    [METADATA]
    + [f"{part}/{image}.jpg" for part, ids in OWN.items() for image in ids]
    + [f"{MASK_FOLDER}/{image}_segmentation.png" for image in IDS]
)
INSTALLED_OFFICIAL = sorted(
    [
        *INSTALLED,
        f"{VAL}_GroundTruth.csv",
        f"{VAL}_Input/ISIC_0034321.jpg",
        f"{TEST}_GroundTruth.csv",
        f"{TEST}_Input/ISIC_0034524.jpg",
    ]
)


class Server(ThreadingHTTPServer):
    """Serve ``files`` by path, with the errors that a test sets."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.seen = {}, []
        self.drops = 0  # number of answers that end half-way
        self.ranges = True
        self.errors = []  # status codes of the next answers

    def remote(self, name, content, checked=True):
        self.files[f"/{name}"] = content
        url = f"http://127.0.0.1:{self.server_port}/{name}"
        md5 = hashlib.md5(content).hexdigest()
        return Remote(name, url, len(content), md5) if checked else Remote(name, url)

    def asked(self):
        return Counter(path for path, _ in self.seen)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"]
        self.server.seen.append((self.path, asked))
        if self.server.errors:
            return self.send_error(self.server.errors.pop(0))
        if self.path.startswith("/moved/"):
            self.send_response(303)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = int(re.search(r"\d+", asked)[0]) if asked and self.server.ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = len(content)
        if self.server.drops:
            self.server.drops -= 1
            stop = start + (stop - start) // 2
        self.wfile.write(content[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF", 0)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """Let the server publish a release of three images, and ``install`` expect three."""
    folder = release(tmp_path / "published", official=True)
    remotes = {p.name: server.remote(p.name, p.read_bytes()) for p in folder.iterdir()}
    monkeypatch.setattr(install, "REMOTES", remotes)
    files = {**{part: len(ids) for part, ids in OWN.items()}, MASK_FOLDER: len(IDS)}
    for table in ("RELEASE", "OFFICIAL_RELEASE"):
        pieces = [replace(p, files=files.get(p.target, 1)) for p in getattr(install, table)]
        monkeypatch.setattr(install, table, tuple(pieces))
    return server


CONTENT = bytes(range(256)) * 40


def test_fetch(server, tmp_path, capsys):
    path = fetch(server.remote("a.zip", CONTENT), tmp_path)
    assert path.read_bytes() == CONTENT
    assert below(tmp_path) == ["a.zip"]
    assert "was not checked" not in capsys.readouterr().out


def test_fetch_says_what_it_cannot_check(server, tmp_path, capsys):
    fetch(server.remote("a.zip", CONTENT, checked=False), tmp_path)
    assert "a.zip was not checked by size or MD5" in capsys.readouterr().out


@pytest.mark.parametrize("checked", [True, False])
def test_fetch_resumes_where_the_connection_dropped(server, tmp_path, checked):
    server.drops = 10  # more than MAX_FAILURES, but every attempt brings some bytes
    path = fetch(server.remote("a.zip", CONTENT, checked), tmp_path)
    assert path.read_bytes() == CONTENT
    asked = [range for _, range in server.seen]
    assert asked[:3] == [None, f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]
    assert len(asked) == 11


def test_fetch_resumes_what_an_earlier_run_left(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    assert fetch(server.remote("a.zip", CONTENT), tmp_path).read_bytes() == CONTENT
    assert server.seen == [("/a.zip", "bytes=1000-")]


def test_fetch_needs_no_server_for_what_came_whole(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    remote = server.remote("a.zip", CONTENT)
    assert fetch(remote, tmp_path) == fetch(remote, tmp_path)
    assert server.seen == []


def test_fetch_starts_over_where_the_server_has_no_ranges(server, tmp_path):
    server.drops, server.ranges = 1, False
    assert fetch(server.remote("a.zip", CONTENT), tmp_path).read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_fetch_gives_up_where_starting_over_gets_nowhere(server, tmp_path):
    server.drops, server.ranges = 1000, False
    with pytest.raises(DataError, match=r"after 5,120 of 10,240 bytes\)\. Try again later"):
        fetch(server.remote("a.zip", CONTENT), tmp_path)
    assert len(server.seen) == download.MAX_FAILURES


def test_fetch_starts_over_where_the_part_is_longer_than_the_file(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT * 2)
    assert fetch(server.remote("a.zip", CONTENT), tmp_path).read_bytes() == CONTENT
    assert [range for _, range in server.seen] == [f"bytes={2 * len(CONTENT)}-", None]


def test_fetch_refuses_other_bytes(server, tmp_path):
    remote = server.remote("a.zip", CONTENT)
    server.files["/a.zip"] = CONTENT[::-1]
    with pytest.raises(DataError) as error:
        fetch(remote, tmp_path)
    assert remote.md5 in str(error.value)
    assert hashlib.md5(CONTENT[::-1]).hexdigest() in str(error.value)
    assert below(tmp_path) == []
    server.files["/a.zip"] = CONTENT
    assert fetch(remote, tmp_path).read_bytes() == CONTENT


def test_fetch_refuses_another_size(server, tmp_path):
    remote = replace(server.remote("a.zip", CONTENT), md5=None)
    server.files["/a.zip"] = CONTENT + b"more"
    with pytest.raises(DataError, match="10,244 bytes .* expected 10,240 bytes and any MD5"):
        fetch(remote, tmp_path)
    assert below(tmp_path) == []


def test_fetch_does_not_insist_on_404(server, tmp_path):
    remote = server.remote("a.zip", CONTENT)
    server.files.clear()
    with pytest.raises(DataError, match=r"a\.zip cannot be downloaded from http:.*404"):
        fetch(remote, tmp_path)
    assert len(server.seen) == 1
    assert below(tmp_path) == []


def test_fetch_insists_on_500(server, tmp_path):
    server.errors = [500, 503, 429]
    assert fetch(server.remote("a.zip", CONTENT), tmp_path).read_bytes() == CONTENT
    server.errors = [500] * download.MAX_FAILURES
    with pytest.raises(DataError, match="500"):
        fetch(server.remote("b.zip", CONTENT), tmp_path)


def test_fetch_reports_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DataError, match="Connection refused"):
        fetch(Remote("a.zip", "http://127.0.0.1:9/a.zip"), tmp_path)


def test_fetch_waits_longer_each_time(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download, "BACKOFF", 1)
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.errors = [500] * 3
    fetch(server.remote("a.zip", CONTENT), tmp_path)
    assert waits == [1, 2, 4]


def test_fetch_asks_the_original_address_when_it_resumes(server, tmp_path):
    remote = server.remote("a.zip", CONTENT)
    remote = replace(remote, url=remote.url.replace("/a.zip", "/moved/a.zip"))
    server.drops = 1
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.seen] == ["/moved/a.zip", "/a.zip"] * 2
    assert server.seen[-1] == ("/a.zip", "bytes=5120-")


def test_install_downloads(published, tmp_path, capsys):
    root = tmp_path / "root"
    install.install(root)
    assert below(root) == INSTALLED
    assert not (root / "downloads").exists()
    assert "CC BY-NC 4.0" in capsys.readouterr().out
    verify(root)
    install.install(root)
    assert set(published.asked().values()) == {1}


def test_install_downloads_the_official_sets(published, tmp_path, capsys):
    root = tmp_path / "root"
    install.install(root)
    install.install(root, official=True)
    assert below(root) == INSTALLED_OFFICIAL
    assert set(published.asked().values()) == {1}
    verify(root)
    assert f"1 images in {TEST}_Input; all of them are readable" in capsys.readouterr().out


def test_install_goes_on_after_an_interruption(published, tmp_path, monkeypatch):
    root = tmp_path / "root"

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupt)
        with pytest.raises(KeyboardInterrupt):
            install.install(root)
    assert below(root) == [f"downloads/{METADATA}"]
    install.install(root)
    assert below(root) == INSTALLED
    assert set(published.asked().values()) == {1}


def test_install_restores_what_was_removed(published, tmp_path):
    root = tmp_path / "root"
    install.install(root)
    (root / IMAGE_FOLDERS[0] / f"{IDS[0]}.jpg").unlink()
    install.install(root)
    verify(root)
    assert published.asked()[f"/{IMAGE_FOLDERS[0]}.zip"] == 2


def test_install_fetches_a_damaged_archive_again(published, tmp_path):
    root, name = tmp_path / "root", f"{MASK_FOLDER}.zip"
    whole = published.files[f"/{name}"]
    install.REMOTES[name] = published.remote(name, whole[:-30], checked=False)
    with pytest.raises(DataError, match="damaged"):
        install.install(root)
    published.remote(name, whole)
    install.install(root)
    assert below(root) == INSTALLED


@pytest.mark.parametrize("local", [True, False])
def test_install_wants_room_first(published, tmp_path, monkeypatch, local):
    usage = namedtuple("usage", "free")(10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    src = release(tmp_path / "src") if local else None
    with pytest.raises(DataError, match=r"needs .* GB"):
        install.install(tmp_path / "root", src)
    assert not (tmp_path / "root").exists()
    assert published.seen == []


def unpacked(src):
    for name in (*IMAGE_FOLDERS, MASK_FOLDER):
        with zipfile.ZipFile(src / f"{name}.zip") as file:
            file.extractall(src / "deep" / name)
        (src / f"{name}.zip").unlink()


def kaggle(src):
    unpacked(src)
    shutil.rmtree(src / "deep" / MASK_FOLDER)
    for part in IMAGE_FOLDERS:  # Kaggle has every image twice
        shutil.copytree(src / "deep" / part, src / part.lower())


def one_folder(src):
    unpacked(src)
    (src / "images").mkdir()
    for file in src.glob("deep/**/ISIC_*.*"):
        if "__MACOSX" not in file.parts:
            file.rename(src / "images" / file.name)
    shutil.rmtree(src / "deep")


def merged(src):
    unpacked(src)
    for file in (src / "deep" / IMAGE_FOLDERS[1]).glob("ISIC*.jpg"):
        file.rename(src / "deep" / IMAGE_FOLDERS[0] / file.name)


def below_folders(src):
    (src / "a" / "b").mkdir(parents=True)
    for file in src.glob("*.*"):
        file.rename(src / "a" / "b" / file.name)


def tab_separated(src, name="HAM10000_metadata.tab"):
    (src / METADATA).unlink()
    lines = [line.split(",") for line in TABLE.splitlines()]
    text = "\n".join("\t".join(f'"{value}"' for value in line) for line in lines)
    (src / name).write_text(text)


def without_extension(src):
    tab_separated(src, "HAM10000_metadata")


def as_released(src):
    pass


def upper_case(src):
    unpacked(src)
    for file in list(src.glob("deep/**/ISIC_*.*")):
        file.rename(file.with_suffix(file.suffix.upper()))


def linked(src):
    (src.parent / "elsewhere").mkdir()
    for file in list(src.iterdir()):
        file.rename(src.parent / "elsewhere" / file.name)
    (src / "link").symlink_to(src.parent / "elsewhere")
    (src.parent / "elsewhere" / "round").symlink_to(src)


def backslashes(src):
    for part, ids in OWN.items():
        with zipfile.ZipFile(src / f"{part}.zip", "w") as file:
            for image in ids:
                info = zipfile.ZipInfo("x")
                info.filename, info.create_system = f"{part}\\{image}.jpg", 0
                file.writestr(info, picture())


def downloaded_twice(src):
    for name in (f"{IMAGE_FOLDERS[0]}.zip", METADATA):
        file = src / name
        file.rename(file.with_stem(f"{file.stem} (1)"))


LAYOUTS = [
    downloaded_twice,
    upper_case,
    linked,
    backslashes,
    as_released,
    unpacked,
    one_folder,
    merged,
    below_folders,
    tab_separated,
    kaggle,
]


@pytest.mark.parametrize("layout", [*LAYOUTS, without_extension])
def test_install_takes_any_layout(tmp_path, layout, capsys):
    src, root = release(tmp_path / "src"), tmp_path / "root"
    layout(src)
    before = below(src)
    install.install(root, src)
    if layout is kaggle:
        assert below(root) == [name for name in INSTALLED if MASK_FOLDER not in name]
        note = f"Note: {src} and its subfolders contain neither {MASK_FOLDER} nor its archive"
        assert note in capsys.readouterr().out
    else:
        assert below(root) == INSTALLED
    assert (root / METADATA).read_text() == TABLE
    assert below(src) == before
    verify(root)


def test_install_takes_the_official_sets(tmp_path):
    src = release(tmp_path / "src", official=True)
    install.install(tmp_path / "root", src, official=True)
    assert below(tmp_path / "root") == INSTALLED_OFFICIAL
    verify(tmp_path / "root")


def test_install_takes_the_official_sets_under_the_names_of_isic(tmp_path):
    src = release(tmp_path / "src", official=True)
    (src / f"{VAL}_GroundTruth.zip").unlink()
    (src / f"{VAL}_GroundTruth.csv").write_text(ONE_HOT.format("ISIC_0034321"))
    (src / f"{TEST}_Images.zip").rename(src / f"{TEST}_Input.zip")
    truth = {f"{TEST}_GroundTruth.csv": ONE_HOT.format("ISIC_0034524")}
    (src / f"{TEST}_GroundTruth.csv").unlink()
    archive(src / f"{TEST}_GroundTruth.zip", truth)
    install.install(tmp_path / "root", src, official=True)
    assert below(tmp_path / "root") == INSTALLED_OFFICIAL
    verify(tmp_path / "root")


def test_install_names_what_src_lacks(tmp_path):
    src = release(tmp_path / "src")
    (src / f"{IMAGE_FOLDERS[1]}.zip").unlink()
    (src / METADATA).unlink()
    lacking = f"{METADATA}, {IMAGE_FOLDERS[1]}"
    with pytest.raises(DataError, match=f"contain neither {lacking} nor the archives: add them"):
        install.install(tmp_path / "root", src)
    (src / "archive.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="archive.zip is not a complete archive: download it again"):
        install.install(tmp_path / "root", src)
    assert not (tmp_path / "root").exists()
    with pytest.raises(DataError, match="does not exist"):
        install.install(tmp_path / "root", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["archive.zip", "dataverse_files.ZIP"])
@pytest.mark.parametrize("itself", [True, False])
def test_install_says_what_to_do_with_an_archive_of_archives(tmp_path, name, itself):
    src = release(tmp_path / "src")
    whole = {file.name: file.read_bytes() for file in src.iterdir()}
    shutil.rmtree(src)
    archive(src / name, whole)
    with pytest.raises(DataError, match=rf"unpack .*src/{name}, which contains HAM10000_.*set SRC"):
        install.install(tmp_path / "root", src / name if itself else src)


def test_install_names_the_metadata_that_the_challenge_lacks(tmp_path):
    src = release(tmp_path / "src")
    one_folder(src)
    (src / "images").rename(src / "ISIC2018_Task3_Training_Input")
    (src / METADATA).rename(src / "ISIC2018_Task3_Training_GroundTruth.csv")
    with pytest.raises(
        DataError,
        match=rf"training set of the ISIC challenge lacks the metadata: download {METADATA}",
    ):
        install.install(tmp_path / "root", src)


def test_install_again_does_nothing(tmp_path):
    src, root = release(tmp_path / "src"), tmp_path / "root"
    install.install(root, src)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    install.install(root, src)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix; other systems ignore the mode
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "member",
    [
        f"../{IDS[0]}.jpg",
        f"a/../../{IDS[0]}.jpg",
        f"/tmp/{IDS[0]}.jpg",
        f"C:/{IDS[0]}.jpg",
        f"C:{IDS[0]}.jpg",
        f"..\\{IDS[0]}.jpg",
        f"a\\..\\..\\{IDS[0]}.jpg",
        f"a/..\\..\\{IDS[0]}.jpg",
        f"\\\\server\\share\\{IDS[0]}.jpg",
        "../evil.txt",
        link(f"{IDS[0]}.jpg"),
    ],
)
def test_install_refuses_members_that_lead_outside(tmp_path, member):
    src = release(tmp_path / "src")
    archive(src / f"{IMAGE_FOLDERS[1]}.zip", {f"{IDS[2]}.jpg": picture(), member: "/etc/passwd"})
    name = getattr(member, "filename", member)
    with pytest.raises(DataError) as error:
        install.install(tmp_path / "root", src)
    assert f"{IMAGE_FOLDERS[1]}.zip has the member {name!r}" in str(error.value)
    assert not (tmp_path / "root").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def test_install_refuses_archives_that_unpack_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 10)
    with pytest.raises(DataError, match="would unpack to more than"):
        install.install(tmp_path / "root", release(tmp_path / "src"))


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    # Within the compressed bytes of the first image, so that the list of members stays valid.
    return content[:100] + bytes(255 - byte for byte in content[100:140]) + content[140:]


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_install_leaves_nothing_of_a_damaged_archive(tmp_path, damage):
    src, root = release(tmp_path / "src"), tmp_path / "root"
    path = src / f"{IMAGE_FOLDERS[0]}.zip"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(DataError, match=rf"{IMAGE_FOLDERS[0]}\.zip is damaged or incomplete"):
        install.install(root, src)
    assert not (root / IMAGE_FOLDERS[0]).exists()
    assert not list(root.glob("downloads/*"))
    path.write_bytes(whole)
    install.install(root, src)
    verify(root)


def test_install_refuses_an_archive_of_something_else(tmp_path):
    src = release(tmp_path / "src")
    archive(src / f"{MASK_FOLDER}.zip", {f"{IDS[0]}.jpg": picture()})
    with pytest.raises(DataError, match=f"contains no file of {MASK_FOLDER}"):
        install.install(tmp_path / "root", src)


def test_install_refuses_a_page_for_a_table(tmp_path):
    src = release(tmp_path / "src")
    (src / METADATA).write_text("<!DOCTYPE html>\n<title>Not found</title>\n")
    with pytest.raises(DataError, match="is not a table of images"):
        install.install(tmp_path / "root", src)
    assert not (tmp_path / "root" / METADATA).exists()


@pytest.fixture
def root(tmp_path):
    install.install(tmp_path / "root", release(tmp_path / "src", official=True), official=True)
    return tmp_path / "root"


def test_verify_counts(root, capsys):
    capsys.readouterr()
    verify(root)
    out = capsys.readouterr().out
    assert f"{root}: 3 images of 3 lesions, 3 masks in {MASK_FOLDER}" in out
    assert "Note: the release has 10,015 images of 7,470 lesions." in out


def test_verify_names_what_is_missing_broken_or_unexpected(root, capsys):
    (root / IMAGE_FOLDERS[1] / f"{IDS[2]}.jpg").unlink()
    (root / MASK_FOLDER / f"{IDS[0]}_segmentation.png").unlink()
    (root / f"{VAL}_Input" / "ISIC_0034321.jpg").unlink()
    (root / IMAGE_FOLDERS[0] / "notes.txt").touch()
    for name in ("Thumbs.db", ".DS_Store", f"._{IDS[0]}.jpg", "desktop.ini"):
        (root / IMAGE_FOLDERS[0] / name).touch()
        (root / MASK_FOLDER / name).touch()
    broken = root / IMAGE_FOLDERS[0] / f"{IDS[0]}.jpg"
    broken.write_bytes(truncated(broken.read_bytes()))
    mask = root / MASK_FOLDER / f"{IDS[1]}_segmentation.png"
    mask.write_bytes(truncated(mask.read_bytes()))
    shutil.copy(root / IMAGE_FOLDERS[0] / f"{IDS[1]}.jpg", root / IMAGE_FOLDERS[1])
    with pytest.raises(DataError, match="3 missing, 1 in two folders, 1 unexpected, 2 unreadable"):
        verify(root)
    out = capsys.readouterr().out
    assert f"Missing:\n  {IDS[2]}.jpg\n  {IDS[0]}_segmentation.png\n  ISIC_0034321.jpg\n" in out
    assert f"In two folders:\n  {IDS[1]}.jpg\n" in out
    assert f"Unexpected:\n  {IMAGE_FOLDERS[0]}/notes.txt\n" in out
    unreadable = rf"Unreadable:\n  {IMAGE_FOLDERS[0]}/{broken.name} \(.*truncated.*\)\n"
    assert re.search(rf"{unreadable}  {MASK_FOLDER}/{mask.name} \(.*truncated.*\)\n", out, re.I)


def test_verify_passes_over_what_systems_leave(root, capsys):
    for folder in (*IMAGE_FOLDERS, MASK_FOLDER, f"{VAL}_Input"):
        for name in (".DS_Store", "Thumbs.db", f"._{IDS[0]}.jpg", "desktop.ini"):
            (root / folder / name).touch()
        (root / folder / "__MACOSX").mkdir()
    verify(root)
    assert f"3 masks in {MASK_FOLDER}" in capsys.readouterr().out


def test_verify_takes_other_endings_and_counts_images_without_a_lesion(root, capsys):
    file = root / IMAGE_FOLDERS[0] / f"{IDS[0]}.jpg"
    file.rename(file.with_suffix(".JPG"))
    (root / METADATA).write_text(TABLE.replace("HAM_0", "").replace("HAM_1", ""))
    verify(root)
    out = capsys.readouterr().out
    assert "3 images of 3 lesions" in out
    assert "2 images have no lesion_id: each counts as a lesion of its own" in out


def test_verify_names_wrong_rows(root, capsys):
    rows = f"HAM_9,{IDS[0]},nv,,,,\nHAM_9,{IDS[1]},wart,,,,\n"
    (root / METADATA).write_text(TABLE + rows)
    with pytest.raises(DataError, match="2 in more than one row, 1 of an unknown class"):
        verify(root)
    out = capsys.readouterr().out
    assert f"Of an unknown class:\n  {IDS[1]} (wart)\n" in out


def test_verify_shows_twenty_names(root, capsys):
    for i in range(25):
        (root / IMAGE_FOLDERS[0] / f"ISIC_{i:07d}.jpg").write_bytes(picture())
    with pytest.raises(DataError, match="25 unexpected"):
        verify(root)
    out = capsys.readouterr().out
    assert "ISIC_0000019.jpg\n  ... and 5 more" in out
    assert "ISIC_0000020" not in out


def test_verify_misses_tables(root, tmp_path):
    (root / f"{TEST}_GroundTruth.csv").unlink()
    with pytest.raises(DataError, match="1 missing"):
        verify(root)
    with pytest.raises(DataError, match="is missing"):
        verify(tmp_path / "nowhere")
    (root / METADATA).write_text("lesion_id,image_id,dx\nHAM_1\n")
    with pytest.raises(DataError, match="damaged row"):
        verify(root)
