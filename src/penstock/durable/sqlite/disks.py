"""Refuses disks that cannot hold a journal: write-ahead logs need memory that processes share, which networks lack."""

import os
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from penstock.durable.store_errors import StoreError

NETWORK: Final[AbstractSet[str]] = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "vmhgfs"),
}
"""Types of file systems that other machines write to, as the kernel calls them."""

LOCAL_FUSE: Final[AbstractSet[str]] = {
    *("fuse.bindfs", "fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.mergerfs", "fuse.ntfs-3g"),
}
"""File systems served by a program that are known to keep their files on a local disk."""


def refuse_network_disk(path: str) -> None:
    """Raise `StoreError` if `path` lies on a network disk, as far as the system tells: Linux does.

    A file system that is served by a program (FUSE) counts as a network, unless its name says otherwise.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    kind = file_system(os.path.realpath(path), mounts)
    if kind in NETWORK or (kind.startswith("fuse.") and kind not in LOCAL_FUSE):
        raise StoreError(
            f"{path}: on a network disk ({kind}), where SQLite's write-ahead log and its locks do not work; "
            "put it on a local disk"
        )


def file_system(path: str, mounts: str) -> str:
    """Return the type of the file system that holds the absolute `path`, from `/proc/self/mountinfo`; "" if none."""
    longest, kind = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:  # noqa: PLR2004 -- the fifth is the place: see proc(5)
            continue
        place = _unescaped(fields[4]).rstrip("/")
        if len(place) >= longest and (path == place or path.startswith(f"{place}/")):  # the last of one place is on top
            longest, kind = len(place), after.split(" ")[0]
    return kind


def _unescaped(place: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        place = place.replace(code, char)
    return place
