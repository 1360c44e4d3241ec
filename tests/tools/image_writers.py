"""Images as other tools write them: import each, run it as root and as a user, and print a table in Markdown.

    python3 tests/tools/image_writers.py INVARLOCK USER

INVARLOCK is the built program, USER an account that can make user namespaces; run it as root. It needs busybox-static, and of podman,
buildah, skopeo and umoci what is there: the others are skipped by name. Layers of kaniko, ko and Nix are written here as those tools
write them: names with a leading slash; no directories, owners and times; a layer for each path of the store, read-only.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tarfile
import tempfile

BUSYBOX = pathlib.Path("/bin/busybox")
TEXT = b"written\n"
# What a run prints: a file of the image, and its arguments.
EXPECTED = "written\nargument\n"


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options).stdout


def member(name, data=None, mode=0o755, link=None, hard=False, mtime=0):
    """A file, a directory (`data` None) or a link."""
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = mode, mtime
    if link:
        info.type, info.linkname = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, link
    elif data is None:
        info.type = tarfile.DIRTYPE
    else:
        info.size = len(data)
    return info, data


def layer(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def blank_owners(tar):
    """The same layer with owners of spaces, as ko's library writes them for a file without an owner."""
    blocks = bytearray(tar)
    at = 0
    while at < len(blocks) and blocks[at]:
        size = int(blocks[at + 124 : at + 135].rstrip(b"\0 ") or b"0", 8)
        blocks[at + 108 : at + 124] = b" " * 16
        blocks[at + 148 : at + 156] = b" " * 8
        blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])
        at += 512 + -(-size // 512) * 512
    return bytes(blocks)


def busybox(root=""):
    return [
        member(f"{root}bin/busybox", BUSYBOX.read_bytes()), member(f"{root}bin/sh", link="busybox"),
        member(f"{root}etc/text", TEXT, 0o644),
    ]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def docker_archive(path, layers, config, name):
    """The archive of `docker save`."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": config,
         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(data)}" for data in layers]}}
    ).encode()
    names = [f"{sha256(data)}.tar" for data in layers]
    manifest = [{"Config": f"{sha256(config)}.json", "RepoTags": [name], "Layers": names}]
    files = [(f"{sha256(config)}.json", config), *zip(names, layers), ("manifest.json", json.dumps(manifest).encode())]
    path.write_bytes(layer(*(member(file, data, 0o644) for file, data in files)))
    return f"docker-archive:{path}"


def oci_layout(path, layers, config):
    """A layout with gzip layers."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        (blobs / sha256(data)).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{sha256(data)}", "size": len(data)}

    diff_ids = [f"sha256:{sha256(data)}" for data in layers]
    described = {"architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    stored = [blob(gzip.compress(data, mtime=0), "layer.v1.tar+gzip") for data in layers]
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": blob(json.dumps(described).encode(), "config.v1+json"), "layers": stored}
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (path / "index.json").write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{path}"


CONFIG = {"Entrypoint": ["/bin/sh", "-c", 'cat /etc/text; echo "$0"'], "Env": ["PATH=/bin"]}


def kaniko(place):
    root = [member("/", mode=0o755), member("/bin", mode=0o755), member("/etc", mode=0o755), *busybox("/")]
    applet = member("/bin/cat", link="/bin/busybox", hard=True)
    return docker_archive(place / "kaniko.tar", [layer(*root, applet), layer(member("/etc/.wh.none", b""))], CONFIG, "kaniko:1")


def ko(place):
    files = [member("ko-app/sh", BUSYBOX.read_bytes(), 0o555), member("etc/text", TEXT, 0o444), member("bin/cat", link="/ko-app/sh")]
    config = {**CONFIG, "Entrypoint": ["/ko-app/sh", "-c", CONFIG["Entrypoint"][2]], "User": "65532"}
    return oci_layout(place / "ko", [blank_owners(layer(*files))], config)


def nix(place):
    """A layer for each path, with the directories above it, everything read-only and from the second after the epoch."""
    def path(*members):
        above = [member(name, mode=0o555, mtime=1) for name in ("./nix", "./nix/store")]
        return layer(*above, *members)

    store = "./nix/store/00-busybox"
    programs = path(
        member(store, mode=0o555, mtime=1), member(f"{store}/bin", mode=0o555, mtime=1),
        member(f"{store}/bin/busybox", BUSYBOX.read_bytes(), 0o555, mtime=1),
        member(f"{store}/bin/sh", link="busybox", mode=0o777, mtime=1),
        member(f"{store}/bin/cat", link=f"{store}/bin/busybox", hard=True, mode=0o555, mtime=1),
    )
    text = path(member("./nix/store/01-text", TEXT, 0o444, mtime=1))
    links = layer(
        member("./bin", link="/nix/store/00-busybox/bin", mtime=1), member("./etc", mode=0o555, mtime=1),
        member("./etc/text", link="/nix/store/01-text", mtime=1),
    )
    others = [path(member(f"./nix/store/{number:02}-empty", b"", 0o444, mtime=1)) for number in range(2, 60)]
    return docker_archive(place / "nix.tar", [programs, text, *others, links], CONFIG, "nix:1")


def root_directory(place):
    root = place / "root"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in ("sh", "cat"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/text").write_bytes(TEXT)
    return root


def podman(place, form):
    tar = place / "root.tar"
    run("tar", "-C", root_directory(place), "-cf", tar, ".")
    changes = [f"--change=ENTRYPOINT {json.dumps(CONFIG['Entrypoint'])}", "--change=ENV PATH=/bin"]
    command = ["podman", "--root", place / "store", "--runroot", place / "run", "--storage-driver", "vfs"]
    run(*command, "import", "--quiet", *changes, tar, "podman:1")
    run(*command, "save", "--quiet", "--format", form, "-o", place / "saved.tar", "podman:1")
    return f"{form}:{place / 'saved.tar'}"


def buildah(place):
    command = ["buildah", "--root", place / "store", "--runroot", place / "run", "--storage-driver", "vfs"]
    container = run(*command, "from", "scratch").strip()
    run(*command, "copy", container, root_directory(place), "/")
    run(*command, "config", "--entrypoint", json.dumps(CONFIG["Entrypoint"]), "--env", "PATH=/bin", container)
    run(*command, "commit", "--quiet", container, f"oci-archive:{place / 'built.tar'}:buildah")
    return f"oci-archive:{place / 'built.tar'}"


def skopeo(place, to, *options):
    source = oci_layout(place / "source", [layer(member("bin"), member("etc"), *busybox(), member("bin/cat", link="busybox"))], CONFIG)
    name = ":skopeo:1" if to == "docker-archive" else ""
    run("skopeo", "--insecure-policy", "copy", "--quiet", *options, source, f"{to}:{place / 'copied'}{name}")
    return f"{to}:{place / 'copied'}"


def umoci(place):
    image = f"{place / 'layout'}:it"
    run("umoci", "init", "--layout", place / "layout")
    run("umoci", "new", "--image", image)
    run("umoci", "insert", "--image", image, root_directory(place), "/")
    words = [f"--config.entrypoint={word}" for word in CONFIG["Entrypoint"]]
    run("umoci", "config", "--image", image, *words, "--config.env=PATH=/bin")
    return f"oci:{place / 'layout'}"


WRITERS = [
    ("podman", "`podman save --format oci-archive`", lambda place: podman(place, "oci-archive")),
    ("podman", "`podman save --format docker-archive`", lambda place: podman(place, "docker-archive")),
    ("buildah", "`buildah commit`", buildah),
    ("skopeo", "`skopeo copy`, OCI layout with zstd", lambda place: skopeo(place, "oci", "--dest-compress-format=zstd", "--dest-compress")),
    ("skopeo", "`skopeo copy`, `docker save` format", lambda place: skopeo(place, "docker-archive")),
    ("umoci", "`umoci insert`", umoci),
    (None, "as kaniko", kaniko),
    (None, "as ko", ko),
    (None, "as Nix (`dockerTools`)", nix),
]


@contextlib.contextmanager
def of_user(user, directory):
    """Environment and identity of a user with a home of its own."""
    account = pwd.getpwnam(user)
    home = pathlib.Path(directory) / user
    (home / "run").mkdir(parents=True, mode=0o700)
    for path in (home, home / "run"):
        os.chown(path, account.pw_uid, account.pw_gid)
    identity = dict(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "INVARLOCK_STORE": str(home / "store")}
    yield dict(env=environment, **(identity if account.pw_uid else {}))


def version(tool):
    return run(tool, "--version").split("\n")[0].split(" version ")[-1].split(" ")[0]


def tried(invarlock, source, options):
    """What import and run say: two words for the table."""
    try:
        run(invarlock, "runtime", "image", "import", source, "it:1", **options)
    except subprocess.CalledProcessError as error:
        return "refused: " + error.stderr.strip().split("\n")[0]
    command = [invarlock, "runtime", "run", "it:1", "--", "argument"]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    return "runs" if ran.stdout == EXPECTED else f"imported; the run said {ran.stdout!r} {ran.stderr.strip()!r}"


def main():
    invarlock, user = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    print("| written by | import and run by root | by a user |\n|---|---|---|")
    good = True
    for tool, name, write in WRITERS:
        if tool and not shutil.which(tool):
            print(f"SKIPPED {name}: {tool} is not installed", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
            os.chmod(place, 0o755)
            source = write(pathlib.Path(place))
            run("chmod", "-R", "a+rX", place)
            found = []
            for account in ("root", user):
                with of_user(account, place) as options:
                    found.append(tried(invarlock, source, options))
            print(f"| {name}{', ' + version(tool) if tool else ''} | {' | '.join(found)} |", flush=True)
            good &= found == ["runs", "runs"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
