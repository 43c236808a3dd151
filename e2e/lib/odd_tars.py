"""Writes tars that other tools stumble over, one of each kind, into a directory.

Usage: odd_tars.py DIRECTORY
"""

import gzip
import io
import os
import sys
import tarfile

TIME = 1_600_000_000


def member(name, content=b"", kind=tarfile.REGTYPE, link="", pax=None):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.linkname = link
    info.mtime = TIME
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.pax_headers = pax or {}
    return info, content


def archive(members, format=tarfile.PAX_FORMAT, headers=None):
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=format, encoding="utf-8", errors="surrogateescape", pax_headers=headers or {}
    ) as tar:
        top, _ = member("./", kind=tarfile.DIRTYPE)
        tar.addfile(top)
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def main():
    folder = sys.argv[1]

    def write(name, data):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)

    plain = archive([member("a", b"first"), member("b", b"second" * 5000)])
    write("trailing-zeros.tar", plain + bytes(1 << 20))
    half = len(plain) // 2
    write("gzip-members.tar.gz", gzip.compress(plain[:half]) + gzip.compress(plain[half:]) + gzip.compress(b""))
    write("gzip-padded.tar.gz", gzip.compress(plain) + bytes(4096))
    write("global-header.tar", archive([member("a", b"first")], headers={"comment": "0123456789abcdef"}))
    write(
        "newlines.tar",
        archive([member("a\nb", b"x"), member("c", b"y", pax={"SCHILY.xattr.user.note": "one\ntwo"})]),
    )
    write("not-utf-8.tar", archive([member(b"\xff\xfe-\x80".decode("utf-8", "surrogateescape"), b"x")], tarfile.GNU_FORMAT))
    write(
        "hard-link-first.tar",
        archive([member("link", kind=tarfile.LNKTYPE, link="target"), member("target", b"content")]),
    )
    write("contiguous.tar", archive([member("file", b"contiguous" * 100, kind=tarfile.CONTTYPE)]))
    write(
        "long-symlinks.tar",
        archive([member("l%d" % n, kind=tarfile.SYMTYPE, link="t" * n) for n in (100, 254, 255, 256, 1000, 4095)]),
    )
    write(
        "long-names.tar",
        archive([member("d/" * 200 + "f", b"deep"), member("n" * 255, b"long")]),
    )
    write("twice.tar", archive([member("a", b"first"), member("a", b"second"), member("a2", b"")]))
    write(
        "file-becomes-folder.tar",
        archive([member("a", b"file"), member("a", kind=tarfile.DIRTYPE), member("a/b", b"x")]),
    )
    write("leaves.tar", archive([member("../outside", b"x")]))
    write("leaves-by-link.tar", archive([member("link", kind=tarfile.LNKTYPE, link="../../etc/passwd")]))


main()
