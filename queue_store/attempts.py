"""Which transactions are open: a memory-mapped table of slots that survives a killed process.

The pages belong to the kernel, so what was written is there when the process is not, with no call made; it is not
there after a power cut. The header therefore names the boot of the kernel that the slots were written under, and they
are believed under no other. Little endian:

    header, in the first 4096 octets
      8  magic "MTACTLAT"   4  version   4  octets in a slot   36  boot id, as text; zeros: never believed
    slot, 256 octets
      1  state: 0 free, 1 open, 2 the end of the message is being written, 3 the outcome is here
      1  outcome, 0 a deferral
      1  flags: 1 after stop, 2 a transaction began, 4 uncertain
      1  length of the peer
      4  attempt            8  recipient id     8  message id      8  at, µs      8  due, µs
      2  code, -1 none      1  length of the reply                 1  spare
      60  peer, UTF-8       148  reply, UTF-8; both are cut to what fits
      4  CRC-32 of octets 1 to 251, once the outcome is here

A process can die between any two instructions. The state is one octet, written last when a slot fills and first when
it is freed; the fields that a state does not speak for may hold anything. The campaign is not in the slot: the index
has it by recipient id, and a second copy could only disagree.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from queue_store.errors import StoreError, StoreFull
from queue_store.failpoints import ARMED, reach
from queue_store.records import Outcome, Settlement

__all__ = ["PEER_LIMIT", "REPLY_LIMIT", "AttemptLog", "OpenAttempt", "is_attempt_log"]

_MAGIC = b"MTACTLAT"
_VERSION = 2
_HEADER = struct.Struct("<8sII36s")
_HEADER_SIZE = 4096
_SLOT_SIZE = 256
_FIRST_SLOTS = 8192  # 2 MiB

_BEGIN = struct.Struct("<IQ")  # from octet 4 of the slot on
_ID = struct.Struct("<Q")  # from octet 8 on
_FACTS = struct.Struct("<BBB")  # outcome, flags, length of the peer; from octet 1 on
_REST = struct.Struct("<QqqhBx60s148s")  # from octet 16 on

PEER_LIMIT = 60
REPLY_LIMIT = 148

_SUM = struct.Struct("<I")

_FREE, _OPEN, _ENDING, _DONE = range(4)
_IN_USE = re.compile(rb"[\x01-\x03]")
_NOT_FREE = re.compile(rb"[^\x00]")
_DEFERRAL = 0
_AFTER_STOP = 1
_BEGAN = 2
_UNCERTAIN = 4

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NO_BOOT = b"\0" * 36


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """A transaction that had begun when the process died. `ending`: the end of the message was being written, or had
    been. `settlement` is there when the outcome was known; its campaign is "" (the index knows), its `slot` is set,
    peer and reply may be cut.
    """

    slot: int
    recipient_id: int
    attempt: int
    ending: bool
    settlement: Settlement | None


class AttemptLog:
    """Which transactions are open, in a memory-mapped table of slots that survives a killed process.

    Pure memory writes, under a microsecond or two each; called in the tick of the write that they speak of. `trusted`
    says that the slots were written under this boot of the kernel. Order: `recover`, then `clear`, then the rest.
    `free` may be called from any thread, all else from one.
    """

    trusted: bool

    def __init__(self, path: Path) -> None:
        """Open or create the file, with all its blocks allocated. Raises StoreFull, OSError."""
        self._path = path
        self._boot = _read_boot_id()
        self._free: list[int] = []
        self._cleared = False
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._slots = max(_FIRST_SLOTS, (os.fstat(self._fd).st_size - _HEADER_SIZE) // _SLOT_SIZE)
            self._allocate(self._slots)
            if ARMED:
                reach("attempts-allocated")
            self._map = mmap.mmap(self._fd, _HEADER_SIZE + self._slots * _SLOT_SIZE)
        except BaseException:
            os.close(self._fd)
            raise
        header = _HEADER.unpack_from(self._map, 0)
        self.trusted = self._boot != _NO_BOOT and header == (_MAGIC, _VERSION, _SLOT_SIZE, self._boot)

    def recover(self) -> list[OpenAttempt]:
        """Give the slots that are not free; nothing when they can't be trusted."""
        if not self.trusted:
            return []
        return [self._read(found.start(), found[0][0]) for found in _IN_USE.finditer(self._states())]

    def begin(self, recipient_id: int, attempt: int) -> int:
        """Note that a transaction for the recipient begins now; return its slot. Raises StoreFull if it can't grow."""
        free = self._free
        if not free:
            self._grow()
        slot = free.pop()
        at = _HEADER_SIZE + slot * _SLOT_SIZE
        _BEGIN.pack_into(self._map, at + 4, attempt, recipient_id)
        if ARMED:
            reach("slot-begun")
        self._map[at] = _OPEN
        if ARMED:
            reach("slot-open")
        return slot

    def ending(self, slot: int) -> None:
        """Note that the end of the message is about to be written: from here on a lost connection means unknown."""
        self._map[_HEADER_SIZE + slot * _SLOT_SIZE] = _ENDING
        if ARMED:
            reach("slot-ending")

    def outcome(self, slot: int, settlement: Settlement) -> None:
        """Note how the transaction ended, before it is settled in a commit. Raises ValueError on another's slot."""
        at = _HEADER_SIZE + slot * _SLOT_SIZE
        if _ID.unpack_from(self._map, at + 8)[0] != settlement.recipient_id:
            raise ValueError(f"slot {slot} is not of recipient {settlement.recipient_id}")
        peer = settlement.peer.encode("utf-8", "replace")[:PEER_LIMIT]
        reply = settlement.reply.encode("utf-8", "replace")[:REPLY_LIMIT]
        _REST.pack_into(
            self._map,
            at + 16,
            settlement.message_id,
            settlement.at,
            settlement.due,
            -1 if settlement.code is None else settlement.code,
            len(reply),
            peer,
            reply,
        )
        if ARMED:
            reach("slot-reply-written")
        flags = (
            (_AFTER_STOP if settlement.after_stop else 0)
            | (_BEGAN if settlement.began else 0)
            | (_UNCERTAIN if settlement.uncertain else 0)
        )
        _FACTS.pack_into(
            self._map, at + 1, _DEFERRAL if settlement.outcome is None else settlement.outcome, flags, len(peer)
        )
        _SUM.pack_into(self._map, at + _SLOT_SIZE - 4, zlib.crc32(self._map[at + 1 : at + _SLOT_SIZE - 4]))
        if ARMED:
            reach("slot-outcome-written")
        self._map[at] = _DONE
        if ARMED:
            reach("slot-done")

    def free(self, slot: int) -> None:
        """Let go of a slot whose outcome is durable. Freeing it again is nothing."""
        at = _HEADER_SIZE + slot * _SLOT_SIZE
        if self._map[at] == _FREE:
            return
        self._map[at] = _FREE
        if ARMED:
            reach("slot-freed")
        self._free.append(slot)

    def clear(self) -> None:
        """Free all slots, once what they told is durable, and believe them from now on under this boot."""
        for found in _NOT_FREE.finditer(self._states()):
            self._map[_HEADER_SIZE + found.start() * _SLOT_SIZE] = _FREE
            if ARMED:
                reach("attempts-slot-cleared")
        if ARMED:
            reach("attempts-cleared")
        # A process that dies within this write leaves a header that fits no boot: not believed, which errs to be safe.
        _HEADER.pack_into(self._map, 0, _MAGIC, _VERSION, _SLOT_SIZE, self._boot)
        if ARMED:
            reach("attempts-named")
        self._free[:] = range(self._slots - 1, -1, -1)  # the lowest first: few pages are in use
        self._cleared = True
        self.trusted = self._boot != _NO_BOOT

    def close(self) -> None:
        """Let go of the file. What the slots say stays."""
        self._map.close()
        os.close(self._fd)

    def _states(self) -> bytes:
        return self._map[_HEADER_SIZE : _HEADER_SIZE + self._slots * _SLOT_SIZE : _SLOT_SIZE]

    def _read(self, slot: int, state: int) -> OpenAttempt:
        at = _HEADER_SIZE + slot * _SLOT_SIZE
        attempt, recipient_id = _BEGIN.unpack_from(self._map, at + 4)
        settlement = None
        if state == _DONE and self._fits(at):
            outcome, flags, peer_length = _FACTS.unpack_from(self._map, at + 1)
            message_id, moment, due, code, reply_length, peer, reply = _REST.unpack_from(self._map, at + 16)
            settlement = Settlement(
                recipient_id=recipient_id,
                message_id=message_id,
                campaign="",
                outcome=Outcome(outcome) if outcome != _DEFERRAL else None,
                at=moment,
                due=due,
                after_stop=bool(flags & _AFTER_STOP),
                began=bool(flags & _BEGAN),
                uncertain=bool(flags & _UNCERTAIN),
                code=None if code < 0 else code,
                reply=reply[:reply_length].decode("utf-8", "ignore"),
                peer=peer[:peer_length].decode("utf-8", "ignore"),
                slot=slot,
            )
        return OpenAttempt(
            slot=slot, recipient_id=recipient_id, attempt=attempt, ending=state >= _ENDING, settlement=settlement
        )

    def _fits(self, at: int) -> bool:
        """Whether the outcome in a slot is what was written: what is not believed counts as an end being written."""
        (summed,) = _SUM.unpack_from(self._map, at + _SLOT_SIZE - 4)
        return bool(summed == zlib.crc32(self._map[at + 1 : at + _SLOT_SIZE - 4]))

    def _grow(self) -> None:
        if not self._cleared:
            raise StoreError("clear comes before the first attempt")
        slots = 2 * self._slots
        self._allocate(slots)
        if ARMED:
            reach("attempts-grown")
        self._map.resize(_HEADER_SIZE + slots * _SLOT_SIZE)
        if ARMED:
            reach("attempts-mapped")
        # Before those that were freed meanwhile, so that these are used first.
        self._free[:0] = range(slots - 1, self._slots - 1, -1)
        self._slots = slots

    def _allocate(self, slots: int) -> None:
        """Have the blocks on disk before the memory is written: a page without one would end the process (SIGBUS)."""
        try:
            os.posix_fallocate(self._fd, 0, _HEADER_SIZE + slots * _SLOT_SIZE)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            room = os.fstatvfs(self._fd)
            raise StoreFull(str(self._path), room.f_bavail * room.f_frsize) from error


def is_attempt_log(path: Path) -> bool:
    """Whether a file is an attempt log, of any boot. Raises OSError."""
    with path.open("rb") as file:
        octets = file.read(_HEADER.size)
    return len(octets) == _HEADER.size and _HEADER.unpack(octets)[:3] == (_MAGIC, _VERSION, _SLOT_SIZE)


def _read_boot_id() -> bytes:
    try:
        boot = _BOOT_ID.read_bytes().strip()
    except OSError:
        return _NO_BOOT
    return boot if len(boot) == len(_NO_BOOT) else _NO_BOOT
