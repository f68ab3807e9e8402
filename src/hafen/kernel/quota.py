"""Project quotas: how much the files below a directory may take (quotactl(2), ioctl FS_IOC_FSSETXATTR).

ext4 (features `project` and `quota`, mount option `prjquota`) and XFS (`prjquota`). A directory has a project, which
new files in it inherit; the file system counts for each project. ext4 does not hold to limits who has CAP_SYS_RESOURCE;
containers have it only where they are given it.
"""

import ctypes
import fcntl
import struct
from ctypes import c_int, c_uint, c_void_p

from hafen.kernel.libc import oserror, system_call

# linux/quota.h, linux/dqblk_xfs.h
PRJQUOTA = 2
Q_SETQUOTA = 0x800008
Q_XGETQSTAT = 0x5805
QIF_BLIMITS = 1
FS_QUOTA_PDQ_ENFD = 1 << 5
_BLOCK = 1024  # QIF_DQBLKSIZE
# linux/fs.h
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
FS_XFLAG_PROJINHERIT = 0x200

_DQBLK = struct.Struct("=8QI4x")  # struct if_dqblk
_FSXATTR = struct.Struct("=5I8x")  # struct fsxattr: flags, extent size, extents, project, copy-on-write extent size

_quotactl_fd = system_call("quotactl_fd", c_uint, c_uint, c_int, c_void_p)


def is_enforced(directory: int) -> bool:
    """Whether the file system of the directory (a descriptor) holds projects to their limits. Needs Linux 5.14."""
    status = ctypes.create_string_buffer(128)  # struct fs_quota_stat; qs_flags is at 2
    if _quotactl_fd(directory, Q_XGETQSTAT << 8 | PRJQUOTA, 0, ctypes.addressof(status)) < 0:
        return False
    return bool(int.from_bytes(status.raw[2:4], "little") & FS_QUOTA_PDQ_ENFD)


def set_limit(directory: int, project: int, size: int) -> None:
    """`size` in bytes for all files of the project, 0 for no limit."""
    limit = -(-size // _BLOCK)
    block = ctypes.create_string_buffer(_DQBLK.pack(limit, limit, 0, 0, 0, 0, 0, 0, QIF_BLIMITS))
    if _quotactl_fd(directory, Q_SETQUOTA << 8 | PRJQUOTA, project, ctypes.addressof(block)) < 0:
        raise oserror("quotactl_fd")


def project(directory: int) -> int:
    """The directory's project; 0 is none."""
    return int(_FSXATTR.unpack(fcntl.ioctl(directory, FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))[3])


def set_project(directory: int, number: int) -> None:
    """Files and directories that are made in it from now on belong to the project."""
    flags, extent, extents, _, cow = _FSXATTR.unpack(fcntl.ioctl(directory, FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))
    changed = _FSXATTR.pack(flags | FS_XFLAG_PROJINHERIT, extent, extents, number, cow)
    fcntl.ioctl(directory, FS_IOC_FSSETXATTR, changed)
